//! Every command and flag with its help.

use std::fmt::Write;

/// A flag; one without a value name is a switch.
pub(super) struct Flag {
    pub(super) long: &'static str,
    pub(super) short: &'static str,
    pub(super) value: &'static str,
    help: &'static str,
}

pub(super) struct Entry {
    pub(super) name: &'static str,
    usage: &'static str,
    about: &'static str,
    /// Least and most number of arguments.
    pub(super) arguments: (usize, usize),
    /// Words after the first argument belong to another program.
    pub(super) stops_at_argument: bool,
    pub(super) flags: &'static [Flag],
}

const fn flag(long: &'static str, short: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short, value, help }
}

pub(super) const GLOBAL: &[Flag] = &[
    flag("root", "", "DIR", "where container state is kept (it should be on a tmpfs; default /run/rung)"),
    flag("log", "", "FILE", "append log records to FILE instead of writing them to stderr"),
    flag("log-format", "", "FORMAT", "form of log records: text (default) or json"),
    flag("debug", "", "", "also log what is done, not only what fails"),
    flag("systemd-cgroup", "", "", "have systemd manage the cgroups: cgroupsPath is slice:prefix:name"),
    flag("rootless", "", "VALUE", "ignore cgroup permission errors: auto, true or false"),
    flag("version", "v", "", "print the version"),
];

const BUNDLE: Flag = flag("bundle", "b", "DIR", "the directory with config.json (default: the current one)");
const CONSOLE: Flag =
    flag("console-socket", "", "PATH", "unix socket that is sent the terminal's master side");
const PIDFD: Flag = flag("pidfd-socket", "", "PATH", "unix socket that is sent a pidfd of the process");
const PID_FILE: Flag = flag("pid-file", "", "FILE", "write the process id to FILE");
const NO_PIVOT: Flag =
    flag("no-pivot", "", "", "do not use pivot_root (for a root file system on a ramdisk)");
const KEYRING: Flag = flag("no-new-keyring", "", "", "keep the caller's session keyring");
const PRESERVE: Flag =
    flag("preserve-fds", "", "N", "pass N descriptors after the standard (and LISTEN_FDS) ones");
const DETACH: Flag = flag("detach", "d", "", "return once the process runs");
const IMAGES: Flag = flag("image-path", "", "DIR", "folder of criu's images (default: checkpoint)");
const WORK: Flag = flag("work-path", "", "DIR", "folder of criu's log (default: that of the images)");
const TCP: Flag = flag("tcp-established", "", "", "keep open TCP connections");
const UNIX: Flag = flag("ext-unix-sk", "", "", "keep unix sockets that lead outside");
const SHELL_JOB: Flag = flag("shell-job", "", "", "the container uses the caller's terminal");
const LAZY: Flag = flag("lazy-pages", "", "", "bring memory back only when it is used");
const LOCKS: Flag = flag("file-locks", "", "", "keep file locks");
const CGROUPS: Flag = flag(
    "manage-cgroups-mode",
    "",
    "MODE",
    "what is kept of cgroups: soft (default), full, strict or ignore",
);
const EMPTY: Flag = flag("empty-ns", "", "network", "make the network namespace anew, without its devices");
const DEDUP: Flag = flag("auto-dedup", "", "", "remove doubled memory from earlier images");
const FORMAT: Flag = flag("format", "f", "FORMAT", "table (default) or json");

const fn by_id(name: &'static str, about: &'static str) -> Entry {
    Entry { name, usage: "<container-id>", about, arguments: (1, 1), stops_at_argument: false, flags: &[] }
}

