use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use integration::bundle::Bundle;
use integration::runtime::{Runtime, text};

struct Running {
    rt: Runtime,
    bundle: Bundle,
    id: String,
}

impl Running {
    fn new(change: impl FnOnce(&mut Bundle)) -> Running {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::new();
        change(&mut bundle);
        rt.start_sleeper(&mut bundle, &id);
        Running { rt, bundle, id }
    }

    fn finish(self) {
        self.rt.call(&["delete", "-f", &self.id]).ok();
        self.rt.assert_clean(&self.bundle);
    }
}

#[test]
fn output_exit_code_and_place() {
    let c = Running::new(|_| ());
    let run = c.rt.call(&["exec", &c.id, "sh", "-c", "echo out; echo err >&2; hostname; exit 9"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (9, "out\nbox\n", "err\n"));
    // The same namespaces as pid 1 has.
    for kind in ["pid", "mnt", "net", "ipc", "uts"] {
        let link = format!("/proc/self/ns/{kind}");
        let init = c.rt.call(&["exec", &c.id, "readlink", &format!("/proc/1/ns/{kind}")]).ok();
        assert_eq!(c.rt.call(&["exec", &c.id, "readlink", &link]).ok(), init, "{kind}");
    }
    let host = std::fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let inside = c.rt.call(&["exec", &c.id, "cat", "/proc/self/cgroup"]).ok();
    assert_ne!(host, inside, "exec stays in the caller's cgroup");
    c.finish();
}

#[test]
fn user_directory_and_environment() {
    let c = Running::new(|_| ());
    let words = [
        "exec",
        "--user",
        "1000:1001",
        "-g",
        "1002",
        "--cwd",
        "/tmp",
        "-e",
        "A=1",
        "-e",
        "A=2",
        &c.id,
        "sh",
        "-c",
        "id -u; id -g; id -G; pwd; echo $A $HOME",
    ];
    let lines = c.rt.call(&words).ok();
    assert_eq!(lines, "1000\n1001\n1001 1002\n/tmp\n2 /home/user\n");
    c.rt.call(&["exec", "--user", "root", &c.id, "true"]).refused("root");
    c.rt.call(&["exec", "--cwd", "/nowhere", &c.id, "true"]).refused("no such file or directory");
    c.finish();
}

#[test]
fn capabilities_are_the_containers_and_none_is_inheritable() {
    let c = Running::new(|_| ());
    let show = ["sh", "-c", "grep Cap /proc/self/status"];
    let plain = c.rt.call(&[&["exec", c.id.as_str()], &show[..]].concat()).ok();
    let more = c.rt.call(&[&["exec", "--cap", "CAP_SYS_PTRACE", c.id.as_str()], &show[..]].concat()).ok();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect(name).to_owned();
        u64::from_str_radix(line.split_whitespace().nth(1).expect("a value"), 16).expect("hexadecimal")
    };
    for text in [&plain, &more] {
        assert_eq!((value(text, "CapInh"), value(text, "CapAmb")), (0, 0), "{text}");
    }
    let ptrace = 1 << 19;
    assert_eq!(value(&plain, "CapEff") & ptrace, 0);
    assert_eq!(value(&more, "CapEff"), value(&plain, "CapEff") | ptrace);
    c.finish();
}

#[test]
fn a_process_document_and_a_detached_process() {
    let c = Running::new(|_| ());
    let document = c.bundle.path().join("process.json");
    let process = serde_json::json!({
        "args": ["sh", "-c", "id -u >/dev/shm/uid; exec sleep 600"],
        "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 1000, "gid": 1000},
    });
    std::fs::write(&document, process.to_string()).expect("process.json");
    let pid_file = c.bundle.path().join("exec.pid");
    let words = ["exec", "--process", text(&document), "--detach", "--pid-file", text(&pid_file), &c.id];
    c.rt.call(&words).ok();
    let pid = std::fs::read_to_string(&pid_file).expect("pid file");
    assert!(
        c.rt.call(&["ps", "-f", "json", &c.id]).ok().contains(&pid),
        "the pid file names no process of it"
    );
    let uid = || c.rt.call(&["exec", &c.id, "cat", "/dev/shm/uid"]).stdout;
    while uid().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(uid(), "1000\n");
    c.finish();
}

