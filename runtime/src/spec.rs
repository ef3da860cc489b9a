//! config.json as rung reads it: the parts of the runtime-spec that a Linux runtime acts on, in a model of our
//! own because parsing is on the path of every start and the general-purpose one allocates for much that is
//! never looked at. Unknown fields are ignored, as the runtime-spec demands.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// JSON `null` where a list, a map or a string is expected counts as absent: Go writes nil so.
fn null_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(de: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(de)?.unwrap_or_default())
}

/// What the derived code reads is a JSON object and nothing else: by itself it takes a list too, as the fields' values in
/// the order in which they happen to stand here.
macro_rules! objects {
    ($($name:ident)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                struct Object;
                impl<'de> Visitor<'de> for Object {
                    type Value = $name;

                    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                        out.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        $name::deserialize(MapAccessDeserializer::new(map))
                    }
                }
                de.deserialize_map(Object)
            }
        }
    )*};
}

objects!(Spec Process Scheduler CpuAffinity ConsoleSize User Capabilities Rlimit IoPriority Root Mount Hooks Hook Linux TimeOffset Personality MemoryPolicy NetDevice IdMapping Namespace Device Resources DeviceRule Network InterfacePriority Rdma Memory Cpu Pids BlockIo WeightDevice ThrottleDevice HugepageLimit Seccomp SyscallRule SyscallArgument);

macro_rules! written {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
                $name::serialize(self, ser)
            }
        }
    )*};
}

written!(Rlimit Hooks Hook);

#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) oci_version: String,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<Root>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) hostname: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) domainname: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) hooks: Hooks,
    #[serde(deserialize_with = "null_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) linux: Linux,
    // Sections for other kinds of machines, read only to be refused.
    pub(crate) solaris: Option<serde::de::IgnoredAny>,
    pub(crate) windows: Option<serde::de::IgnoredAny>,
    pub(crate) vm: Option<serde::de::IgnoredAny>,
    pub(crate) zos: Option<serde::de::IgnoredAny>,
    pub(crate) freebsd: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Process {
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) user: User,
    #[serde(deserialize_with = "null_default")]
    pub(crate) args: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) no_new_privileges: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) apparmor_profile: String,
    pub(crate) oom_score_adj: Option<i32>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) selinux_label: String,
    #[serde(rename = "ioPriority")]
    pub(crate) io_priority: Option<IoPriority>,
    pub(crate) scheduler: Option<Scheduler>,
    #[serde(rename = "execCPUAffinity")]
    pub(crate) exec_cpu_affinity: Option<CpuAffinity>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) command_line: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct Scheduler {
    pub(crate) policy: String,
    pub(crate) nice: i32,
    pub(crate) priority: i32,
    #[serde(deserialize_with = "null_default")]
    pub(crate) flags: Vec<String>,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct CpuAffinity {
    #[serde(deserialize_with = "null_default")]
    pub(crate) initial: String,
    #[serde(rename = "final", deserialize_with = "null_default")]
    pub(crate) last: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct ConsoleSize {
    pub(crate) height: u16,
    pub(crate) width: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) umask: Option<u32>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) additional_gids: Vec<u32>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) username: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(remote = "Self", default)]
pub(crate) struct Capabilities {
    #[serde(deserialize_with = "null_default")]
    pub(crate) bounding: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) effective: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) inheritable: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) permitted: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) ambient: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(remote = "Self")]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct IoPriority {
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) priority: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct Root {
    pub(crate) path: String,
    pub(crate) readonly: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Mount {
    pub(crate) destination: String,
    #[serde(rename = "type", deserialize_with = "null_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) source: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) options: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) gid_mappings: Vec<IdMapping>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(remote = "Self", default)]
pub(crate) struct Hooks {
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) prestart: Vec<Hook>,
    #[serde(
        rename = "createRuntime",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) create_runtime: Vec<Hook>,
    #[serde(
        rename = "createContainer",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) create_container: Vec<Hook>,
    #[serde(
        rename = "startContainer",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) start_container: Vec<Hook>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststart: Vec<Hook>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(remote = "Self", default)]
pub(crate) struct Hook {
    pub(crate) path: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) args: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Linux {
    #[serde(deserialize_with = "null_default")]
    pub(crate) uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) gid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) sysctl: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) resources: Resources,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cgroups_path: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) devices: Vec<Device>,
    /// A [`Seccomp`], which is read only where its filter is not known yet.
    pub(crate) seccomp: Option<Box<serde_json::value::RawValue>>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) rootfs_propagation: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) masked_paths: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) readonly_paths: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) mount_label: String,
    pub(crate) intel_rdt: Option<serde::de::IgnoredAny>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) net_devices: BTreeMap<String, NetDevice>,
    pub(crate) personality: Option<Personality>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) time_offsets: BTreeMap<String, TimeOffset>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(remote = "Self", default)]
pub(crate) struct TimeOffset {
    pub(crate) secs: i64,
    pub(crate) nanosecs: u32,
}

