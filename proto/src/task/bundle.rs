//! Names of the files in a bundle that the daemon and the shim agree on.

/// The OCI runtime document.
pub const CONFIG: &str = "config.json";
/// The mounted root filesystem.
pub const ROOTFS: &str = "rootfs";
/// The shim's socket address as text, written by the shim (daemons up to 1.7 read it).
pub const ADDRESS: &str = "address";
/// The shim's answer to `start` as JSON, written by the daemon and read back when it restarts.
pub const BOOTSTRAP: &str = "bootstrap.json";
/// Absolute path of the shim binary that serves this bundle.
pub const SHIM_BINARY: &str = "shim-binary-path";
/// FIFO of the shim's own log; the daemon holds it open.
pub const LOG: &str = "log";
/// The runtime's JSON log.
pub const RUNTIME_LOG: &str = "log.json";
/// Pid of the container's first process, in decimal.
pub const INIT_PID: &str = "init.pid";
/// Runtime options as given at create, JSON.
pub const OPTIONS: &str = "options.json";
/// What the file before is called once its container has been deleted.
pub const DELETED: &str = "options-of-deleted.json";
/// Symlink to the container's directory that outlives a reboot.
pub const WORK: &str = "work";
/// How the names of a shim of Gantry's own FIFOs begin, and of what belongs to them.
pub const IO_PREFIX: &str = "io-";
/// What a shim of Gantry knows, for one that is to adopt its containers. A bundle without it has another shim.
pub const SHIM_STATE: &str = "shim-state.json";