#[test]
fn what_cannot_be_executed_says_why_in_the_words_engines_match() {
    let c = Running::new(|_| ());
    for (program, words) in [
        ("nope", "executable file not found in $PATH"),
        ("/nope", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let run = c.rt.call(&["exec", &c.id, program]).refused(words);
        assert_eq!(run.code, 255, "{run:?}");
    }
    c.rt.call(&["exec", &c.id]).refused("");
    c.rt.call(&["exec", "absent", "true"]).refused("container does not exist");
    c.finish();
}

#[test]
fn the_filter_holds_in_exec_too() {
    let c = Running::new(|bundle| {
        bundle.config["linux"]["seccomp"] = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
        });
    });
    let run = c.rt.call(&["exec", &c.id, "mkdir", "/tmp/x"]).refused("No space left");
    assert_eq!(run.code, 1);
    c.finish();
}

/// In turn: compiled, linked from the cache, compiled where the cache says something else, and for exec in the form of
/// an earlier rung.
#[test]
fn a_filter_is_compiled_once_for_all_containers_of_its_profile() {
    let mut rt = Runtime::new();
    let mut bundle = Bundle::new();
    bundle.config["linux"]["seccomp"] = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    });
    let mut start = || {
        let id = rt.id();
        rt.start_sleeper(&mut bundle, &id);
        rt.call(&["exec", &id, "mkdir", "/tmp/x"]).refused("No space left");
        let file = rt.root().join(&id).join("seccomp.bpf");
        (id, file)
    };
    let inode = |file: &Path| fs::metadata(file).expect("the filter's file").ino();
    let (first_id, first) = start();
    let (second_id, second) = start();
    assert_eq!(inode(&first), inode(&second));

    let cache = first.parent().and_then(Path::parent).expect("the state directory").join("@seccomp");
    let entry = fs::read_dir(&cache).expect("the cache").flatten().next().expect("an entry").path();
    assert_eq!(inode(&entry), inode(&first));
    let mut bytes = fs::read(&entry).expect("an entry");
    *bytes.last_mut().expect("a profile") ^= 1;
    fs::remove_file(&entry).expect("removed");
    fs::write(&entry, &bytes).expect("written");
    let (third_id, third) = start();
    assert_ne!(inode(&third), inode(&first));

    // Mark, compiler, flags, number of instructions and these; once it was flags and instructions.
    let bytes = fs::read(&third).expect("the filter's file");
    let instructions = u32::from_ne_bytes(bytes[16..20].try_into().expect("four bytes")) as usize;
    fs::remove_file(&third).expect("removed");
    fs::write(&third, [&bytes[12..16], &bytes[20..20 + 8 * instructions]].concat()).expect("written");
    rt.call(&["exec", &third_id, "mkdir", "/tmp/x"]).refused("No space left");
    for id in [first_id, second_id, third_id] {
        rt.call(&["delete", "--force", &id]).ok();
    }
    rt.assert_clean(&bundle);
}

#[test]
fn a_stopped_container_is_refused() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::new();
    rt.create(&bundle, &id).ok();
    rt.call(&["start", &id]).ok();
    rt.await_status(&id, "stopped");
    rt.call(&["exec", &id, "true"]).refused("cannot exec in a stopped container");
    rt.call(&["delete", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn no_directory_of_the_host_is_reached_through_a_descriptor() {
    let c = Running::new(|_| ());
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let run = c.rt.call(&["exec", "--cwd", &cwd, &c.id, "ls"]);
        assert_ne!(run.code, 0, "{cwd}: {run:?}");
    }
    c.finish();
}

#[test]
fn limits_of_a_process_that_is_another_user() {
    let c = Running::new(|bundle| {
        bundle.config["process"]["rlimits"] =
            serde_json::json!([{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 32}]);
    });
    // Often, since it once depended on which side was faster.
    for _ in 0..20 {
        let text =
            c.rt.call(&["exec", "--user", "1000:1000", &c.id, "sh", "-c", "ulimit -n; ulimit -Hn"]).ok();
        assert_eq!(text, "32\n64\n");
    }
    c.finish();
}
