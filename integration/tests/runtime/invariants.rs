//! What no image and no process of a container may achieve, in the numbering of the catalogue of known escapes (R1 to
//! R24; runtime/README.md says where the others are). A racer exchanges a directory and a link while a command runs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use integration::bundle::Bundle;
use integration::containerd_lite::wait_for;
use integration::runtime::{Runtime, finish, run_script, text};
use rustix::fs::{CWD, RenameFlags};
use serde_json::{Value, json};

/// A directory of the host that must stay as it is: names, contents, owners, modes, times.
struct Canary {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Canary {
    fn new() -> Canary {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("file"), "untouched").expect("a file");
        fs::create_dir(dir.path().join("sub")).expect("a directory");
        let before = snapshot(dir.path());
        Canary { dir, before }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn assert_untouched(&self) {
        assert_eq!(snapshot(self.dir.path()), self.before, "the canary was touched");
    }
}

fn snapshot(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).expect("a directory").flatten().map(|e| e.path()).collect();
    paths.push(dir.to_owned());
    paths.sort();
    for path in paths {
        let meta = fs::symlink_metadata(&path).expect("meta");
        let content = if meta.is_file() { fs::read(&path).expect("content") } else { Vec::new() };
        let facts = (meta.ino(), meta.mode(), meta.uid(), meta.gid(), meta.mtime_nsec(), meta.ctime_nsec());
        lines.push(format!("{} {facts:?} {content:?}", path.display()));
    }
    lines
}

/// Exchanges two names without rest until it is dropped.
struct Racer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Racer {
    fn start(one: PathBuf, other: PathBuf) -> Racer {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
            }
        });
        Racer { stop, thread: Some(thread) }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const RACES: usize = 40;

/// Whatever comes of it, nothing outside the root is made or mounted on; nor where the kernel resolves no path for us.
fn race(change: impl Fn(&mut Bundle), place: &str) {
    for runtime in [Runtime::new, Runtime::without_openat2] {
        race_of(runtime(), &change, place);
    }
}

fn race_of(mut rt: Runtime, change: impl Fn(&mut Bundle), place: &str) {
    let canary = Canary::new();
    let mut bundle = Bundle::script("true");
    change(&mut bundle);
    let inside = bundle.rootfs().join(place);
    fs::create_dir_all(&inside).expect("a directory");
    let link = bundle.rootfs().join("link-of-racer");
    symlink(canary.path(), &link).expect("a link");
    let racer = Racer::start(inside, link);
    let mut succeeded = 0;
    for _ in 0..RACES {
        let id = rt.id();
        succeeded += usize::from(rt.run(&bundle, &id).code == 0);
        canary.assert_untouched();
    }
    drop(racer);
    assert!(succeeded > 0, "no run at all succeeded");
    rt.assert_clean(&bundle);
}

