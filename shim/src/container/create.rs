//! Create: mounts, stdio, the runtime's create; and everything undone when a step fails.

use super::calls::{Call, Verb};
use super::checkpoint::Restore;
use super::{Container, Handle, Handled, ReplyTo, Rest, Shim};
use crate::error::Error;
use crate::handover::{message, optional_message};
use crate::io::logger::Owner;
use crate::io::{Io, Opening, Readers, Uris};
use crate::log::LogFile;
use crate::mounts;
use crate::runtime::{Runtime, Streams};
use prost::Message;
use proto::any::Any;
use proto::kind::ErrorKind;
use proto::task::{api, bundle, events, gantry, runc, topic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the options of a start or create say.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct CreateOptions {
    #[serde(with = "message")]
    pub(crate) runtime: runc::Options,
    #[serde(with = "optional_message")]
    pub(crate) log: Option<gantry::Log>,
}

impl CreateOptions {
    /// From an options message, or none.
    pub(crate) fn from_any(options: Option<&Any>) -> Result<Option<CreateOptions>, Error> {
        let Some(options) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(None) };
        let broken = |e| Error::invalid(format!("options {}: {e}: invalid argument", options.type_url));
        if let Some((runtime, ours)) = proto::task::unpack_options(options).map_err(broken)? {
            return Ok(Some(CreateOptions { runtime, log: ours.log }));
        }
        let text = format!(
            "options of type {} are not understood: use containerd.runc.v1.Options: invalid argument",
            options.type_url
        );
        Err(Error::invalid(text))
    }

    fn open_log(&self) -> Result<Option<LogFile>, Error> {
        let Some(log) = &self.log else { return Ok(None) };
        match log.driver.as_str() {
            "none" | "" => Ok(None),
            driver @ ("json-file" | "local") => {
                let attrs: BTreeMap<String, String> = log.attrs.clone().into_iter().collect();
                LogFile::open(Path::new(&log.path), log.max_size, log.max_file, &attrs)
                    .map(|file| if driver == "local" { file.local() } else { file })
                    .map(|file| file.buffered(log.max_buffer))
                    .map(|file| Some(if log.compress { file.compress() } else { file }))
                    .map_err(|e| Error::step(format!("open the container's log {}", log.path), e))
            }
            other => Err(Error::new(ErrorKind::Unimplemented, format!("log driver {other:?} is not built"))),
        }
    }
}

impl Shim {
    /// Create: answered when the runtime's create has ended.
    pub(crate) fn create(
        &mut self,
        request: api::CreateTaskRequest,
        reply: ReplyTo,
    ) -> Result<Handled, Error> {
        if self.containers.contains_key(&request.id) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("container {}: already exists", request.id),
            ));
        }
        if !crate::args::is_identifier(&request.id) {
            return Err(Error::invalid(format!(
                "container id {:?} is not valid: invalid argument",
                request.id
            )));
        }
        self.shutdown = false;
        self.answer_shutdown();
        let options =
            CreateOptions::from_any(request.options.as_ref())?.unwrap_or_else(|| self.defaults.clone());
        let runtime = Runtime::new(&options.runtime, &self.namespace);
        let bundle_dir = PathBuf::from(&request.bundle);
        let config = Config::read(&bundle_dir)?;
        record(&bundle_dir, &runtime)?;

        let rootfs = bundle_dir.join(bundle::ROOTFS);
        mounts::mount_all(&request.rootfs, &rootfs)?;
        let uris = Uris {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let mut container = Container {
            bundle: bundle_dir,
            runtime,
            rootfs,
            mounts: request.rootfs,
            own_client: options.log.is_some(),
            init: self.next_handle,
            execs: BTreeMap::new(),
            cgroup: None,
            oom: None,
            private_pids: config.has_private_pids(),
            rest: Rest::Alive,
        };
        let undone = |container: &Container| {
            if !container.mounts.is_empty() {
                mounts::unmount_all(&container.rootfs);
            }
        };
        if !request.checkpoint.is_empty() {
            let work = &options.runtime.criu_work_path;
            let restore = options
                .open_log()
                .and_then(|log| Restore::new(&request.checkpoint, work, &container.bundle, log))
                .inspect_err(|_| undone(&container))?;
            container.init = self.add_process(&request.id, "", Io::default(), Vec::new());
            let process = self.process_mut(container.init);
            process.io.remember(uris);
            process.restore = Some(restore);
            self.containers.insert(request.id.clone(), container);
            self.changed = true;
            self.tell_of_create(&request.id, request.checkpoint);
            return Ok(Handled::Now(api::CreateTaskResponse { pid: 0 }.encode_to_vec()));
        }
        let base = self.io_base(self.next_handle);
        let started = options.open_log().and_then(|log| {
            let readers = if options.log.is_some() { Readers::Optional } else { Readers::Expected };
            let owner = Owner { namespace: self.namespace.clone(), id: request.id.clone() };
            Io::open_for(Opening { uris: &uris, readers, log, base, owner }, |io, streams| {
                spawn_create(&container, &request.id, io, streams)
            })
        });
        let (io, pid) = started.inspect_err(|_| undone(&container))?;
        let init = self.add_process(&request.id, "", io, Vec::new());
        self.process_mut(init).busy = true;
        container.init = init;
        let log = container.bundle.join(bundle::RUNTIME_LOG);
        self.containers.insert(request.id, container);
        let call = Call { verb: Verb::Create, handle: init, reply: Some(reply), log, output: None };
        self.calls.insert(pid, call);
        Ok(Handled::Later)
    }

    /// The runtime's create has ended: there is a container, or nothing is left of it.
    pub(super) fn create_ended(&mut self, init: Handle, reply: Option<ReplyTo>, result: Result<(), Error>) {
        // A terminal's master may still be on its way through the console socket.
        self.receive_terminal(init);
        let id = self.process(init).container.clone();
        let bundle_dir = self.containers[&id].bundle.clone();
        let pid = result.and_then(|()| read_pid(&bundle_dir.join(bundle::INIT_PID)));
        match pid {
            Ok(pid) => {
                self.process_mut(init).exists_as(pid);
                self.watch_cgroup(&id, pid);
                self.tell_of_create(&id, String::new());
                self.reply(reply, Ok(api::CreateTaskResponse { pid }.encode_to_vec()));
                self.claim_early_exit(init);
            }
            Err(error) => {
                let container = self.containers.remove(&id).expect("looked up above");
                let mut process = self.processes.remove(&init).expect("the container had it");
                process.io.close();
                if !container.mounts.is_empty() {
                    mounts::unmount_all(&container.rootfs);
                }
                for waiter in process.waiters {
                    self.answer(waiter, Err(error.clone()));
                }
                self.end_if_shut_down();
                self.reply(reply, Err(error));
            }
        }
    }

    fn tell_of_create(&mut self, id: &str, checkpoint: String) {
        let container = &self.containers[id];
        let process = self.process(container.init);
        let Uris { stdin, stdout, stderr, terminal } = process.io.uris().clone();
        let event = events::TaskCreate {
            container_id: id.to_owned(),
            bundle: container.bundle.display().to_string(),
            rootfs: container.mounts.clone(),
            io: Some(events::TaskIo { stdin, stdout, stderr, terminal }),
            checkpoint,
            pid: process.pid,
        };
        self.publisher.publish(topic::CREATE, &event);
    }
}

