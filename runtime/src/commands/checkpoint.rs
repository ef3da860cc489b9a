use crate::args::{CheckpointOptions, Global};
use crate::bundle;
use crate::cgroup;
use crate::checkpoint::criu::{Criu, Kind, Message};
use crate::checkpoint::{self, Folders, Given, Outside};
use crate::container::{Container, Request};
use crate::error::{Error, Result, Step};
use crate::log::Log;
use crate::rootless;
use crate::setup::mounts;

/// criu's log in the work folder.
const LOG: &str = "dump.log";

pub(super) fn checkpoint(global: &Global, id: &str, options: &CheckpointOptions, log: &Log) -> Result<i32> {
    let (container, _lock) = Container::lock(&global.root, id)?;
    container.status().allows(Request::Checkpoint)?;
    if rootless::is_ordinary() {
        return Err(Error::Unsupported(
            "the checkpoint of an ordinary user's container (criu needs root)".into(),
        ));
    }
    let folders = Folders::make(&options.criu)?;
    let spec =
        bundle::load(&container.record.bundle).step(|| "read the container's configuration".into())?.spec;
    let pid = container.record.init_process_pid;
    let (mut message, _dirs) = checkpoint::common(&options.criu, &folders, LOG)?;
    message.number(2, pid as u64);
    message.text(13, &container.record.config.rootfs);
    message.flag(3, options.leave_running);
    message.flag(46, options.tcp_skip_in_flight);
    if let Some(parent) = &options.parent_path {
        if parent.starts_with('/') || !folders.images.join(parent).is_dir() {
            return Err(Error::invalid(format!(
                "invalid --parent-path {parent:?}: it is the folder of an earlier --pre-dump, relative to the image folder"
            )));
        }
        message.text(14, parent);
        message.flag(15, true);
    }
    message.flag(15, options.pre_dump);
    if let Some((address, port)) = &options.page_server {
        let mut server = Message::default();
        server.text(1, address);
        server.number(2, u64::from(*port));
        message.message(11, &server);
    }
    if let Some(number) = options.status_fd {
        message.number(49, number as u64);
    }
    if let Some(freezer) = cgroup::freezer(&container.record.cgroup_paths) {
        message.text(44, &freezer);
    }
    let steps =
        mounts::plan(&spec.mounts, &container.record.bundle, &spec.linux, &container.record.cgroup_paths)?;
    let given = Given::all(&steps, &spec.linux.masked_paths);
    let outside = Outside::look(pid, &given, &checkpoint::joined(&spec.linux), &mut message)?;
    outside.write(&folders.images)?;

    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let criu = Criu::start(&[])?;
    criu.ask(kind, &message, &folders.work.join(LOG), &mut |_, _, _| Ok(()))?;
    if !options.leave_running && !options.pre_dump {
        // criu has ended its processes.
        container.kill_and_wait()?;
        container.destroy(&mut |warning| log.warning(warning))?;
    }
    Ok(0)
}
