//! What is done to network devices: flags by ioctl, the rest by netlink.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::check;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Set IFF_UP on a device of the current network namespace.
pub(crate) fn bring_up(name: &str) -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // The loopback device is always the same but for this flag; others keep what they have.
    if name == "lo" {
        request.flags = libc::IFF_UP as libc::c_short;
    } else {
        // SAFETY: the request has the layout of struct ifreq, into which the kernel writes the flags.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) }.into())?;
        request.flags |= libc::IFF_UP as libc::c_short;
    }
    // SAFETY: the request has the layout of struct ifreq with the flags member of its union.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) }.into())
        .map(drop)
}

/// An address of a device as the kernel lists it: the fields that matter, and the attributes to give back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    family: u8,
    prefix: u8,
    attributes: Vec<u8>,
}

/// A conversation with the kernel about one network namespace: that of whoever opened it.
pub(crate) struct Route {
    socket: OwnedFd,
}

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_PID: u16 = 19;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_PERMANENT: u8 = 0x80;
const HEADER: usize = 16;

impl Route {
    pub(crate) fn open() -> io::Result<Route> {
        // No protocol is NETLINK_ROUTE.
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Route { socket })
    }

    pub(crate) fn index_of(&self, name: &str) -> io::Result<u32> {
        let name = super::cstring(name)?;
        // SAFETY: the name is a terminated string.
        match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => Err(io::Error::last_os_error()),
            index => Ok(index),
        }
    }

    /// Those that somebody gave to a device for good and that are good anywhere.
    pub(crate) fn lasting_addresses(&self) -> io::Result<Vec<Address>> {
        let dump = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        self.send(libc::RTM_GETADDR, dump, &[0; 8])?;
        let mut found = Vec::new();
        loop {
            let packet = self.receive()?;
            for (kind, body) in messages(&packet) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(found),
                    libc::NLMSG_ERROR => result_of(body)?,
                    _ if kind == libc::RTM_NEWADDR => found.extend(address(body)),
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn add_address(&self, index: u32, address: &Address) -> io::Result<()> {
        let mut body = vec![address.family, address.prefix, 0, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&address.attributes);
        self.ask(libc::RTM_NEWADDR, (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16, &body)
    }

    /// Into the network namespace of a process, under a new name.
    pub(crate) fn move_device(&self, index: u32, pid: i32, name: &str) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&[0; 8]);
        push_attribute(&mut body, IFLA_NET_NS_PID, &pid.to_ne_bytes());
        push_attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        self.ask(libc::RTM_NEWLINK, 0, &body)
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16, body)?;
        let packet = self.receive()?;
        let answer = messages(&packet).find(|(kind, _)| i32::from(*kind) == libc::NLMSG_ERROR);
        let (_, body) = answer.ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))?;
        result_of(body)
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut packet = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        packet.extend_from_slice(&kind.to_ne_bytes());
        packet.extend_from_slice(&flags.to_ne_bytes());
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(body);
        rustix::net::send(&self.socket, &packet, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        const LARGEST_PACKET: usize = 32 << 10;
        let mut packet = vec![0; LARGEST_PACKET];
        let (length, _) = rustix::net::recv(&self.socket, &mut packet[..], RecvFlags::empty())?;
        packet.truncate(length);
        Ok(packet)
    }
}

fn result_of(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|number| i32::from_ne_bytes(*number)) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::Error::from_raw_os_error(libc::EPROTO)),
    }
}

fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The messages of a packet: each one's kind and what follows its header.
fn messages(mut packet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*packet.first_chunk()?) as usize;
        let message = packet.get(..length).filter(|message| message.len() >= HEADER)?;
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, &message[HEADER..]))
    })
}

fn address(body: &[u8]) -> Option<Address> {
    let (head, mut rest) = body.split_at_checked(8)?;
    let (family, prefix, flags, scope) = (head[0], head[1], head[2], head[3]);
    if flags & IFA_F_PERMANENT == 0 || scope != 0 {
        return None;
    }
    let mut attributes = Vec::new();
    while let [l0, l1, k0, k1, ..] = *rest {
        let (length, kind) = (usize::from(u16::from_ne_bytes([l0, l1])), u16::from_ne_bytes([k0, k1]));
        let value = rest.get(4..length)?;
        if matches!(kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST) {
            push_attribute(&mut attributes, kind, value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Address { index: u32::from_ne_bytes(*head.last_chunk()?), family, prefix, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_without_trust() {
        for broken in [&b""[..], &[0; 3], &[0; 16], &[255; 20], &[8, 0, 0, 0, 1, 0, 0, 0]] {
            assert_eq!(messages(broken).count(), 0, "{broken:?}");
        }
        let message = [&20u32.to_ne_bytes()[..], &7u16.to_ne_bytes(), &[0; 10], &[1, 2, 3, 4]].concat();
        let two = [message.clone(), message].concat();
        let found: Vec<_> = messages(&two).collect();
        assert_eq!(found, [(7, &[1, 2, 3, 4][..]), (7, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn only_lasting_addresses_count() {
        let mut body = vec![2, 24, IFA_F_PERMANENT, 0];
        body.extend_from_slice(&5u32.to_ne_bytes());
        push_attribute(&mut body, IFA_LOCAL, &[10, 0, 0, 1]);
        push_attribute(&mut body, 3, b"label\0");
        let found = address(&body).expect("it lasts");
        assert_eq!((found.index, found.prefix, found.attributes.len()), (5, 24, 8));
        body[2] = 0;
        assert_eq!(address(&body), None);
        assert_eq!(address(&[0; 3]), None);
    }
}
