//! The command line: runc's commands and flags, as plain structs. Written by hand because rung is executed
//! several times in a container's life and a general parser costs a good part of a start.

mod parse;
mod table;

use std::time::Duration;

use crate::checkpoint::ManageCgroups;
use crate::error::{Error, Result};
use crate::rootless;
use parse::Parsed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Flags before the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Global {
    pub(crate) root: String,
    pub(crate) log: Option<String>,
    pub(crate) log_format: LogFormat,
    pub(crate) debug: bool,
    pub(crate) systemd_cgroup: bool,
    /// None: whatever the caller is.
    pub(crate) rootless: Option<bool>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help(String),
    Version,
    Create { id: String, options: CreateOptions },
    Run { id: String, options: CreateOptions, detach: bool, keep: bool, subreaper: bool },
    Start { id: String },
    State { id: String },
    Kill { id: String, signal: String, all: bool },
    Delete { id: String, force: bool },
    List { format: ListFormat, quiet: bool },
    Exec { id: String, options: Box<ExecOptions> },
    Ps { id: String, format: ListFormat, options: Vec<String> },
    Pause { id: String },
    Resume { id: String },
    Update { id: String, options: Box<UpdateOptions> },
    Spec { bundle: String, rootless: bool },
    Features,
    Checkpoint { id: String, options: Box<CheckpointOptions> },
    Restore { id: String, options: Box<RestoreOptions> },
    Events { id: String, interval: Duration, once: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListFormat {
    Table,
    Json,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    pub(crate) bundle: String,
    pub(crate) console_socket: Option<String>,
    pub(crate) pidfd_socket: Option<String>,
    pub(crate) pid_file: Option<String>,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) preserve_fds: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExecOptions {
    pub(crate) command: Vec<String>,
    pub(crate) process: Option<String>,
    pub(crate) console_socket: Option<String>,
    pub(crate) pidfd_socket: Option<String>,
    pub(crate) pid_file: Option<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) user: Option<(u32, Option<u32>)>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) detach: bool,
    pub(crate) apparmor: Option<String>,
    pub(crate) process_label: Option<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) capabilities: Vec<String>,
    pub(crate) preserve_fds: u32,
    pub(crate) ignore_paused: bool,
    /// Sub-cgroups: controllers (none: all) and the path.
    pub(crate) cgroups: Vec<(Vec<String>, String)>,
}

/// What checkpoint and restore have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CriuOptions {
    pub(crate) image_path: String,
    /// Where criu's log goes; None: to the images.
    pub(crate) work_path: Option<String>,
    pub(crate) tcp_established: bool,
    pub(crate) ext_unix_sk: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) link_remap: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) manage_cgroups: ManageCgroups,
    pub(crate) empty_network: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointOptions {
    pub(crate) criu: CriuOptions,
    /// Relative to the image folder.
    pub(crate) parent_path: Option<String>,
    pub(crate) leave_running: bool,
    pub(crate) pre_dump: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) page_server: Option<(String, u16)>,
    pub(crate) status_fd: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestoreOptions {
    pub(crate) criu: CriuOptions,
    pub(crate) create: CreateOptions,
    pub(crate) detach: bool,
    pub(crate) subreaper: bool,
    pub(crate) lsm_profile: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UpdateOptions {
    pub(crate) resources: Option<String>,
    pub(crate) blkio_weight: Option<u16>,
    pub(crate) cpu_period: Option<u64>,
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_burst: Option<u64>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) cpu_rt_period: Option<u64>,
    pub(crate) cpu_rt_runtime: Option<i64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) cpu_idle: Option<i64>,
    pub(crate) memory: Option<i64>,
    pub(crate) kernel_memory: Option<i64>,
    pub(crate) kernel_memory_tcp: Option<i64>,
    pub(crate) memory_reservation: Option<i64>,
    pub(crate) memory_swap: Option<i64>,
    pub(crate) pids_limit: Option<i64>,
}

