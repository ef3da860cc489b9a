//! The same generated configurations run by runc and by rung; a probe inside tells what it sees. What differs must be
//! on the list below, with its reason.

use std::collections::BTreeSet;
use std::path::Path;

use integration::bins;
use integration::bundle::Bundle;
use integration::random::Random;
use integration::runtime::{Run, Runtime, finish, text};
use serde_json::{Value, json};

const CONFIGURATIONS: u64 = 240;
/// Run side by side by as many tests.
const PARTS: u64 = 4;

/// What a process can see of its container, a fact a line.
const PROBE: &str = r#"
grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Umask|Cpus_allowed_list|Mems_allowed_list):' /proc/self/status
echo "cwd $(pwd)"; env | grep -vE '^(SHLVL|_|PWD|OLDPWD)=' | sort | sed 's/^/env /'
echo "host $(hostname) $(cat /proc/sys/kernel/domainname)"
echo "oom $(cat /proc/self/oom_score_adj)"
cat /proc/self/limits | sed 's/^/limit /'
for f in /proc/self/fd/*; do n=${f##*/}; [ "$n" -gt 2 ] && [ -e $f ] && [ "$n" -lt 10 ] && echo "fd $n"; done
for n in net pid ipc uts mnt user cgroup time; do a=$(readlink /proc/self/ns/$n); echo "ns $n $a"; done
while read id parent dev root point options rest; do echo "mount $point $options ${rest#*- }"; done < /proc/self/mountinfo | sort
while read id parent dev root point rest; do echo "mode $point $(stat -c "%a %u %g" $point 2>&1)"; done < /proc/self/mountinfo | sort
ls -ln /dev | while read mode links uid gid a b c d e name; do echo "dev $mode $uid $gid $a $b $name"; done
for p in /proc/kcore /proc/keys /proc/timer_list /proc/acpi /sys/firmware /etc/hidden /etc/hidden-dir; do echo "see $p $(ls -ld $p 2>&1 | cut -c1-10) $(cat $p 2>/dev/null | head -c 20 | wc -c)"; done
for p in /proc/sys/kernel/domainname /proc/sysrq-trigger /etc/readonly /sys/x /x /tmp/x /dev/shm/x; do (echo > $p) 2>/dev/null && echo "write $p"; done
for p in net/ipv4/ip_forward kernel/shmmax kernel/msgmax net/core/somaxconn; do echo "sysctl $p $(cat /proc/sys/$p 2>&1)"; done
mkdir /tmp/made 2>&1 && rmdir /tmp/made; kill -0 $$ && echo signalled
for f in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max cpuset/cpuset.cpus blkio/blkio.weight devices/devices.list; do [ -e /sys/fs/cgroup/$f ] && echo "cgroup $f $(cat /sys/fs/cgroup/$f | sort | tr '\n' ';')"; done
mknod /tmp/node c 1 11 2>&1 && (head -c1 /tmp/node 2>&1 | wc -c); mknod /tmp/zero c 1 5 2>/dev/null && (head -c1 /tmp/zero 2>/dev/null | wc -c); rm -f /tmp/node /tmp/zero
"#;

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
];

fn generate(seed: u64, bundle: &mut Bundle) {
    let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        r.number();
    }
    process(&mut r, &mut bundle.config["process"]);
    let linux = &mut bundle.config["linux"];
    namespaces(&mut r, linux);
    resources(&mut r, &mut linux["resources"]);
    if r.chance(3) {
        linux["seccomp"] = seccomp(&mut r);
    }
    if r.chance(3) {
        linux["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": r.one(&[0o600, 0o666, 0o640]), "uid": r.below(3), "gid": r.below(3)},
            {"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600},
        ]);
    }
    let hidden = [
        "/etc/hidden",
        "/etc/hidden-dir",
        "/proc/keys",
        "/proc/acpi",
        "/proc/kcore",
        "/no/such",
        "/sys/firmware",
    ];
    linux["maskedPaths"] = json!(r.some(&hidden));
    linux["readonlyPaths"] =
        json!(r.some(&["/proc/sys", "/proc/sysrq-trigger", "/etc/readonly", "/no/such"]));
    if r.chance(4) {
        linux["rootfsPropagation"] = json!(r.one(&["private", "slave", "rprivate", "rslave"]));
    }
    bundle.config["root"]["readonly"] = json!(r.chance(3));
    mounts(&mut r, bundle);
}

