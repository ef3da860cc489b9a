//! What the fuzz targets (integration/fuzz) call: bytes in, no panic and no broken promise out. Built for them alone.

use crate::args::Args;
use crate::container::{CreateOptions, ReplyTo, Shim};
use crate::events::Publisher;
use crate::{handover, launch, service};
use prost::Message;
use proto::any::Any;
use proto::task::{SERVICE_V2, SERVICE_V3, api};
use proto::ttrpc::Request;

/// Every call but those that run a program: Create, of which only the options are read, and Upgrade.
const METHODS: [&str; 15] = [
    "State",
    "Start",
    "Delete",
    "Pids",
    "Pause",
    "Resume",
    "Kill",
    "Exec",
    "ResizePty",
    "CloseIO",
    "Stats",
    "Update",
    "Wait",
    "Connect",
    "Checkpoint",
];

/// A call to a shim that has no container: the first byte chooses it, the rest is its message.
pub fn task(bytes: &[u8]) {
    let Some((&choice, payload)) = bytes.split_first() else { return };
    let Some(method) = METHODS.get(usize::from(choice >> 1)) else {
        if let Ok(request) = api::CreateTaskRequest::decode(payload) {
            let _ = CreateOptions::from_any(request.options.as_ref());
        }
        return;
    };
    let service = if choice & 1 == 0 { SERVICE_V2 } else { SERVICE_V3 };
    let shim = Shim::new("fuzz", CreateOptions::default(), Publisher::new(None, "fuzz"));
    let mut shim = shim.expect("/dev/urandom is there");
    let request = Request {
        service: service.to_owned(),
        method: (*method).to_owned(),
        payload: payload.to_vec(),
        ..Default::default()
    };
    service::handle(&mut shim, &request, ReplyTo { connection: 0, stream_id: 1 });
    assert_eq!(shim.answers.len(), 1, "{method} of a container that is not there is answered at once");
}

/// Standard input of `start`.
pub fn bootstrap(bytes: &[u8]) {
    let args = Args { namespace: "fuzz".into(), id: "fuzz".into(), ..Default::default() };
    let _ = launch::parse_options(bytes, &args);
    let _ = Any::decode(bytes).map(|any| CreateOptions::from_any(Some(&any)).map(drop));
}

/// What an earlier binary has left.
pub fn state(bytes: &[u8]) {
    handover::judge(bytes);
}

/// What is in a log, or on its way there.
pub fn log(bytes: &[u8]) {
    crate::log::judge(bytes);
}
