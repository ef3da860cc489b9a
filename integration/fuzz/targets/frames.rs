//! ttrpc, both sides: the same bytes mean the same in one piece and in many.
#![no_main]

use proto::ttrpc::call::{Client, Server};

fn requests(pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<String> {
    let mut server = Server::default();
    let mut seen = Vec::new();
    for piece in pieces {
        server.push(piece);
        while let Some(incoming) = server.next_request() {
            seen.push(format!("{incoming:?}"));
        }
    }
    seen
}

fn responses(pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<String> {
    let mut client = Client::default();
    let mut seen = Vec::new();
    for piece in pieces {
        client.push(piece);
        while let Some(response) = client.next_response() {
            seen.push(format!("{response:?}"));
        }
    }
    seen
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let size = usize::from(size).max(1);
    assert_eq!(requests(&mut [bytes].into_iter()), requests(&mut bytes.chunks(size)));
    assert_eq!(responses(&mut [bytes].into_iter()), responses(&mut bytes.chunks(size)));
});
