//! Making processes in containers. The reading page:
//!
//! ```text
//! prepare   every decision and every descriptor, while nothing has happened yet
//! cgroup    made, with its limits
//! clone3 ──────────────────────────────┐
//! parent                               child
//!   oom score                            cgroup, namespaces, hostname, keyring
//!   user mappings           <─ Mapping   (new user namespace only)
//!                           Go ─>
//!                                        root file system, mounts, devices, terminal
//!   hooks of the runtime      <─ Hooks   (if there are any)
//!                           Go ─>
//!                                        hooks of the container, sysctls, masks, pivot_root
//!                                        directory, user, capabilities, look the program up
//!   state, pid file           <─ Ready
//!                           Go ─>
//!   create: exit                         create: wait at the gate for `start`
//!   run, exec: until it ends             seccomp, exec
//! ```
//!
//! Wherever the child fails it sends why, and the parent gives everything back. If the parent is killed, the
//! child finds its socket closed and ends.

mod child;
mod diagnose;
pub(crate) mod exec;
mod foreground;
pub(crate) mod gate;
mod parent;
mod prepare;
mod process;
mod readiness;
mod restore;
pub(crate) mod sync;

pub(crate) use parent::{Outcome, await_ready, create, listen_for_readiness, poststart};
pub(crate) use prepare::{Mode, prepare};
pub(crate) use restore::restore;
