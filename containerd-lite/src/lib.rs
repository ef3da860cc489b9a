//! containerd-lite: images, snapshots, container records and the shims of what runs, behind containerd's gRPC API.
//!
//! ```text
//!   gantryd, ctr, dockerd ──gRPC──► api ──► tasks ──ttrpc──► shim (one per container)
//!                                    │        ▲ events, at ADDRESS.ttrpc
//!                                    ├──► content, snapshots, layers
//!                                    └──► containers, images, leases, namespaces ──► db
//! ```
//!
//! On disk:
//! ```text
//! <root>/lock  meta.db                                  one daemon; all records (db::schema)
//! <root>/io.containerd.content.v1.content/              blobs and ingests (content)
//! <root>/io.containerd.snapshotter.v1.overlayfs/        layers (snapshots)
//! <root>/io.containerd.runtime.v2.task/NS/ID/           what a task keeps over a reboot
//! <state>/io.containerd.runtime.v2.task/NS/ID/          bundles (tasks::bundle)
//! ```
//!
//! The daemon may be killed at any time: records are committed before they are answered, files without a record
//! are removed at start, and what runs is found again through its bundle (tasks::restore). Containers do not
//! notice: their shims are nobody's children, and no byte of theirs passes through here. Nor do they notice when their
//! shims are upgraded (SIGHUP, tasks::upgrade).

#![deny(unsafe_code)]

mod config;
mod server;

mod api;

mod tasks;

mod gc;
mod layers;

mod content;
mod snapshots;

mod containers;
mod images;
mod leases;
mod namespaces;

mod db;
mod events;
mod filters;
mod identifiers;

mod error;
#[allow(unsafe_code)]
mod sys;

use anyhow::{Context, Result};
pub use config::{Command, Options, default_config};
use tracing_subscriber::prelude::*;

/// What Version answers; clients read it as containerd's.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), "-lite");

/// Serves until SIGTERM, or prints the configuration.
pub fn run(options: Options) -> Result<()> {
    let config = config::Config::load(&options)?;
    if options.command() == Some(Command::ConfigDump) {
        print!("{}", config.to_toml());
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("must be run as root: it mounts layers and starts containers");
    }
    sys::bound_malloc_arenas();
    let level = tracing::level_filters::LevelFilter::from_level(config.level()?);
    let targets = tracing_subscriber::filter::Targets::new()
        .with_default(tracing::level_filters::LevelFilter::WARN)
        .with_target("containerd_lite", level);
    let format =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    tracing_subscriber::registry().with(format.with_filter(targets)).init();
    // Two workers: the work is short or waits for others, and block_in_place needs a second one.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(server::serve(config))
}
