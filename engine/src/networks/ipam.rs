//! Addresses of the bridge network. The truth is in the container records; this is their sum in memory.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

pub(crate) struct Ipam {
    gateway: u32,
    first: u32,
    last: u32,
    taken: BTreeSet<u32>,
    /// Where the next search starts: an address just freed is used again last, as docker does.
    next: u32,
}

impl Ipam {
    pub(crate) fn new(gateway: Ipv4Addr, prefix: u8) -> Ipam {
        let gateway = u32::from(gateway);
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        let network = gateway & !host_bits;
        let (first, last) = (network + 1, (network | host_bits) - 1);
        Ipam { gateway, first, last, taken: BTreeSet::new(), next: first }
    }

    /// Notes an address that a record holds; false when it is outside or held twice.
    pub(crate) fn take(&mut self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        (self.first..=self.last).contains(&address) && address != self.gateway && self.taken.insert(address)
    }

    /// A free address.
    pub(crate) fn allocate(&mut self) -> Option<Ipv4Addr> {
        let candidates = (self.next..=self.last).chain(self.first..self.next);
        let address = candidates.into_iter().find(|a| *a != self.gateway && !self.taken.contains(a))?;
        self.taken.insert(address);
        self.next = if address == self.last { self.first } else { address + 1 };
        Some(Ipv4Addr::from(address))
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_once_and_come_back() {
        let mut ipam = Ipam::new(Ipv4Addr::new(10, 0, 0, 1), 29);
        assert!(ipam.take(Ipv4Addr::new(10, 0, 0, 3)));
        assert!(!ipam.take(Ipv4Addr::new(10, 0, 0, 3)) && !ipam.take(Ipv4Addr::new(10, 0, 1, 3)));
        let given: Vec<String> = std::iter::from_fn(|| ipam.allocate()).map(|a| a.to_string()).collect();
        assert_eq!(given, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        ipam.release(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(ipam.allocate(), Some(Ipv4Addr::new(10, 0, 0, 4)));
        assert_eq!(ipam.allocate(), None);
    }
}
