//! The few rtnetlink requests a bridge network needs, one synchronous socket for each namespace: a socket stays
//! in the namespace it was opened in, which is what makes one thread able to work on both ends of a veth pair.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const EXCL: u16 = 0x200;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const HEADER: usize = 16;
/// Larger than any one answer of the kernel's, which sends dumps in pieces of at most 32 KiB.
const BUFFER: usize = 64 << 10;

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        Message(bytes)
    }

    fn link(kind: u16, flags: u16, index: u32, up: Option<bool>) -> Message {
        let mut message = Message::new(kind, flags);
        message.push_link(index, up);
        message
    }

    /// struct ifinfomsg
    fn push_link(&mut self, index: u32, up: Option<bool>) {
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&index.to_ne_bytes());
        let flags = if up == Some(true) { IFF_UP } else { 0 };
        let change = if up.is_some() { IFF_UP } else { 0 };
        self.0.extend_from_slice(&flags.to_ne_bytes());
        self.0.extend_from_slice(&change.to_ne_bytes());
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        self.push(kind, value);
        self
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        self.0.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute that holds attributes.
    fn nested(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let mut inner = fill(self);
        let length = (inner.0.len() - start) as u16;
        inner.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        inner.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        inner
    }
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) master: u32,
}

/// One IPv4 address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// Both ends of a new veth pair.
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) master: u32,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: [u8; 6],
    pub(crate) peer_namespace: BorrowedFd<'a>,
}

pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Socket> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0, which is what no protocol means to socket(2).
            None,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Socket { fd, sequence: 0 })
    }

    /// Sends a request; answers what came back up to its acknowledgement or end.
    fn ask(&mut self, mut message: Message) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.sequence += 1;
        let length = message.0.len() as u32;
        message.0[..4].copy_from_slice(&length.to_ne_bytes());
        message.0[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        rustix::net::send(&self.fd, &message.0, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let (received, _) = rustix::net::recv(&self.fd, buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &buffer[..received];
            while rest.len() >= HEADER {
                let length = u32_at(rest, 0) as usize;
                if length < HEADER || length > rest.len() {
                    return Err(io::Error::other("malformed netlink answer"));
                }
                let (kind, sequence) = (u16_at(rest, 4), u32_at(rest, 8));
                let payload = &rest[HEADER..length];
                if sequence == self.sequence {
                    match kind {
                        DONE => return Ok(answers),
                        ERROR => {
                            let code = u32_at(payload, 0) as i32;
                            if code == 0 {
                                return Ok(answers);
                            }
                            return Err(io::Error::from_raw_os_error(-code));
                        }
                        _ => answers.push((kind, payload.to_vec())),
                    }
                }
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
    }

    /// The link of that name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.ask(Message::link(GETLINK, ACK, 0, None).text(IFLA_IFNAME, name)) {
            Ok(answers) => Ok(answers.iter().find(|(kind, _)| *kind == NEWLINK).map(|(_, p)| parse_link(p))),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.ask(Message::link(GETLINK, DUMP, 0, None))?;
        Ok(answers.iter().filter(|(kind, _)| *kind == NEWLINK).map(|(_, p)| parse_link(p)).collect())
    }

    /// Every IPv4 address of the namespace.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let mut message = Message::new(GETADDR, DUMP);
        message.0.extend_from_slice(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
        let answers = self.ask(message)?;
        Ok(answers
            .iter()
            .filter(|(kind, _)| *kind == NEWADDR)
            .filter_map(|(_, p)| parse_address(p))
            .collect())
    }

    pub(crate) fn create_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let message = Message::link(NEWLINK, ACK | CREATE | EXCL, 0, Some(true))
            .text(IFLA_IFNAME, name)
            .attribute(IFLA_ADDRESS, &mac)
            .attribute(IFLA_MTU, &mtu.to_ne_bytes())
            .nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        self.ask(message).map(drop)
    }

    pub(crate) fn create_veth(&mut self, veth: &Veth<'_>) -> io::Result<()> {
        let message = Message::link(NEWLINK, ACK | CREATE | EXCL, 0, Some(true))
            .text(IFLA_IFNAME, veth.name)
            .attribute(IFLA_MTU, &veth.mtu.to_ne_bytes())
            .attribute(IFLA_MASTER, &veth.master.to_ne_bytes())
            .nested(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |mut peer| {
                        peer.push_link(0, None);
                        peer.text(IFLA_IFNAME, veth.peer_name)
                            .attribute(IFLA_ADDRESS, &veth.peer_mac)
                            .attribute(IFLA_MTU, &veth.mtu.to_ne_bytes())
                            .attribute(IFLA_NET_NS_FD, &veth.peer_namespace.as_raw_fd().to_ne_bytes())
                    })
                })
            });
        self.ask(message).map(drop)
    }

    pub(crate) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        self.ask(Message::link(DELLINK, ACK, index, None)).map(drop)
    }

    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.ask(Message::link(NEWLINK, ACK, index, Some(true))).map(drop)
    }

    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(NEWADDR, ACK | CREATE | EXCL);
        message.0.extend_from_slice(&[AF_INET, prefix, 0, 0]);
        message.0.extend_from_slice(&index.to_ne_bytes());
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        let broadcast = Ipv4Addr::from(u32::from(address) | host_bits);
        let message = message
            .attribute(IFA_LOCAL, &address.octets())
            .attribute(IFA_ADDRESS, &address.octets())
            .attribute(IFA_BROADCAST, &broadcast.octets());
        self.ask(message).map(drop)
    }

    pub(crate) fn add_default_route(&mut self, gateway: Ipv4Addr, index: u32) -> io::Result<()> {
        const TABLE_MAIN: u8 = 254;
        const PROTOCOL_BOOT: u8 = 3;
        const SCOPE_UNIVERSE: u8 = 0;
        const TYPE_UNICAST: u8 = 1;
        let mut message = Message::new(NEWROUTE, ACK | CREATE | EXCL);
        message.0.extend_from_slice(&[
            AF_INET,
            0,
            0,
            0,
            TABLE_MAIN,
            PROTOCOL_BOOT,
            SCOPE_UNIVERSE,
            TYPE_UNICAST,
            0,
            0,
            0,
            0,
        ]);
        let message =
            message.attribute(RTA_GATEWAY, &gateway.octets()).attribute(RTA_OIF, &index.to_ne_bytes());
        self.ask(message).map(drop)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// The attributes after a message's fixed part.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = u16_at(bytes, 0) as usize;
        if length < 4 || length > bytes.len() {
            break;
        }
        found.push((u16_at(bytes, 2) & 0x3fff, &bytes[4..length]));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

fn parse_link(payload: &[u8]) -> Link {
    let mut link = Link { index: u32_at(payload, 4), ..Link::default() };
    for (kind, value) in attributes(payload.get(16..).unwrap_or(&[])) {
        match kind {
            IFLA_IFNAME => {
                link.name = String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
            }
            IFLA_MASTER => link.master = u32_at(value, 0),
            _ => {}
        }
    }
    link
}

fn parse_address(payload: &[u8]) -> Option<Address> {
    let (prefix, index) = (*payload.get(1)?, u32_at(payload, 4));
    let (_, value) = attributes(payload.get(8..)?)
        .into_iter()
        .find(|(kind, value)| *kind == IFA_LOCAL && value.len() == 4)?;
    Some(Address { index, address: Ipv4Addr::new(value[0], value[1], value[2], value[3]), prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_addresses_are_made_and_read_in_a_namespace_of_their_own() {
        crate::sys::apart(crate::sys::Namespaces::Network, || {
            let mut socket = Socket::open()?;
            assert_eq!(socket.link("br9")?, None);
            socket.create_bridge("br9", [2, 0, 0, 0, 0, 9], 1400)?;
            let bridge = socket.link("br9")?.unwrap();
            socket.add_address(bridge.index, Ipv4Addr::new(10, 9, 0, 1), 24)?;
            assert!(socket.addresses()?.contains(&Address {
                index: bridge.index,
                address: Ipv4Addr::new(10, 9, 0, 1),
                prefix: 24
            }));
            let again = socket.create_bridge("br9", [2, 0, 0, 0, 0, 9], 1400).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
            socket.delete_link(bridge.index)?;
            assert_eq!(socket.links()?.iter().filter(|link| link.name == "br9").count(), 0);
            Ok(())
        })
        .unwrap();
    }
}