/// Read a whole command line (without the program's own name).
pub(crate) fn parse(words: &[String]) -> (Global, Result<Command>) {
    let mut global = Global {
        root: default_root(),
        log: None,
        log_format: LogFormat::Text,
        debug: false,
        systemd_cgroup: false,
        rootless: None,
    };
    let result = parse_global(words, &mut global);
    (global, result)
}

/// The global part is filled in as far as it was read, so that an error of the rest reaches the right log.
fn parse_global(words: &[String], global: &mut Global) -> Result<Command> {
    let (flags, rest) = parse::flags_then_rest(words, table::GLOBAL)?;
    if let Some(log) = flags.value("log") {
        global.log = (log != "/dev/stderr" && !log.is_empty()).then(|| log.to_owned());
    }
    if let Some(root) = flags.value("root") {
        global.root = root.trim_end_matches('/').to_owned();
    }
    global.debug = flags.is_set("debug");
    global.systemd_cgroup = flags.is_set("systemd-cgroup");
    global.log_format = match flags.value("log-format") {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            return Err(Error::invalid(format!("invalid log-format {other:?}: it is text or json")));
        }
    };
    global.rootless = match flags.value("rootless") {
        None | Some("auto") => None,
        Some("true" | "1" | "TRUE" | "True") => Some(true),
        Some("false" | "0" | "FALSE" | "False") => Some(false),
        Some(value) => {
            return Err(Error::invalid(format!("invalid --rootless {value:?}: it is auto, true or false")));
        }
    };
    if global.root.is_empty() {
        return Err(Error::invalid("the state directory (--root) may not be the root of the file system"));
    }
    if flags.is_set("version") {
        return Ok(Command::Version);
    }
    let Some((name, rest)) = rest.split_first() else { return Ok(Command::Help(table::overview())) };
    if flags.is_set("help") || name == "help" || name == "h" {
        let about = rest.first().filter(|_| name.starts_with('h')).map_or(name.as_str(), String::as_str);
        return Ok(Command::Help(table::find(about).map_or_else(table::overview, table::Entry::help)));
    }
    let entry = table::find(name).ok_or_else(|| {
        Error::invalid(format!("No help topic for '{name}': no such command; `rung --help` lists them"))
    })?;
    let parsed = parse::command(rest, entry)?;
    if parsed.is_set("help") {
        return Ok(Command::Help(entry.help()));
    }
    command(entry.name, parsed)
}

fn default_root() -> String {
    match std::env::var("XDG_RUNTIME_DIR") {
        Ok(dir) if !dir.is_empty() && rootless::has_own_runtime_dir() => format!("{dir}/rung"),
        _ => "/run/rung".to_owned(),
    }
}

fn command(name: &str, p: Parsed) -> Result<Command> {
    let id = || p.positionals.first().cloned().unwrap_or_default();
    Ok(match name {
        "create" => Command::Create { id: id(), options: create_options(&p)? },
        "run" => Command::Run {
            id: id(),
            options: create_options(&p)?,
            detach: p.is_set("detach"),
            keep: p.is_set("keep"),
            subreaper: !p.is_set("no-subreaper"),
        },
        "start" => Command::Start { id: id() },
        "state" => Command::State { id: id() },
        "kill" => Command::Kill {
            id: id(),
            signal: p.positionals.get(1).cloned().unwrap_or_else(|| "SIGTERM".into()),
            all: p.is_set("all"),
        },
        "delete" => Command::Delete { id: id(), force: p.is_set("force") },
        "list" => Command::List { format: list_format(&p)?, quiet: p.is_set("quiet") },
        "exec" => Command::Exec { id: id(), options: Box::new(exec_options(&p)?) },
        "ps" => Command::Ps {
            id: id(),
            format: list_format(&p)?,
            options: p.positionals.get(1..).unwrap_or_default().to_vec(),
        },
        "pause" => Command::Pause { id: id() },
        "resume" => Command::Resume { id: id() },
        "update" => Command::Update { id: id(), options: Box::new(update_options(&p)?) },
        "spec" => Command::Spec {
            bundle: p.value("bundle").unwrap_or(".").to_owned(),
            rootless: p.is_set("rootless"),
        },
        "features" => Command::Features,
        "events" => Command::Events {
            id: id(),
            interval: p.value("interval").map_or(Ok(Duration::from_secs(5)), parse::duration)?,
            once: p.is_set("stats"),
        },
        "checkpoint" => Command::Checkpoint { id: id(), options: Box::new(checkpoint_options(&p)?) },
        "restore" => Command::Restore { id: id(), options: Box::new(restore_options(&p)?) },
        other => return Err(Error::Unsupported(format!("the command {other}"))),
    })
}