#[derive(Debug, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct Personality {
    pub(crate) domain: String,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct MemoryPolicy {
    pub(crate) mode: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) nodes: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) flags: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct NetDevice {
    #[serde(deserialize_with = "null_default")]
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(remote = "Self")]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(crate) container_id: u32,
    #[serde(rename = "hostID")]
    pub(crate) host_id: u32,
    pub(crate) size: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Device {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) file_mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Resources {
    #[serde(deserialize_with = "null_default")]
    pub(crate) devices: Vec<DeviceRule>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) memory: Memory,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpu: Cpu,
    #[serde(deserialize_with = "null_default")]
    pub(crate) pids: Pids,
    #[serde(rename = "blockIO", deserialize_with = "null_default")]
    pub(crate) block_io: BlockIo,
    #[serde(deserialize_with = "null_default")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) unified: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) network: Network,
    #[serde(deserialize_with = "null_default")]
    pub(crate) rdma: BTreeMap<String, Rdma>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct DeviceRule {
    pub(crate) allow: bool,
    #[serde(rename = "type", deserialize_with = "null_default")]
    pub(crate) kind: String,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) access: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct Network {
    #[serde(rename = "classID")]
    pub(crate) class_id: Option<u32>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) priorities: Vec<InterfacePriority>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct InterfacePriority {
    pub(crate) name: String,
    pub(crate) priority: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Rdma {
    pub(crate) hca_handles: Option<u32>,
    pub(crate) hca_objects: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Memory {
    pub(crate) limit: Option<i64>,
    pub(crate) reservation: Option<i64>,
    pub(crate) swap: Option<i64>,
    pub(crate) kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub(crate) kernel_tcp: Option<i64>,
    pub(crate) use_hierarchy: Option<bool>,
    pub(crate) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub(crate) disable_oom_killer: Option<bool>,
    pub(crate) check_before_update: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Cpu {
    pub(crate) shares: Option<u64>,
    pub(crate) quota: Option<i64>,
    pub(crate) burst: Option<u64>,
    pub(crate) period: Option<u64>,
    pub(crate) realtime_runtime: Option<i64>,
    pub(crate) realtime_period: Option<u64>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpus: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) mems: String,
    pub(crate) idle: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub(crate) struct Pids {
    pub(crate) limit: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct BlockIo {
    pub(crate) weight: Option<u16>,
    pub(crate) leaf_weight: Option<u16>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) weight_device: Vec<WeightDevice>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "null_default")]
    pub(crate) throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice", deserialize_with = "null_default")]
    pub(crate) throttle_write_iops_device: Vec<ThrottleDevice>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub(crate) struct WeightDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    #[serde(default)]
    pub(crate) weight: Option<u16>,
    #[serde(default)]
    pub(crate) leaf_weight: Option<u16>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct ThrottleDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    #[serde(default)]
    pub(crate) rate: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub(crate) struct HugepageLimit {
    pub(crate) page_size: String,
    pub(crate) limit: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct Seccomp {
    pub(crate) default_action: String,
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) architectures: Vec<String>,
    pub(crate) flags: Option<Vec<String>>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) listener_path: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) listener_metadata: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) syscalls: Vec<SyscallRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct SyscallRule {
    #[serde(deserialize_with = "null_default")]
    pub(crate) names: Vec<String>,
    pub(crate) action: String,
    pub(crate) errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) args: Vec<SyscallArgument>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct SyscallArgument {
    pub(crate) index: u32,
    pub(crate) value: u64,
    pub(crate) value_two: u64,
    pub(crate) op: String,
}

impl Resources {
    /// A field other than rules for devices that asks for something.
    pub(crate) fn first_limit(&self) -> Option<&'static str> {
        let (memory, cpu, io) = (&self.memory, &self.cpu, &self.block_io);
        let number = |n: Option<i64>| n.is_some_and(|n| n != 0);
        let amount = |n: Option<u64>| n.is_some_and(|n| n != 0);
        let memory = number(memory.limit)
            || number(memory.reservation)
            || number(memory.swap)
            || number(memory.kernel)
            || number(memory.kernel_tcp)
            || memory.swappiness.is_some_and(|n| n != u64::MAX)
            || memory.disable_oom_killer == Some(true);
        let cpu = amount(cpu.shares)
            || number(cpu.quota)
            || amount(cpu.burst)
            || amount(cpu.period)
            || number(cpu.realtime_runtime)
            || amount(cpu.realtime_period)
            || !cpu.cpus.is_empty()
            || !cpu.mems.is_empty()
            || number(cpu.idle);
        let io = io.weight.is_some_and(|n| n != 0)
            || io.leaf_weight.is_some_and(|n| n != 0)
            || !io.weight_device.is_empty()
            || !io.throttle_read_bps_device.is_empty()
            || !io.throttle_write_bps_device.is_empty()
            || !io.throttle_read_iops_device.is_empty()
            || !io.throttle_write_iops_device.is_empty();
        let fields = [
            ("memory", memory),
            ("cpu", cpu),
            ("pids", number(self.pids.limit)),
            ("blockIO", io),
            ("hugepageLimits", !self.hugepage_limits.is_empty()),
            ("unified", !self.unified.is_empty()),
            ("network", self.network.class_id.is_some() || !self.network.priorities.is_empty()),
            ("rdma", !self.rdma.is_empty()),
        ];
        fields.iter().find(|field| field.1).map(|field| field.0)
    }
}

impl Linux {
    /// The namespace entry of a kind, if the container has one of its own or joins one.
    pub(crate) fn namespace(&self, kind: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }
}