pub(super) const COMMANDS: &[Entry] = &[
    Entry {
        flags: &[BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, KEYRING, PRESERVE],
        ..by_id("create", "set a container up from a bundle; its process waits for `start`")
    },
    by_id("start", "let the process of a created container run"),
    Entry {
        flags: &[
            BUNDLE,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            KEYRING,
            PRESERVE,
            DETACH,
            flag("keep", "", "", "do not delete the container when its process ends"),
            flag("no-subreaper", "", "", "do not adopt orphans of the container"),
        ],
        ..by_id("run", "create and start; in the foreground, wait, pass on its exit status and delete it")
    },
    Entry {
        usage: "<container-id> <command> [arguments]  or  --process FILE <container-id>",
        arguments: (1, usize::MAX),
        stops_at_argument: true,
        flags: &[
            CONSOLE,
            PIDFD,
            flag("cwd", "", "DIR", "current directory inside the container"),
            flag("env", "e", "NAME=VALUE", "set an environment variable (repeatable)"),
            flag("tty", "t", "", "give the process a terminal"),
            flag("user", "u", "UID[:GID]", "numeric user and group"),
            flag("additional-gids", "g", "GID", "additional group (repeatable)"),
            flag("process", "p", "FILE", "an OCI process document; other process flags are ignored"),
            DETACH,
            PID_FILE,
            flag("process-label", "", "LABEL", "SELinux label of the process"),
            flag("apparmor", "", "PROFILE", "AppArmor profile of the process"),
            flag("no-new-privs", "", "", "exec may not gain privileges"),
            flag("cap", "c", "CAP", "add a capability (repeatable)"),
            PRESERVE,
            flag("cgroup", "", "[CONTROLLERS:]PATH", "run in a sub-cgroup of the container (repeatable)"),
            flag("ignore-paused", "", "", "also enter a paused container"),
        ],
        ..by_id("exec", "run another process inside a running container")
    },
    Entry {
        usage: "<container-id> [signal]",
        arguments: (1, 2),
        flags: &[flag("all", "a", "", "signal every process of the container")],
        ..by_id("kill", "send a signal (default SIGTERM) to the container's first process")
    },
    Entry {
        flags: &[flag("force", "f", "", "kill it first if it still runs; no error if it does not exist")],
        ..by_id("delete", "remove what a stopped container holds")
    },
    by_id("state", "print the container's state as JSON"),
    Entry {
        usage: "",
        arguments: (0, 0),
        flags: &[FORMAT, flag("quiet", "q", "", "print ids only")],
        ..by_id("list", "list the containers of this state directory")
    },
    Entry {
        usage: "<container-id> [ps options]",
        arguments: (1, usize::MAX),
        stops_at_argument: true,
        flags: &[FORMAT],
        ..by_id("ps", "list the processes of a container")
    },
    by_id("pause", "freeze all processes of a container"),
    by_id("resume", "let a paused container go on"),
    Entry {
        flags: &[
            flag(
                "resources",
                "r",
                "FILE",
                "an OCI resources document (- for stdin); other flags are ignored",
            ),
            flag("blkio-weight", "", "N", "block IO weight, 10 to 1000"),
            flag("cpu-period", "", "MICROSECONDS", "CPU period"),
            flag("cpu-quota", "", "MICROSECONDS", "CPU time allowed in a period (-1: no limit)"),
            flag("cpu-burst", "", "MICROSECONDS", "CPU time that may be saved up"),
            flag("cpu-share", "", "N", "CPU weight against other containers"),
            flag("cpu-rt-period", "", "MICROSECONDS", "realtime period"),
            flag("cpu-rt-runtime", "", "MICROSECONDS", "realtime time allowed in a period"),
            flag("cpuset-cpus", "", "LIST", "CPUs to use"),
            flag("cpuset-mems", "", "LIST", "memory nodes to use"),
            flag("kernel-memory", "", "SIZE", "limit of kernel memory, where the kernel still has one"),
            flag("kernel-memory-tcp", "", "SIZE", "limit of TCP buffers (cgroup v1)"),
            flag("memory", "", "SIZE", "memory limit"),
            flag("cpu-idle", "", "N", "1: run only when the machine is idle"),
            flag("memory-reservation", "", "SIZE", "memory kept under pressure"),
            flag("memory-swap", "", "SIZE", "limit of memory and swap together (-1: no limit)"),
            flag("pids-limit", "", "N", "most processes (-1: no limit)"),
            flag("l3-cache-schema", "", "TEXT", "Intel RDT (not supported: refused)"),
            flag("mem-bw-schema", "", "TEXT", "Intel RDT (not supported: refused)"),
        ],
        ..by_id("update", "change the resource limits of a container")
    },
    Entry {
        usage: "",
        arguments: (0, 0),
        flags: &[BUNDLE, flag("rootless", "", "", "for a container of an ordinary user")],
        ..by_id("spec", "write an example config.json")
    },
    Entry { usage: "", arguments: (0, 0), ..by_id("features", "print what this runtime can do, as JSON") },
    Entry {
        flags: &[
            flag("interval", "", "DURATION", "time between two statistics (default 5s)"),
            flag("stats", "", "", "print the statistics once and end"),
        ],
        ..by_id("events", "print statistics and the container's lack of memory, one JSON a line")
    },
    Entry {
        flags: &[
            IMAGES,
            WORK,
            flag("parent-path", "", "DIR", "images of an earlier --pre-dump, relative to the image folder"),
            flag("leave-running", "", "", "let the container go on"),
            TCP,
            flag("tcp-skip-in-flight", "", "", "leave out TCP connections that are being made"),
            flag("link-remap", "", "", "link files again that were removed while open"),
            UNIX,
            SHELL_JOB,
            LAZY,
            flag("status-fd", "", "N", "descriptor that criu writes to once lazy pages can be asked for"),
            flag("page-server", "", "ADDRESS:PORT", "send the memory to this page server"),
            LOCKS,
            flag("pre-dump", "", "", "save memory only, and let the container go on"),
            CGROUPS,
            EMPTY,
            DEDUP,
        ],
        ..by_id("checkpoint", "save a running container to disk and end it (needs criu)")
    },
    Entry {
        flags: &[
            BUNDLE,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            DETACH,
            flag("no-subreaper", "", "", "do not adopt orphans of the container"),
            IMAGES,
            WORK,
            TCP,
            UNIX,
            SHELL_JOB,
            LAZY,
            LOCKS,
            CGROUPS,
            EMPTY,
            DEDUP,
            flag("lsm-profile", "", "TYPE:NAME", "AppArmor or SELinux profile of the restored processes"),
            flag("lsm-mount-context", "", "CONTEXT", "refused"),
        ],
        ..by_id("restore", "bring a container back from a checkpoint; it runs at once (needs criu)")
    },
];