fn process(r: &mut Random, process: &mut Value) {
    process["args"] = json!(["sh", "-c", PROBE]);
    let users = [(0u32, 0u32), (1000, 1000), (1000, 0), (0, 1000), (65534, 65534)];
    let &(uid, gid) = r.one(&users);
    process["user"] = json!({"uid": uid, "gid": gid});
    if r.chance(3) {
        process["user"]["additionalGids"] = json!(r.some(&[5, 10, 1000, 2000]));
    }
    if r.chance(3) {
        process["user"]["umask"] = json!(r.one(&[0, 0o27, 0o77]));
    }
    process["cwd"] = json!(r.one(&["/", "/tmp", "/etc", "/made/by/runtime", "/root"]));
    process["noNewPrivileges"] = json!(r.chance(2));
    let bounding = r.some(&CAPABILITIES);
    let permitted = r.some(&bounding);
    let effective = r.some(&permitted);
    let inheritable = if r.chance(3) { r.some(&permitted) } else { Vec::new() };
    let ambient = if r.chance(3) { inheritable.clone() } else { Vec::new() };
    process["capabilities"] = json!({"bounding": bounding, "effective": effective, "permitted": permitted, "inheritable": inheritable, "ambient": ambient});
    if r.chance(8) {
        process.as_object_mut().expect("a map").remove("capabilities");
    }
    let limits = [
        ("RLIMIT_NOFILE", 1000),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 5000),
        ("RLIMIT_STACK", 8 << 20),
        ("RLIMIT_CPU", 100),
        ("RLIMIT_FSIZE", 1 << 30),
    ];
    let chosen = r.some(&limits);
    process["rlimits"] =
        chosen.iter().map(|(name, most)| json!({"type": name, "hard": most, "soft": most / 2})).collect();
    if r.chance(3) {
        process["oomScoreAdj"] = json!(r.one(&[0, 100, 1000]));
    }
    process["env"] = json!(["PATH=/usr/bin:/bin", "A=1", "B=two words", "A=3"]);
    if r.chance(3) {
        process["env"].as_array_mut().expect("a list").push(json!("HOME=/elsewhere"));
    }
}

fn namespaces(r: &mut Random, linux: &mut Value) {
    let mut list = vec![json!({"type": "mount"}), json!({"type": "uts"})];
    for kind in ["pid", "network", "ipc", "cgroup"] {
        if !r.chance(4) {
            list.push(json!({"type": kind}));
        }
    }
    let has = |kind: &str, list: &[Value]| list.iter().any(|namespace| namespace["type"] == kind);
    let mut sysctl = json!({});
    if has("network", &list) && r.chance(2) {
        sysctl["net.ipv4.ip_forward"] = json!("1");
        sysctl["net.core.somaxconn"] = json!("321");
    }
    if has("ipc", &list) && r.chance(2) {
        sysctl["kernel.shmmax"] = json!("123456789");
    }
    linux["sysctl"] = sysctl;
    linux["namespaces"] = json!(list);
}

fn resources(r: &mut Random, resources: &mut Value) {
    if r.chance(2) {
        resources["memory"] = json!({"limit": 256 << 20, "reservation": 64 << 20});
    }
    if r.chance(2) {
        resources["cpu"] = json!({"shares": r.one(&[512, 1000, 2048]), "quota": 50_000, "period": 100_000});
    }
    if r.chance(3) {
        resources["cpu"]["cpus"] = json!("0");
    }
    if r.chance(2) {
        resources["pids"] = json!({"limit": r.one(&[-1, 100, 1000])});
    }
    let rules = [
        json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}),
        json!({"allow": true, "type": "b", "major": 7, "access": "rwm"}),
        json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}),
    ];
    let mut devices = vec![json!({"allow": false, "access": "rwm"})];
    devices.extend(r.some(&rules));
    resources["devices"] = json!(devices);
}

fn seccomp(r: &mut Random) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": r.one(&[1, 28, 38])},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]},
        ],
    })
}

fn mounts(r: &mut Random, bundle: &mut Bundle) {
    let etc = bundle.rootfs().join("etc");
    std::fs::write(etc.join("hidden"), "secret\n").expect("a file");
    std::fs::write(etc.join("readonly"), "").expect("a file");
    std::fs::create_dir_all(etc.join("hidden-dir/inner")).expect("a directory");
    let source = bundle.path().join("source");
    std::fs::create_dir_all(source.join("inner")).expect("a directory");
    std::fs::write(source.join("file"), "content\n").expect("a file");
    let source = text(&source).to_owned();
    let options = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "rprivate", "rslave"];
    if r.chance(2) {
        let mut options = r.some(&options);
        options.push(if r.chance(2) { "bind" } else { "rbind" });
        bundle.add_mount(json!({"destination": r.one(&["/data", "/deep/down/data", "/etc/over"]), "type": "bind", "source": source, "options": options}));
    }
    if r.chance(3) {
        bundle.add_mount(json!({"destination": "/single", "type": "bind", "source": format!("{source}/file"), "options": ["bind", "ro"]}));
    }
    if r.chance(2) {
        let mut options = r.some(&["nosuid", "nodev", "noexec", "ro", "size=1m"]);
        options.dedup();
        bundle.add_mount(json!({"destination": r.one(&["/tmp", "/scratch"]), "type": "tmpfs", "source": "tmpfs", "options": options}));
    }
    if r.chance(4) {
        bundle.add_mount(
            json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
        );
    }
    if r.chance(4) {
        bundle.add_mount(json!({"destination": "/dev/mqueue2", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]}));
    }
    if r.chance(5) {
        bundle.config["mounts"]
            .as_array_mut()
            .expect("a list")
            .retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    }
}

