//! What a failed exec says: the words that callers match, the cause, and the remedy, in one line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use integration::bundle::Bundle;
use integration::runtime::Runtime;
use serde_json::json;

/// A file of the container, and how starting it must fail.
struct Case {
    content: Vec<u8>,
    mode: u32,
    words: &'static str,
    cause: &'static str,
}

fn case(content: impl Into<Vec<u8>>, mode: u32, words: &'static str, cause: &'static str) -> Case {
    Case { content: content.into(), mode, words, cause }
}

fn cases() -> Vec<Case> {
    let busybox = fs::read(integration::bins::on_path("busybox").expect("busybox")).expect("busybox");
    let mut foreign = busybox.clone();
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    let dynamic = fs::read("/bin/true").expect("a dynamic program");
    vec![
        case("#!/bin/absent -x\n", 0o755, "no such file or directory", "its interpreter \"/bin/absent\""),
        case("#!/bin/sh\r\necho\r\n", 0o755, "no such file or directory", "carriage return"),
        case(dynamic, 0o755, "no such file or directory", "it needs the loader \"/lib"),
        case(foreign, 0o755, "exec format error", "built for aarch64"),
        case("echo without\n", 0o755, "exec format error", "begin it with #!/bin/sh"),
        case("", 0o755, "exec format error", "it is empty"),
        case("MZ\0\x01", 0o755, "exec format error", "for Windows"),
        case("#!/bin/sh\n", 0o644, "permission denied", "chmod +x"),
        case("#!/file-644\n", 0o755, "permission denied", "its interpreter \"/file-644\" is not executable"),
    ]
}

fn put(bundle: &Bundle, case: &Case) {
    let file = bundle.rootfs().join("program");
    fs::write(&file, &case.content).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(case.mode)).expect("chmod");
    fs::write(bundle.rootfs().join("file-644"), "").expect("a file");
}

/// One line of the log, whatever the content says.
fn check(stderr: &str, case: &Case) {
    assert!(stderr.contains(case.words) && stderr.replace("\\\"", "\"").contains(case.cause), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn run_and_exec_say_why() {
    let mut rt = Runtime::new();
    let (id, other) = (rt.id(), rt.id());
    let mut sleeper = Bundle::new();
    rt.start_sleeper(&mut sleeper, &id);
    for case in cases() {
        let bundle = Bundle::with_args(&["/program"]);
        put(&bundle, &case);
        check(&rt.run(&bundle, &other).refused(case.words).stderr, &case);
        put(&sleeper, &case);
        check(&rt.call(&["exec", &id, "/program"]).refused(case.words).stderr, &case);
    }
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&sleeper);
}

#[test]
fn places_say_why() {
    let noexec = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "mode=1777", "tmpcopyup"]});
    type Change = fn(&mut Bundle);
    let cases: [(Change, &str, &str); 6] = [
        (|b| b.config["process"]["args"] = json!(["/tmp/sh"]), "permission denied", "option noexec"),
        (|b| b.config["process"]["args"] = json!(["/tmp"]), "is a directory", ""),
        (
            |b| b.config["process"]["args"] = json!(["absent"]),
            "executable file not found in $PATH",
            "none of /usr/local/sbin:",
        ),
        (
            |b| {
                b.config["process"]["args"] = json!(["sh"]);
                b.config["process"]["env"] = json!([]);
            },
            "executable file not found in $PATH",
            "has no PATH",
        ),
        (
            |b| {
                fs::write(b.rootfs().join("bin/plain"), "").expect("a file");
                b.config["process"]["args"] = json!(["plain"]);
            },
            "executable file not found in $PATH",
            "there is /bin/plain, but it is not executable",
        ),
        (
            |b| {
                b.config["process"]["cwd"] = json!("/etc/passwd");
            },
            "not a directory",
            "it is no directory",
        ),
    ];
    for (change, words, cause) in cases {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::new();
        fs::copy(bundle.rootfs().join("bin/busybox"), bundle.rootfs().join("tmp/sh")).expect("a copy");
        bundle.add_mount(noexec.clone());
        change(&mut bundle);
        let run = rt.run(&bundle, &id).refused(words);
        assert!(run.stderr.contains(cause), "{cause} is not in {run:?}");
        rt.assert_clean(&bundle);
    }
}

#[test]
fn a_missing_directory_of_an_exec() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    let run = rt.call(&["exec", "--cwd", "/absent", &id, "true"]).refused("no such file or directory");
    assert!(run.stderr.contains("make it in the image"), "{run:?}");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

/// Where root has the right, a caller without it is made.
fn run_without(right: &str, bundle: &Bundle) -> integration::runtime::Run {
    let mut rt = Runtime::new();
    let id = rt.id();
    bundle.write();
    let runtime = rt.command(&["run", "--bundle", integration::runtime::text(bundle.path()), &id]);
    let mut command = std::process::Command::new("setpriv");
    let without = format!("-{right}");
    command.args(["--bounding-set", &without, "--inh-caps", &without]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    let run = integration::runtime::finish(command);
    rt.assert_clean(bundle);
    run
}

#[test]
fn a_right_that_the_caller_lacks_is_named() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "hard": 1_000_000_000u64, "soft": 1_000_000_000u64}]);
    run_without("sys_resource", &bundle).refused("CAP_SYS_RESOURCE");
    run_without("mknod", &Bundle::new()).refused("CAP_MKNOD");
}

/// Who may make no device node gives a container with a user namespace those of the host.
#[test]
fn devices_are_the_hosts_where_none_may_be_made() {
    let mut bundle = Bundle::script("stat -c '%t %T' /dev/full; head -c 3 /dev/zero | wc -c");
    crate::isolation::map_to_nobody(&mut bundle);
    bundle.config["linux"]["devices"] =
        json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600}]);
    assert_eq!(run_without("mknod", &bundle).ok(), "1 7\n3\n");
}