#[test]
fn r3_a_racer_at_the_target_of_a_mount() {
    let source = tempfile::tempdir().expect("a directory");
    fs::write(source.path().join("file"), "").expect("a file");
    for mount in [
        json!({"destination": "/race/deep/er", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/race/deep/er", "type": "bind", "source": text(source.path()), "options": ["bind"]}),
        json!({"destination": "/race/file", "type": "bind", "source": text(&source.path().join("file")), "options": ["bind"]}),
    ] {
        race(|bundle| bundle.add_mount(mount.clone()), "race");
    }
}

#[test]
fn r4_r8_a_racer_at_proc_sys_and_dev() {
    for place in ["proc", "sys", "dev"] {
        race(|_| (), place);
    }
    // With the nodes made in the root file system itself.
    let unmounted = |bundle: &mut Bundle| {
        let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
    };
    race(unmounted, "dev");
}

#[test]
fn r3_r8_links_lead_nowhere_without_openat2() {
    let canary = Canary::new();
    for link in [text(canary.path()), "../../../../../../../../tmp", "/dangling/deep", "/link"] {
        for destination in ["/link", "/link/a/b/c", "/dev/link"] {
            let mut rt = Runtime::without_openat2();
            let id = rt.id();
            let mut bundle = Bundle::script("true");
            symlink(link, bundle.rootfs().join("link")).expect("a link");
            bundle.add_mount(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
            let run = rt.run(&bundle, &id);
            let loops = link == "/link" && destination != "/dev/link";
            assert_eq!(run.code == 0, !loops, "{link} {destination}: {run:?}");
            canary.assert_untouched();
            rt.assert_clean(&bundle);
        }
    }
}

#[test]
fn r6_a_racer_at_a_masked_path() {
    race(
        |bundle| bundle.config["linux"]["maskedPaths"] = json!(["/race/file", "/race/sub", "/race"]),
        "race",
    );
    race(|bundle| bundle.config["linux"]["readonlyPaths"] = json!(["/race/file", "/race/sub"]), "race");
}

#[test]
fn r9_a_racer_at_the_working_directory() {
    race(|bundle| bundle.config["process"]["cwd"] = json!("/race/made/deep"), "race");
}

#[test]
fn r6_masked_files_are_empty_and_a_false_null_device_is_not_used() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("cat /etc/secret; ls /etc/secrets; cat /dev/null; echo end");
    fs::write(bundle.rootfs().join("etc/secret"), "secret\n").expect("a file");
    fs::create_dir(bundle.rootfs().join("etc/secrets")).expect("a directory");
    fs::write(bundle.rootfs().join("etc/secrets/inner"), "").expect("a file");
    // An image's own null device that is none, where /dev is not mounted anew.
    bundle.config["mounts"]
        .as_array_mut()
        .expect("a list")
        .retain(|mount| !mount["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/secret", "/etc/secrets"]);
    fs::write(bundle.rootfs().join("dev/null"), "false\n").expect("a file");
    rt.run(&bundle, &id).refused("another file is in its place");
    fs::remove_file(bundle.rootfs().join("dev/null")).expect("remove");
    assert_eq!(rt.run(&bundle, &id).ok(), "end\n");
    rt.assert_clean(&bundle);
}

#[test]
fn r7_a_console_that_is_a_link() {
    for target in ["CANARY/file", "CANARY/new", "../../../../../../CANARY/file", "/etc/passwd", "pts/0"] {
        let canary = Canary::new();
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::script("true");
        bundle.config["process"]["terminal"] = json!(true);
        let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != "/dev");
        symlink(target.replace("CANARY", text(canary.path())), bundle.rootfs().join("dev/console"))
            .expect("a link");
        bundle.write();
        let run = rt.call(&["run", "--bundle", text(bundle.path()), &id]);
        assert_ne!(run.code, 0, "{target}: {run:?}");
        canary.assert_untouched();
        rt.assert_clean(&bundle);
    }
}

#[test]
fn r9_the_working_directory_is_made_beneath_the_root() {
    for target in ["CANARY", "/../../../../../../../../..CANARY", "/dangling/deep"] {
        let canary = Canary::new();
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::script("true");
        symlink(target.replace("CANARY", text(canary.path())), bundle.rootfs().join("way")).expect("a link");
        bundle.config["process"]["cwd"] = json!("/way/to/somewhere");
        rt.run(&bundle, &id).ok();
        canary.assert_untouched();
        rt.assert_clean(&bundle);
    }
}

#[test]
fn r10_the_machines_null_device_and_files_keep_their_owner() {
    let owner =
        |path: &str| fs::metadata(path).map(|meta| (meta.uid(), meta.gid(), meta.mode())).expect("meta");
    let before = owner("/dev/null");
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    // Streams that are files of the host, and the null device.
    rt.call(&["exec", "--user", "1000:1000", &id, "true"]).ok();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut command = rt.command(&["exec", "--user", "1000:1000", &id, "true"]);
    command.stdin(fs::File::open("/dev/null").expect("null")).stdout(file.reopen().expect("a file"));
    assert!(command.status().expect("exec").success());
    assert_eq!(owner("/dev/null"), before);
    assert_eq!(file.path().metadata().expect("meta").uid(), 0);
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn r12_a_group_that_is_meant_to_refuse_is_kept() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("cat /etc/not-for-2000 2>&1; grep Groups /proc/self/status; id -g");
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 2000});
    let file = bundle.rootfs().join("etc/not-for-2000");
    fs::write(&file, "secret").expect("a file");
    chown(&file, Some(0), Some(2000)).expect("chown");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o707)).expect("chmod");
    bundle.config["process"]["capabilities"] = json!({});
    let out = rt.run(&bundle, &id).ok();
    assert!(out.contains("Permission denied") && !out.contains("secret"), "{out}");
    // None of the caller's groups came along.
    assert!(out.contains("Groups:\t \n") || out.contains("Groups:\t\n"), "{out}");
    rt.assert_clean(&bundle);
}