pub(super) fn find(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.name == name)
}

pub(super) fn overview() -> String {
    let mut text = String::from(
        "NAME:\n   rung, with the command line of runc - Open Container Initiative runtime\n\nUsage: rung [global flags] <command> [flags] [arguments]\n\n\
         A bundle is a directory with a config.json and a root file system. To try one:\n\n   \
         mkdir -p b/rootfs/bin && cp /bin/busybox b/rootfs/bin/sh && cd b\n   rung spec && rung run try\n\nCommands:\n",
    );
    for entry in COMMANDS {
        let _ = writeln!(text, "   {:12}{}", entry.name, entry.about);
    }
    text += "\nGlobal flags:\n";
    write_flags(&mut text, GLOBAL);
    text + "\n`rung <command> --help` tells more about a command.\n"
}

impl Entry {
    pub(super) fn help(&self) -> String {
        let mut text = format!(
            "NAME:\n   rung {0}, as runc {0} - {1}\n\nUsage: rung {0} [flags] {2}\n",
            self.name, self.about, self.usage
        );
        if !self.flags.is_empty() {
            text += "\nFlags (before or after the id):\n";
            write_flags(&mut text, self.flags);
        }
        text
    }
}

fn write_flags(text: &mut String, flags: &[Flag]) {
    for flag in flags {
        let short = if flag.short.is_empty() { String::new() } else { format!(", -{}", flag.short) };
        let head = format!("--{}{short} {}", flag.long, flag.value);
        let _ = writeln!(text, "   {head:34}{}", flag.help);
    }
}
