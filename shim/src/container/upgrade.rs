//! Upgrades: asked for, probed, and what becomes of them; the rest is [`crate::handover`].

use super::calls::{Call, Verb};
use super::{Handled, ReplyTo, Shim};
use crate::error::Error;
use crate::handover::{self, Stage, Upgrade};
use std::fs::File;
use std::path::PathBuf;

impl Shim {
    /// Upgrade: answered by the new binary, or by this one when that does not take over.
    pub(crate) fn upgrade(&mut self, binary: &str, reply: Option<ReplyTo>) -> Result<Handled, Error> {
        if self.upgrade.is_some() {
            return Err(Error::precondition("another upgrade is under way: failed precondition"));
        }
        let binary = if binary.is_empty() { handover::own_path()? } else { PathBuf::from(binary) };
        if !binary.is_absolute() {
            let text = format!("binary {} is not an absolute path: invalid argument", binary.display());
            return Err(Error::invalid(text));
        }
        self.upgrade = Some(Upgrade { binary, reply, stage: Stage::Asked });
        Ok(Handled::Later)
    }

    /// The new binary is looking at the state.
    pub(crate) fn probing(&mut self, pid: u32, output: File) {
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.stage = Stage::Probing;
        let call =
            Call { verb: Verb::Probe, handle: 0, reply: None, log: PathBuf::new(), output: Some(output) };
        self.calls.insert(pid, call);
    }

    pub(super) fn probed(&mut self, call: &Call, status: u32) {
        let Some(upgrade) = &mut self.upgrade else { return };
        if status == 0 && call.output.as_ref().is_some_and(handover::has_understood) {
            upgrade.stage = Stage::Ready;
            return;
        }
        let text = format!(
            "{} does not understand the state of this shim, which goes on: failed precondition",
            upgrade.binary.display()
        );
        self.upgrade_failed(Error::precondition(text));
    }

    pub(crate) fn upgrade_failed(&mut self, error: Error) {
        crate::complain!("upgrade: {error}");
        let reply = self.upgrade.take().and_then(|upgrade| upgrade.reply);
        self.reply(reply, Err(error));
    }
}