/// Also where the image calls a user by a number that is not its own.
#[test]
fn r13_numbers_of_users_are_numbers() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    fs::write(
        bundle.rootfs().join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n",
    )
    .expect("a file");
    rt.start_sleeper(&mut bundle, &id);
    for (user, ids) in [("1", "1 0"), ("0", "0 0"), ("65535:7", "65535 7"), ("2147483648", "2147483648 0")] {
        let out = rt.call(&["exec", "--user", user, &id, "sh", "-c", "echo $(id -u) $(id -g)"]).ok();
        assert_eq!(out.trim_end(), ids, "{user}");
    }
    for user in ["4294967295", "4294967296", "-1", "+1", "1:", ":1", "1:-1", "root", "", " 1", "0x1"] {
        rt.call(&["exec", "--user", user, &id, "true"]).refused("");
    }
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn r2_hooks_are_given_no_descriptors() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("true");
    let log = bundle.path().join("descriptors");
    let list =
        format!("(for n in $(seq 3 99); do readlink /proc/self/fd/$n; done; echo end) >> {}", log.display());
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.config["hooks"][kind] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", list], "env": ["PATH=/usr/bin:/bin"]}]);
    }
    bundle.write();
    // A caller that left one open.
    let leak = "exec 7</; exec \"$@\"";
    for words in [&["create", "--bundle", text(bundle.path()), &id][..], &["start", &id]] {
        let mut command = std::process::Command::new("sh");
        let runtime = rt.command(words);
        command.args(["-c", leak, "sh"]).arg(runtime.get_program()).args(runtime.get_args());
        finish(command).ok();
    }
    rt.await_status(&id, "stopped");
    rt.call(&["delete", &id]).ok();
    assert_eq!(fs::read_to_string(&log).expect("the hooks ran"), "end\n".repeat(5));
    rt.assert_clean(&bundle);
}

#[test]
fn r16_cgroup_paths_lead_nowhere_else() {
    let mut rt = Runtime::new();
    let (id, other) = (rt.id(), rt.id());
    let mut bundle = Bundle::script("true");
    for path in ["/..", "../x", "/a/../../b"] {
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        rt.create(&bundle, &other).refused("..");
    }
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    for path in ["..", "/..", "sub/../..", "memory:../.."] {
        rt.call(&["exec", "--cgroup", path, &id, "true"]).refused("");
    }
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn r14_a_joining_process_cannot_be_traced_or_looked_into() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    // Whatever appears: what its descriptors are (their numbers anybody may see), its executable, its environment.
    let spy = "while :; do for p in /proc/[0-9]*; do for n in 3 4 5 6 7 8 9; do readlink $p/fd/$n; done; \
               readlink $p/exe | grep rung; cat $p/environ | tr '\\0' '\\n' | grep RUNG_SECRET; done; done > /tmp/spied 2>/dev/null";
    // Without CAP_SYS_PTRACE, which is the right to do just that.
    bundle.config["process"]["args"] = json!(["sh", "-c", spy]);
    rt.create(&bundle, &id).ok();
    rt.call(&["start", &id]).ok();
    for _ in 0..RACES {
        let mut command = rt.command(&["exec", &id, "true"]);
        command.env("RUNG_SECRET", "1");
        finish(command).ok();
    }
    let spied = fs::read_to_string(bundle.rootfs().join("tmp/spied")).unwrap_or_default();
    assert_eq!(spied, "", "the container has seen into the runtime");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn r15_long_inputs_work_or_are_refused() {
    let long = "x".repeat(70_000);
    let out = run_script(
        |b| b.config["process"]["env"].as_array_mut().expect("a list").push(json!(format!("LONG={long}"))),
        "echo ${#LONG}",
    );
    assert_eq!(out.ok(), "70000\n");
    let many: Vec<Value> =
        (0..5000).map(|n| json!({"containerID": n, "hostID": 100_000 + 2 * n, "size": 1})).collect();
    run_script(
        |b| {
            b.config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
            b.config["linux"]["uidMappings"] = json!(many);
            b.config["linux"]["gidMappings"] = json!(many);
        },
        "true",
    )
    .refused("id mappings");
    let options = json!([format!("size=1m,{long}=1")]);
    let mount = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options});
    run_script(|b| b.add_mount(mount.clone()), "true").refused("/tmp");
    let mount = json!({"destination": "/tmp", "type": "ramfs", "source": "x", "options": options});
    run_script(|b| b.add_mount(mount.clone()), "true").refused("/tmp");
    run_script(|b| b.config["hostname"] = json!("h".repeat(300)), "true").refused("hostname");
    run_script(|b| b.config["process"]["args"] = json!(["true", "y".repeat(200_000)]), "true")
        .refused("too long");
}