fn create_options(p: &Parsed) -> Result<CreateOptions> {
    Ok(CreateOptions {
        bundle: p.value("bundle").filter(|b| !b.is_empty()).unwrap_or(".").to_owned(),
        console_socket: p.text("console-socket"),
        pidfd_socket: p.text("pidfd-socket"),
        pid_file: p.text("pid-file"),
        no_pivot: p.is_set("no-pivot"),
        no_new_keyring: p.is_set("no-new-keyring"),
        preserve_fds: p.number("preserve-fds")?.unwrap_or(0),
    })
}

fn criu_options(p: &Parsed) -> Result<CriuOptions> {
    let mut empty_network = false;
    for kind in p.all("empty-ns") {
        if kind != "network" {
            return Err(Error::invalid(format!(
                "namespace {kind:?} is not supported: --empty-ns takes network"
            )));
        }
        empty_network = true;
    }
    Ok(CriuOptions {
        image_path: p.text("image-path").unwrap_or_else(|| "checkpoint".to_owned()),
        work_path: p.text("work-path"),
        tcp_established: p.is_set("tcp-established"),
        ext_unix_sk: p.is_set("ext-unix-sk"),
        shell_job: p.is_set("shell-job"),
        file_locks: p.is_set("file-locks"),
        auto_dedup: p.is_set("auto-dedup"),
        link_remap: p.is_set("link-remap"),
        lazy_pages: p.is_set("lazy-pages"),
        manage_cgroups: ManageCgroups::parse(p.value("manage-cgroups-mode").unwrap_or_default())?,
        empty_network,
    })
}

fn checkpoint_options(p: &Parsed) -> Result<CheckpointOptions> {
    let page_server = p.value("page-server").filter(|text| !text.is_empty()).map(|text| {
        let server =
            text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        server.ok_or_else(|| Error::invalid(format!("invalid page server {text:?}: it is ADDRESS:PORT")))
    });
    Ok(CheckpointOptions {
        criu: criu_options(p)?,
        parent_path: p.text("parent-path"),
        leave_running: p.is_set("leave-running"),
        pre_dump: p.is_set("pre-dump"),
        tcp_skip_in_flight: p.is_set("tcp-skip-in-flight"),
        page_server: page_server.transpose()?,
        status_fd: p.number::<i32>("status-fd")?.filter(|number| *number >= 0),
    })
}

fn restore_options(p: &Parsed) -> Result<RestoreOptions> {
    if p.value("lsm-mount-context").is_some_and(|context| !context.is_empty()) {
        return Err(Error::Unsupported("restore --lsm-mount-context".into()));
    }
    Ok(RestoreOptions {
        criu: criu_options(p)?,
        create: create_options(p)?,
        detach: p.is_set("detach"),
        subreaper: !p.is_set("no-subreaper"),
        lsm_profile: p.text("lsm-profile"),
    })
}

fn exec_options(p: &Parsed) -> Result<ExecOptions> {
    let command = p.positionals.get(1..).unwrap_or_default().to_vec();
    let process = p.text("process");
    if command.is_empty() && process.is_none() {
        return Err(Error::invalid("process args cannot be empty: give a command, or --process FILE"));
    }
    let additional_gids = p.all("additional-gids").map(parse::id_number).collect::<Result<_>>()?;
    Ok(ExecOptions {
        command,
        process,
        console_socket: p.text("console-socket"),
        pidfd_socket: p.text("pidfd-socket"),
        pid_file: p.text("pid-file"),
        cwd: p.text("cwd"),
        env: p.all("env").map(str::to_owned).collect(),
        tty: p.is_set("tty"),
        user: p.value("user").map(parse::user).transpose()?,
        additional_gids,
        detach: p.is_set("detach"),
        apparmor: p.text("apparmor"),
        process_label: p.text("process-label"),
        no_new_privileges: p.is_set("no-new-privs"),
        capabilities: p.all("cap").map(str::to_owned).collect(),
        preserve_fds: p.number("preserve-fds")?.unwrap_or(0),
        ignore_paused: p.is_set("ignore-paused"),
        cgroups: p.all("cgroup").map(parse::sub_cgroup).collect::<Result<_>>()?,
    })
}

