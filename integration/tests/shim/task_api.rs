//! What a daemon says to a shim, said without one: calls over the shim's own socket.

use prost::Message;
use proto::task::{CONTROL_SERVICE, NAMESPACE_KEY, SERVICE_V3};
use proto::ttrpc::call::Client;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub(crate) struct TaskApi {
    socket: UnixStream,
    client: Client,
}

impl TaskApi {
    /// The shim of a bundle.
    pub(crate) fn connect(bundle: &Path) -> TaskApi {
        let address = std::fs::read_to_string(bundle.join("address")).expect("its address");
        let socket = UnixStream::connect(address.trim().trim_start_matches("unix://")).expect("connect");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        TaskApi { socket, client: Client::default() }
    }

    /// One call of the task API; its answer, or the refusal.
    pub(crate) fn call<A: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        self.ask(SERVICE_V3, method, request)
    }

    /// The same, which must succeed.
    #[track_caller]
    pub(crate) fn ok<A: Message + Default>(&mut self, method: &str, request: &impl Message) -> A {
        self.call(method, request).unwrap_or_else(|refusal| panic!("{method}: {refusal}"))
    }

    /// One call of what only a shim of ours can be asked.
    pub(crate) fn control<A: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        self.ask(CONTROL_SERVICE, method, request)
    }

    fn ask<A: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        let mut out = Vec::new();
        self.client.request(service, method, request, &[(NAMESPACE_KEY, "test")], 0, &mut out);
        self.socket.write_all(&out).expect("send");
        loop {
            if let Some((_, answer)) = self.client.next_response() {
                let decode = |bytes: Vec<u8>| A::decode(bytes.as_slice()).expect("an answer");
                return answer.map(decode).map_err(|status| status.message);
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).expect("an answer in time");
            assert_ne!(count, 0, "{method}: the shim has closed the connection");
            self.client.push(&bytes[..count]);
        }
    }
}
