//! Handing the listener of a filter to whoever shall decide in the kernel's place: a socket named by config.json gets
//! the runtime-spec's container process state with the descriptor.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result, Step};
use crate::spec::Seccomp;
use crate::sys::scm;

/// As state.json keeps it for exec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Receiver {
    path: String,
    metadata: String,
}

/// Connected before the clone.
pub(crate) struct Listener {
    socket: OwnedFd,
    metadata: String,
}

/// What the message says of the container.
pub(crate) struct Subject<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) status: &'a str,
    /// None: the process itself is the first one.
    pub(crate) init_pid: Option<i32>,
    pub(crate) bundle: &'a str,
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

/// None where nothing is to be notified of.
pub(crate) fn receiver(seccomp: &Seccomp) -> Result<Option<Receiver>> {
    if seccomp.listener_path.is_empty() && !seccomp.listener_metadata.is_empty() {
        return Err(Error::invalid("seccomp.listenerMetadata needs a listenerPath"));
    }
    if !super::compile::notifies(seccomp) {
        return Ok(None);
    }
    if !seccomp.listener_path.starts_with('/') {
        return Err(Error::invalid(format!(
            "SCMP_ACT_NOTIFY needs an absolute seccomp.listenerPath, not {:?}",
            seccomp.listener_path
        )));
    }
    Ok(Some(Receiver { path: seccomp.listener_path.clone(), metadata: seccomp.listener_metadata.clone() }))
}

impl Receiver {
    pub(crate) fn connect(&self) -> Result<Listener> {
        let socket = scm::connect(&self.path).step(|| {
            format!(
                "failed to connect with seccomp agent specified in the seccomp profile (listenerPath {})",
                self.path
            )
        })?;
        Ok(Listener { socket, metadata: self.metadata.clone() })
    }
}

impl Listener {
    /// Written while the host's /proc is in view: a process in a pid namespace does not know what others call it.
    pub(crate) fn message(&self, subject: &Subject<'_>) -> Result<Vec<u8>> {
        let own = rustix::fs::readlink("/proc/self", Vec::new()).step(|| "read /proc/self".into())?;
        let pid: i32 = own.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let message = json!({
            "ociVersion": subject.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": {
                "ociVersion": subject.oci_version,
                "id": subject.id,
                "status": subject.status,
                "pid": subject.init_pid.unwrap_or(pid),
                "bundle": subject.bundle,
                "annotations": subject.annotations,
            },
        });
        serde_json::to_vec(&message).map_err(|error| Error::invalid(error.to_string()))
    }

    /// One message; the filter is in force and must allow sendmsg.
    pub(crate) fn send(&self, message: &[u8], fd: &OwnedFd) -> Result<()> {
        scm::send(&self.socket, message, Some(fd.as_fd())).step(|| "send the seccomp listener".into())
    }
}
