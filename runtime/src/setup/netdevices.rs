//! Network devices of the caller's namespace that are moved into the container's, with their addresses.
//!
//! Three steps by two processes: the addresses are read before the clone (a device loses them when it moves), the
//! parent moves the devices, the child gives them their addresses and brings them up.

use std::collections::BTreeMap;

use crate::error::{Error, Result, Step};
use crate::spec::NetDevice;
use crate::sys::net::{self, Address, Route};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    devices: Vec<Device>,
}

#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: String,
    /// What it is called in the container.
    target: String,
    index: u32,
    addresses: Vec<Address>,
}

pub(crate) fn plan(devices: &BTreeMap<String, NetDevice>) -> Result<Plan> {
    let mut planned: Vec<Device> = Vec::with_capacity(devices.len());
    for (name, device) in devices {
        let target = if device.name.is_empty() { name } else { &device.name };
        for name in [name, target] {
            if !is_name(name) {
                return Err(Error::invalid(format!(
                    "linux.netDevices: {name:?} is no name of a network device"
                )));
            }
        }
        if planned.iter().any(|other| other.target == *target) {
            return Err(Error::invalid(format!("linux.netDevices: {target:?} is the name of two devices")));
        }
        planned.push(Device { name: name.clone(), target: target.clone(), index: 0, addresses: Vec::new() });
    }
    Ok(Plan { devices: planned })
}

/// As the kernel has it; a `%` would have it choose a number.
fn is_name(name: &str) -> bool {
    const LONGEST: usize = 15;
    !name.is_empty()
        && name.len() <= LONGEST
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"/:%".contains(&b))
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// In the caller's network namespace, before the clone.
    pub(crate) fn look_up(mut self) -> Result<Plan> {
        if self.is_empty() {
            return Ok(self);
        }
        let route = Route::open().step(|| "open a netlink socket".into())?;
        for device in &mut self.devices {
            device.index = route
                .index_of(&device.name)
                .step(|| format!("linux.netDevices: find the device {:?}", device.name))?;
        }
        for address in route.lasting_addresses().step(|| "list network addresses".into())? {
            if let Some(device) = self.devices.iter_mut().find(|device| device.index == address.index) {
                device.addresses.push(address);
            }
        }
        Ok(self)
    }

    /// In the parent: into the namespace that this child of ours is in.
    pub(crate) fn move_to(&self, pid: i32) -> Result<()> {
        let route = Route::open().step(|| "open a netlink socket".into())?;
        for device in &self.devices {
            route.move_device(device.index, pid, &device.target).step(|| {
                format!("linux.netDevices: move {:?} into the container as {:?}", device.name, device.target)
            })?;
        }
        Ok(())
    }

    /// In the child: what the devices had before they moved.
    pub(crate) fn configure(&self) -> Result<()> {
        let route = Route::open().step(|| "open a netlink socket".into())?;
        for device in &self.devices {
            let step = |what: &str| format!("linux.netDevices: {what} {:?}", device.target);
            let index = route.index_of(&device.target).step(|| step("find"))?;
            for address in &device.addresses {
                route.add_address(index, address).step(|| step("add an address to"))?;
            }
            net::bring_up(&device.target).step(|| step("bring up"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_devices() {
        let check = |json: &str| plan(&serde_json::from_str(json).expect(json));
        let planned = check(r#"{"eth1":{"name":"inner"},"eth2":{}}"#).expect("valid");
        let names: Vec<_> = planned.devices.iter().map(|d| (d.name.as_str(), d.target.as_str())).collect();
        assert_eq!(names, [("eth1", "inner"), ("eth2", "eth2")]);
        for refused in [
            r#"{"":{}}"#,
            r#"{"a/b":{}}"#,
            r#"{"..":{}}"#,
            r#"{"eth%d":{}}"#,
            r#"{"a":{"name":"sixteen-letters-"}}"#,
            r#"{"a":{"name":"x"},"b":{"name":"x"}}"#,
        ] {
            assert!(check(refused).is_err(), "{refused}");
        }
    }
}
