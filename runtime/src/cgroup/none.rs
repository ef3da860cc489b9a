//! No cgroup at all: an ordinary user's container where none was handed down to the user.

use super::{Driver, Entrance, Paths, SubCgroup};
use crate::error::{Error, Result};
use crate::spec::Resources;

#[derive(Default)]
pub(super) struct Cgroup {
    paths: Paths,
}

fn absent(what: &str) -> Error {
    Error::invalid(format!(
        "{what} needs a cgroup, and this container has none: its user may not make cgroups here (a system with \
         cgroup v2 can delegate some, as systemd does for user sessions)"
    ))
}

impl Driver for Cgroup {
    fn paths(&self) -> &Paths {
        &self.paths
    }

    fn refuse_in_use(&self) -> Result<()> {
        Ok(())
    }

    fn create(&self) -> Result<()> {
        Ok(())
    }

    /// Rules for devices need nothing: in a user namespace only those that were bound can be used.
    fn apply(&self, resources: &Resources, _fresh: bool) -> Result<()> {
        match resources.first_limit() {
            Some(name) => Err(absent(&format!("resources.{name}"))),
            None => Ok(()),
        }
    }

    fn entrance(&self, below: &[SubCgroup]) -> Result<Entrance> {
        match below {
            [] => Ok(Entrance { clone_into: None, join: Vec::new() }),
            _ => Err(absent("--cgroup")),
        }
    }

    fn freeze(&self, _frozen: bool) -> Result<()> {
        Err(absent("freezing a container"))
    }

    fn is_frozen(&self) -> bool {
        false
    }

    fn processes(&self) -> Result<Vec<i32>> {
        Err(absent("listing all processes"))
    }

    /// With a pid namespace of its own the first process takes all others along.
    fn kill_all(&self) -> Result<()> {
        Ok(())
    }
}
