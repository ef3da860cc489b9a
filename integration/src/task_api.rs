//! What a daemon says to a shim, said without one: calls over the shim's own socket.

use prost::Message;
use proto::any::{self, Any};
use proto::task::{CONTROL_SERVICE, NAMESPACE_KEY, SANDBOX_SERVICE, SERVICE_V3, api};
use proto::ttrpc::call::Client;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub struct TaskApi {
    socket: UnixStream,
    client: Client,
}

impl TaskApi {
    /// The shim of a bundle.
    pub fn connect(bundle: &Path) -> TaskApi {
        TaskApi::find(bundle).expect("a shim serves the bundle")
    }

    /// None while none serves it.
    pub fn find(bundle: &Path) -> Option<TaskApi> {
        let read = |name: &str| std::fs::read_to_string(bundle.join(name)).ok();
        // A containerd 2 keeps it in its own words.
        let bootstrap = || {
            let document: serde_json::Value = serde_json::from_str(&read("bootstrap.json")?).ok()?;
            Some(document["address"].as_str()?.to_owned())
        };
        let address = read("address").or_else(bootstrap)?;
        let socket = UnixStream::connect(address.trim().trim_start_matches("unix://")).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        Some(TaskApi { socket, client: Client::default() })
    }

    /// Kills the shim of a bundle, and waits until another serves it.
    pub fn kill_and_follow(bundle: &Path, log: impl Fn() -> String) {
        let killed = TaskApi::connect(bundle).pid();
        crate::leaks::kill(killed);
        let pid = || TaskApi::find(bundle)?.find_pid().ok();
        crate::containerd_lite::wait_for(|| pid().is_some_and(|pid| pid != killed), log);
    }

    /// One call of the task API; its answer, or the refusal.
    pub fn call<A: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<A, String> {
        self.ask(SERVICE_V3, method, request)
    }

    /// The same, which must succeed.
    #[track_caller]
    pub fn ok<A: Message + Default>(&mut self, method: &str, request: &impl Message) -> A {
        self.call(method, request).unwrap_or_else(|refusal| panic!("{method}: {refusal}"))
    }

    /// One call of what only a shim of ours can be asked.
    pub fn control<A: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        self.ask(CONTROL_SERVICE, method, request)
    }

    /// The pid of the shim.
    pub fn pid(&mut self) -> i32 {
        self.find_pid().expect("it is there")
    }

    /// The same of one that may be about to end.
    pub fn find_pid(&mut self) -> Result<i32, String> {
        let answer = self.call::<api::ConnectResponse>("Connect", &api::ConnectRequest::default());
        answer.map(|connected| connected.shim_pid.cast_signed())
    }

    /// An exec that runs a script, with the streams of `request`.
    pub fn start_exec(&mut self, request: api::ExecProcessRequest, script: &str) {
        let spec = Some(exec_spec(script, request.terminal));
        let start = api::StartRequest { id: request.id.clone(), exec_id: request.exec_id.clone() };
        self.ok::<()>("Exec", &api::ExecProcessRequest { spec, ..request });
        self.ok::<api::StartResponse>("Start", &start);
    }

    /// One call of the sandbox API.
    pub fn sandbox<A: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        self.ask(SANDBOX_SERVICE, method, request)
    }

    fn ask<A: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        let mut out = Vec::new();
        self.client.request(service, method, request, &[(NAMESPACE_KEY, "test")], 0, &mut out);
        self.socket.write_all(&out).map_err(|error| format!("{method}: {error}"))?;
        loop {
            if let Some((_, answer)) = self.client.next_response() {
                let decode = |bytes: Vec<u8>| A::decode(bytes.as_slice()).expect("an answer");
                return answer.map(decode).map_err(|status| status.message);
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).map_err(|error| format!("{method}: {error}"))?;
            if count == 0 {
                return Err(format!("{method}: the shim has closed the connection"));
            }
            self.client.push(&bytes[..count]);
        }
    }
}

/// The process that a script is, as an exec names it.
pub fn exec_spec(script: &str, terminal: bool) -> Any {
    let process = serde_json::json!({
        "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
    });
    let name = "types.containerd.io/opencontainers/runtime-spec/1/Process";
    any::document(name, process.to_string().into_bytes())
}