/// One configuration by one runtime; the bundle is new each time, since both write to it.
fn observe(seed: u64, program: &Path, rt: &mut Runtime) -> (Value, Run) {
    let id = rt.id();
    let mut bundle = Bundle::new();
    generate(seed, &mut bundle);
    bundle.write();
    let mut command = std::process::Command::new(program);
    command.arg("--root").arg(rt.root()).args(["run", "--bundle", text(bundle.path()), &id]);
    let mut run = finish(command);
    let mut wipe = std::process::Command::new(program);
    wipe.arg("--root").arg(rt.root()).args(["delete", "--force", &id]);
    finish(wipe);
    for (own, common) in [(text(bundle.path()), "BUNDLE"), (&*id, "ID"), (text(rt.root()), "ROOT")] {
        run.stdout = run.stdout.replace(own, common);
    }
    (bundle.config.clone(), run)
}

/// A line in a form that has nothing of the moment in it; empty for what is no fact.
fn fact(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // Whether shared is what counts: the number is another each time.
        ["ns", kind, link] => {
            let file = if kind == "net" { "net" } else { kind };
            let own = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap_or_default();
            format!("ns {kind} {}", if own.to_str() == Some(link) { "the host's" } else { "its own" })
        }
        ["mount", point, options, kind, source, superblock] => {
            mount_fact(point, options, kind, source, superblock)
        }
        // runc before 1.2 let every container have the tunnel device.
        ["cgroup", "devices/devices.list", ..] => line.replace("c 10:200 rwm;", ""),
        // A folder of rung's own over a folder of the kernel's: 755 and 555.
        ["mode", "/sys/fs/cgroup", ..] => String::new(),
        _ => words.join(" "),
    }
}

/// Differences between the two that are meant, each with its reason.
fn mount_fact(point: &str, options: &str, kind: &str, source: &str, superblock: &str) -> String {
    // A mask is told by what is seen through it: runc gives each directory a tmpfs of its own, rung one to all; over
    // a file lies the container's null device or the host's.
    let masked = ["/proc/keys", "/proc/acpi", "/proc/kcore", "/sys/firmware", "/etc/hidden"];
    if masked.iter().any(|masked| point.starts_with(masked)) && matches!(kind, "tmpfs" | "devtmpfs") {
        return format!("mask {point}");
    }
    let (mut options, mut source) = (options.to_owned(), source);
    // The mode of a tmpfs is compared as what is seen of it.
    let mut superblock = superblock.to_owned();
    match (kind, point) {
        // Read-only is the mount with rung, with runc 1.1 the file system of the kernel too.
        ("sysfs", _) => superblock = superblock.replace("ro", "rw"),
        // runc 1.1 leaves the folder of the hierarchies writable where read-only was asked for.
        ("tmpfs", "/sys/fs/cgroup") => options = options.replace("rw", "ro"),
        // It is a name and nothing else.
        ("cgroup", _) => source = "cgroup",
        _ => {}
    }
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
    let mut superblock = words(&superblock);
    superblock.retain(|word| {
        !["inode", "nr_inodes", "mode=", "size=12"].iter().any(|start| word.starts_with(start))
    });
    format!("mount {point} {:?} {kind} {source} {superblock:?}", words(&options))
}

fn facts(run: &Run) -> BTreeSet<String> {
    run.stdout.lines().map(fact).filter(|fact| !fact.is_empty()).collect()
}

fn compare(part: u64) {
    let Some(runc) = bins::peer("runc") else {
        eprintln!("skipped: runc is not installed");
        return;
    };
    let mut rt = Runtime::new();
    let (mut differences, mut failures) = (Vec::new(), 0);
    for seed in (0..CONFIGURATIONS).filter(|seed| seed % PARTS == part) {
        let (config, theirs) = observe(seed, &runc, &mut rt);
        let (_, ours) = observe(seed, &bins::path("rung"), &mut rt);
        failures += u64::from(theirs.code != 0);
        if (theirs.code == 0) != (ours.code == 0) {
            differences.push(format!(
                "{seed}: runc {} {}\n   rung {} {}",
                theirs.code, theirs.stderr, ours.code, ours.stderr
            ));
            continue;
        }
        let (theirs, ours) = (facts(&theirs), facts(&ours));
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
        let (runc_only, rung_only) = (only(&theirs, &ours), only(&ours, &theirs));
        if !runc_only.is_empty() || !rung_only.is_empty() {
            differences.push(format!(
                "{seed}: only runc {runc_only:#?}\n   only rung {rung_only:#?}\n   {}",
                config["mounts"]
            ));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    assert!(failures * 4 < CONFIGURATIONS / PARTS, "{failures} configurations run nowhere");
}

#[test]
fn first_part() {
    compare(0);
}

#[test]
fn second_part() {
    compare(1);
}

#[test]
fn third_part() {
    compare(2);
}

#[test]
fn fourth_part() {
    compare(3);
}