#[test]
fn r21_an_exec_has_what_the_first_process_has() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    let show = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ulimit -n";
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7, 8]});
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 99, "soft": 88}]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
    bundle.config["process"]["args"] = json!(["sh", "-c", format!("({show}) > /tmp/first; exec sleep 600")]);
    chown(bundle.rootfs().join("tmp"), Some(1000), Some(1000)).expect("chown");
    rt.create(&bundle, &id).ok();
    rt.call(&["start", &id]).ok();
    let first = || fs::read_to_string(bundle.rootfs().join("tmp/first")).unwrap_or_default();
    wait_for(|| first().ends_with("88\n"), first);
    assert_eq!(rt.call(&["exec", &id, "sh", "-c", show]).ok(), first());
    // A document that says nothing of rights and limits.
    let document = bundle.path().join("process.json");
    let process = json!({"args": ["sh", "-c", show], "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [7, 8]}});
    fs::write(&document, process.to_string()).expect("a file");
    assert_eq!(rt.call(&["exec", "--process", text(&document), &id]).ok(), first());
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn r22_without_pivot_root_no_proc_of_the_host_is_there_to_mount_again() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle =
        Bundle::script("busybox unshare -U -m -r -p -f sh -c 'mount -t proc none /proc' 2>&1; echo $?");
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set]
            .as_array_mut()
            .expect("a list")
            .push(json!("CAP_SETFCAP"));
    }
    bundle.write();
    let run = rt.call(&["run", "--no-pivot", "--bundle", text(bundle.path()), &id]);
    assert!(run.stdout.contains("ermission denied") || run.stdout.contains("not permitted"), "{run:?}");
    assert!(
        Path::new("/proc/1/status").exists() && Path::new("/sys/kernel").exists(),
        "the host lost its /proc"
    );
    rt.assert_clean(&bundle);
}

#[test]
fn r23_names_lead_nowhere() {
    let rt = Runtime::new();
    let canary = Canary::new();
    let bundle = Bundle::new();
    bundle.write();
    let long = "x".repeat(300);
    let outside = format!("../../../../../..{}", text(canary.path()));
    for id in ["", ".", "..", "a/b", "../x", &outside, &long] {
        for command in ["create", "run", "start", "state", "kill", "delete", "pause", "ps"] {
            let mut words = vec![command];
            if matches!(command, "create" | "run") {
                words.extend(["--bundle", text(bundle.path())]);
            }
            words.push(id);
            let run = finish(rt.command(&words));
            assert_ne!(run.code, 0, "{words:?}");
        }
        rt.call(&["delete", "--force", id]).refused("");
        canary.assert_untouched();
    }
    rt.assert_clean(&bundle);
}

#[test]
fn r24_annotations_change_nothing() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let canary = Canary::new();
    let mut bundle = Bundle::script(
        "grep -E '^(Cap|NoNew|Seccomp:|Groups)' /proc/self/status; cat /proc/self/timens_offsets",
    );
    let plain = rt.run(&bundle, &id).ok();
    let file = canary.path().join("hook");
    bundle.config["annotations"] = json!({
        "run.oci.hooks.stdout": text(&file), "run.oci.hooks.stderr": text(&file), "run.oci.handler": "krun",
        "run.oci.keep_original_groups": "1", "run.oci.seccomp.receiver": text(&file), "run.oci.timens_offset": "1 1 1",
        "run.oci.mount_context_type": "context", "run.oci.systemd.subgroup": "../../x", "run.oci.delegate-cgroup": "../x",
        "org.systemd.property.ExecStopPost": format!("['touch', '{}']", file.display()), "org.criu.config": text(&file),
        "io.kubernetes.cri-o.Spoofed": "true", "module.wasm.image/variant": "compat",
    });
    bundle.config["hooks"]["createRuntime"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo said; cat > /dev/null"]}]);
    let id = rt.id();
    assert_eq!(rt.run(&bundle, &id).ok(), plain);
    canary.assert_untouched();
    rt.assert_clean(&bundle);
}

/// CYCLES says how often (the acceptance has 10000); with it nothing else should run, since the kernel's memory is one for
/// all.
#[test]
fn many_lives_leave_nothing() {
    const WARM_UP: usize = 200;
    /// Half a page of each would be a leak; the kernel frees late, some megabytes at any moment.
    const GROWTH: u64 = 2048;
    let cycles: Option<usize> = std::env::var("CYCLES").ok().and_then(|text| text.parse().ok());
    let mut rt = Runtime::new();
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["sleep", "600"]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    bundle.write();
    let id = rt.id();
    let live = |times: usize| {
        for _ in 0..times {
            rt.call(&["create", "--bundle", text(bundle.path()), &id]).ok();
            rt.call(&["delete", "--force", &id]).ok();
        }
    };
    if let Some(cycles) = cycles {
        live(WARM_UP);
        let before = kernel_memory();
        live(cycles);
        let growth = || kernel_memory().saturating_sub(before) / cycles as u64;
        let what = || format!("{} bytes of the kernel's memory are left of each", growth());
        integration::containerd_lite::wait_for(|| growth() < GROWTH, what);
    } else {
        live(100);
    }
    rt.assert_clean(&bundle);
}

/// Bytes that the kernel cannot give back by itself.
fn kernel_memory() -> u64 {
    let table = fs::read_to_string("/proc/meminfo").expect("the memory's figures");
    let kib = |name: &str| -> u64 {
        let line = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a figure")
    };
    ["SUnreclaim", "KernelStack", "PageTables", "Percpu"].map(kib).iter().sum::<u64>() * 1024
}
