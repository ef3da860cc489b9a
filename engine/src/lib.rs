//! `gantryd`: Docker's Engine API over containerd.
//!
//! # Map, in reading order
//!
//! - `config`: dockerd's flags and daemon.json keys, one checked struct.
//! - `server`: builds the parts in order, listens, reloads, stops.
//! - `supervise`: containerd-lite, started when no `--containerd` is given and left running.
//! - `http`: accept loops, version negotiation, extractors, hijacked connections.
//! - `routes`: one file per group of endpoints: extract, call, respond.
//! - `containers`: one verb per file; `record` is what is kept in containerd, `state` what a container is now,
//!   `stdio` its streams, `spec` the OCI configuration made from docker's.
//! - `registry`: the client's side of the OCI distribution API, for pull.
//! - `exec`, `images`, `networks`, `volumes`, `logs`, `events`: the other nouns.
//! - `view`: every container in memory; names and ids are looked up here.
//! - `reconcile`: what start-up and a lost containerd have in common: lists in, truth out, leftovers away.
//! - `containerd`: the only file that speaks gRPC.
//! - `store`: what no containerd record can hold. `sys`: the only file with `unsafe`.
//!
//! Direction: routes → nouns → {containerd, view, store, events}. [`Ctx`] is passed; there is no engine object.
//!
//! # A container's states
//!
//! ```text
//! created ──start──▶ running ◀──pause/unpause──▶ paused
//!                     │  ▲ start, restart policy (restarting in between)
//!                     ▼  │
//!                    exited ──remove──▶ gone
//! ```
//!
//! The truth is the containerd record: its extension `gantry.container` holds the configuration, the last exit
//! and, while the container is wanted up, the run: when it began and its network endpoint. Whether a task runs is
//! asked of containerd. A run without a task is a start or an exit that was cut short; `reconcile` finishes it.
//!
//! Order of writes. Create: record, snapshot, volumes. Start: record (run), netns and FIFOs, task, marker
//! `started`. Exit: record (exit), task deleted, netns and FIFOs away. Remove: record deleted, then snapshot and
//! directories. After a kill between any two, what is left is named by a container ID and is either completed or
//! cleared when the engine starts.
//!
//! # On disk
//!
//! ```text
//! data-root/containers/ID/       ID-json.log (written by the shim), hosts, hostname, resolv.conf, shm-less
//! data-root/volumes/NAME/_data   local volumes; NAME/volume.json
//! data-root/networks.json        ids of the three networks
//! data-root/engine-id            the ID of `docker info`
//! data-root/containerd-lite/     its root
//! exec-root/containers/ID/       stdin, stdout, stderr, EXEC.{stdin,stdout,stderr,json}, started
//! exec-root/netns/ID             the container's network namespace, a bind mount
//! exec-root/containerd-lite/     its state and socket
//! exec-root/rung/                the runtime's state
//! ```

#![deny(unsafe_code)]

mod clock;
mod config;
mod containerd;
mod containers;
mod error;
mod events;
mod exec;
mod http;
mod images;
mod logs;
mod names;
mod networks;
mod reconcile;
mod registry;
mod routes;
mod server;
mod store;
mod supervise;
#[allow(unsafe_code)]
mod sys;
mod view;
mod volumes;

use std::sync::Arc;

/// What every operation works with.
pub(crate) struct Ctx {
    pub(crate) containerd: containerd::Containerd,
    pub(crate) view: view::View,
    pub(crate) store: store::Store,
    pub(crate) events: events::Events,
    pub(crate) networks: networks::Networks,
    pub(crate) config: config::Config,
}

pub(crate) type Shared = Arc<Ctx>;

/// Runs the daemon until it is told to stop.
pub fn run() -> anyhow::Result<()> {
    server::run()
}