fn update_options(p: &Parsed) -> Result<UpdateOptions> {
    for unsupported in ["l3-cache-schema", "mem-bw-schema"] {
        if p.value(unsupported).is_some_and(|v| !v.is_empty()) {
            return Err(Error::Unsupported(format!("update --{unsupported}")));
        }
    }
    Ok(UpdateOptions {
        resources: p.text("resources"),
        blkio_weight: p.number("blkio-weight")?,
        cpu_period: p.number("cpu-period")?,
        cpu_quota: p.number("cpu-quota")?,
        cpu_burst: p.number("cpu-burst")?,
        cpu_shares: p.number("cpu-share")?,
        cpu_rt_period: p.number("cpu-rt-period")?,
        cpu_rt_runtime: p.number("cpu-rt-runtime")?,
        cpuset_cpus: p.text("cpuset-cpus"),
        cpuset_mems: p.text("cpuset-mems"),
        cpu_idle: p.number("cpu-idle")?,
        memory: p.size("memory")?,
        kernel_memory: p.size("kernel-memory")?,
        kernel_memory_tcp: p.size("kernel-memory-tcp")?,
        memory_reservation: p.size("memory-reservation")?,
        memory_swap: p.size("memory-swap")?,
        pids_limit: p.number("pids-limit")?,
    })
}

