//! The shim's task API, what it publishes, and the options it takes.

pub mod bundle;
pub mod local_log;

use crate::any::{self, Any};
use prost::Message;

pub use crate::generated::containerd::events;
pub use crate::generated::containerd::runc::v1 as runc;
pub use crate::generated::containerd::runtime::bootstrap::v1 as bootstrap;
pub use crate::generated::containerd::runtime::sandbox::v1 as sandbox;
pub use crate::generated::containerd::services::events::ttrpc::v1 as forward;
pub use crate::generated::containerd::task::v3 as api;
pub use crate::generated::containerd::types;
pub use crate::generated::containerd::v1::types as process;
pub use crate::generated::gantry::shim::v1 as gantry;
pub use crate::generated::io::containerd::cgroups as metrics;
pub use crate::generated::runtime::v1 as cri;

/// Service name of the task API, version 2 (containerd 1.x).
pub const SERVICE_V2: &str = "containerd.task.v2.Task";
/// Service name of the task API, version 3 (containerd 2.x); methods and messages are those of version 2.
pub const SERVICE_V3: &str = "containerd.task.v3.Task";
/// Service name of what a containerd 2 asks the shim of a sandbox.
pub const SANDBOX_SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
/// Service name of what only a shim of ours can be asked.
pub const CONTROL_SERVICE: &str = "gantry.shim.v1.Control";
/// Service name under which a daemon takes events from shims.
pub const EVENTS_SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// The ttrpc metadata key that names the namespace.
pub const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";

/// A runc shim's options, and ours behind them.
pub fn pack_options(runtime: &runc::Options, ours: &gantry::Options) -> Any {
    let mut options = any::pack(runtime);
    options.value.extend(ours.encode_to_vec());
    options
}

/// Both of them; `None` when it holds something else, an error when it is broken.
pub fn unpack_options(any: &Any) -> Result<Option<(runc::Options, gantry::Options)>, prost::DecodeError> {
    let Some(runtime) = any::unpack::<runc::Options>(any)? else { return Ok(None) };
    Ok(Some((runtime, gantry::Options::decode(any.value.as_slice())?)))
}

/// Event topics a shim publishes.
pub mod topic {
    pub const CREATE: &str = "/tasks/create";
    pub const START: &str = "/tasks/start";
    pub const OOM: &str = "/tasks/oom";
    pub const EXIT: &str = "/tasks/exit";
    pub const DELETE: &str = "/tasks/delete";
    pub const EXEC_ADDED: &str = "/tasks/exec-added";
    pub const EXEC_STARTED: &str = "/tasks/exec-started";
    pub const PAUSED: &str = "/tasks/paused";
    pub const RESUMED: &str = "/tasks/resumed";
    pub const CHECKPOINTED: &str = "/tasks/checkpointed";
}