fn spawn_create(container: &Container, id: &str, io: &Io, streams: Streams) -> Result<u32, Error> {
    let (runtime, dir) = (&container.runtime, &container.bundle);
    let path = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|_| Error::invalid("bundle is not UTF-8"))
    };
    let (bundle_path, pid_file) = (path(dir.to_owned())?, path(dir.join(bundle::INIT_PID))?);
    let console = io.console.as_ref().map(crate::io::console::Console::runtime_path);
    let mut arguments = vec!["create", "--bundle", &bundle_path, "--pid-file", &pid_file];
    if runtime.no_pivot_root {
        arguments.push("--no-pivot");
    }
    if runtime.no_new_keyring {
        arguments.push("--no-new-keyring");
    }
    if let Some(console) = &console {
        arguments.extend(["--console-socket", console]);
    }
    arguments.push(id);
    runtime.spawn(&dir.join(bundle::RUNTIME_LOG), &arguments, streams)
}

/// What `delete` must know when it has the bundle alone.
fn record(dir: &Path, runtime: &Runtime) -> Result<(), Error> {
    let json = serde_json::to_vec(runtime).map_err(|e| Error::step("write the runtime's options", e))?;
    write_whole(&dir.join(bundle::OPTIONS), &json)
}

/// The file has its new content or its old one, whenever this process ends.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let beside = PathBuf::from(name);
    std::fs::write(&beside, content)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|e| Error::step(format!("write {}", path.display()), e))
}

pub(super) fn read_pid(path: &Path) -> Result<u32, Error> {
    let step =
        |e: &dyn std::fmt::Display| Error::step(format!("read the runtime's pid file {}", path.display()), e);
    let text = std::fs::read_to_string(path).map_err(|e| step(&e))?;
    text.trim().parse().map_err(|e| step(&e))
}

/// The little of config.json that a shim must know.
#[derive(serde::Deserialize, Default)]
struct Config {
    #[serde(default)]
    linux: Option<LinuxConfig>,
}

#[derive(serde::Deserialize, Default)]
struct LinuxConfig {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(serde::Deserialize)]
struct Namespace {
    r#type: String,
    #[serde(default)]
    path: String,
}

impl Config {
    fn read(dir: &Path) -> Result<Config, Error> {
        let path = dir.join(bundle::CONFIG);
        let file =
            std::fs::File::open(&path).map_err(|e| Error::step(format!("open {}", path.display()), e))?;
        serde_json::from_reader(std::io::BufReader::new(file))
            .map_err(|e| Error::invalid(format!("{}: {e}: invalid argument", path.display())))
    }

    fn has_private_pids(&self) -> bool {
        let namespaces = self.linux.as_ref().map_or(&[][..], |linux| &linux.namespaces);
        namespaces.iter().any(|namespace| namespace.r#type == "pid" && namespace.path.is_empty())
    }
}