fn list_format(p: &Parsed) -> Result<ListFormat> {
    match p.value("format") {
        None | Some("" | "table") => Ok(ListFormat::Table),
        Some("json") => Ok(ListFormat::Json),
        Some(_) => Err(Error::invalid("invalid format option")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> (Global, Result<Command>) {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn command_of(text: &str) -> Command {
        line(text).1.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn checkpoint_and_restore() {
        let line = "checkpoint --image-path i --work-path=w --tcp-established --tcp-skip-in-flight --ext-unix-sk --shell-job \
            --file-locks --link-remap --auto-dedup --lazy-pages --status-fd 7 --page-server ::1:99 --manage-cgroups-mode full c";
        let Command::Checkpoint { id, options } = command_of(line) else { panic!("not a checkpoint") };
        let all = CriuOptions {
            image_path: "i".into(),
            work_path: Some("w".into()),
            tcp_established: true,
            ext_unix_sk: true,
            shell_job: true,
            file_locks: true,
            auto_dedup: true,
            link_remap: true,
            lazy_pages: true,
            manage_cgroups: ManageCgroups::Full,
            empty_network: false,
        };
        let expected = CheckpointOptions {
            criu: all,
            tcp_skip_in_flight: true,
            page_server: Some(("::1".into(), 99)),
            status_fd: Some(7),
            ..CheckpointOptions::default()
        };
        assert_eq!((id.as_str(), *options), ("c", expected));
        let Command::Restore { options, .. } =
            command_of("restore -b /b -d --no-subreaper --empty-ns network --lsm-profile apparmor:p c")
        else {
            panic!("not a restore")
        };
        assert_eq!(options.criu.image_path, "checkpoint");
        assert!(options.detach && !options.subreaper && options.criu.empty_network);
        assert_eq!(
            (options.create.bundle.as_str(), options.lsm_profile.as_deref()),
            ("/b", Some("apparmor:p"))
        );
    }

    #[test]
    fn flags_stand_before_or_after_the_id() {
        let expected = Command::Create {
            id: "c1".into(),
            options: CreateOptions {
                bundle: "/b".into(),
                pid_file: Some("p".into()),
                no_pivot: true,
                ..CreateOptions::default()
            },
        };
        for text in [
            "create --bundle /b --pid-file p --no-pivot c1",
            "create c1 --bundle=/b --pid-file=p --no-pivot",
            "create -b /b c1 -no-pivot=true --pid-file p",
            "--root /r --log-format json create -bundle /b -pid-file p c1 --no-pivot",
        ] {
            assert_eq!(command_of(text), expected, "{text}");
        }
    }

    #[test]
    fn exec_and_ps_stop_at_the_first_word_that_is_no_flag() {
        let Command::Exec { id, options } =
            command_of("exec -t --user 1:2 -e A=1 --env B=2 c1 ls -l --user x")
        else {
            panic!("not exec");
        };
        assert_eq!((id.as_str(), options.command.join(" ").as_str()), ("c1", "ls -l --user x"));
        assert_eq!((options.user, options.env.len(), options.tty), (Some((1, Some(2))), 2, true));
        assert_eq!(
            command_of("ps -f json c1 -ef"),
            Command::Ps { id: "c1".into(), format: ListFormat::Json, options: vec!["-ef".into()] }
        );
        let Command::Exec { options, .. } = command_of("exec --process /p --detach --pid-file f c1") else {
            panic!("not exec");
        };
        assert_eq!((options.process.as_deref(), options.detach), (Some("/p"), true));
    }

    #[test]
    fn containerd_and_podman_lines_are_understood() {
        let (global, command) = line(
            "--root /run/x --log /b/log.json --log-format json --systemd-cgroup=false run --detach --keep c",
        );
        assert_eq!((global.root.as_str(), global.log.as_deref()), ("/run/x", Some("/b/log.json")));
        assert_eq!((global.log_format, global.systemd_cgroup), (LogFormat::Json, false));
        assert!(matches!(command, Ok(Command::Run { detach: true, keep: true, subreaper: true, .. })));
        assert_eq!(
            command_of("kill --all c 9"),
            Command::Kill { id: "c".into(), signal: "9".into(), all: true }
        );
        assert_eq!(
            command_of("kill c"),
            Command::Kill { id: "c".into(), signal: "SIGTERM".into(), all: false }
        );
        assert!(matches!(command_of("update --resources=- c"), Command::Update { .. }));
        let Command::Update { options, .. } =
            command_of("update --memory 32M --cpu-quota=-1 --memory-swap -1 c")
        else {
            panic!("not update");
        };
        assert_eq!(
            (options.memory, options.cpu_quota, options.memory_swap),
            (Some(33_554_432), Some(-1), Some(-1))
        );
    }

    #[test]
    fn wrong_lines_are_refused_with_a_sentence() {
        for (text, part) in [
            ("nope", "No help topic for 'nope'"),
            ("create", "requires exactly 1 argument"),
            ("create a b", "requires exactly 1 argument"),
            ("start a --nope", "flag provided but not defined: -nope"),
            ("create --bundle", "flag needs an argument: -bundle"),
            ("create --no-pivot=maybe a", "is true or false"),
            ("create --preserve-fds x a", "preserve-fds"),
            ("list --format yaml", "invalid format option"),
            ("--log-format xml list", "invalid log-format"),
            ("--root / list", "state directory"),
            ("exec c", "process args cannot be empty"),
            ("exec --cgroup ../x c ls", "sub cgroup"),
            ("events --interval 0s c", "interval"),
            ("exec --user -1 c ls", "-1"),
            ("exec --user 4294967296 c ls", "4294967296"),
            ("exec --user root c ls", "root"),
            ("update --memory 1Q c", "memory"),
        ] {
            let error = line(text).1.expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn help_teaches_every_command() {
        let Command::Help(overview) = command_of("--help") else { panic!("no help") };
        for entry in table::COMMANDS {
            assert!(overview.contains(entry.name), "{} is not listed", entry.name);
            let Command::Help(text) = command_of(&format!("{} --help", entry.name)) else {
                panic!("no help")
            };
            assert!(entry.flags.iter().all(|flag| text.contains(flag.long)), "{text}");
        }
    }
}
