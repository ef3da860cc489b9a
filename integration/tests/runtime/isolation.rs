use integration::bundle::Bundle;
use integration::runtime::{Runtime, run_script};
use serde_json::json;

fn output(change: impl FnOnce(&mut Bundle), script: &str) -> String {
    run_script(change, script).ok()
}

#[test]
fn namespaces_are_its_own() {
    let script = "for n in pid mnt net ipc uts; do readlink /proc/self/ns/$n; done; echo $$; hostname; ip link | grep -c UP";
    let text = output(|_| (), script);
    let lines: Vec<&str> = text.lines().collect();
    for (line, kind) in lines.iter().zip(["pid", "mnt", "net", "ipc", "uts"]) {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("namespace");
        assert_ne!(*line, own.to_str().expect("text"), "{kind} is shared");
    }
    // Pid 1, its name, and a loopback device that is up.
    assert_eq!(&lines[5..], ["1", "box", "1"]);
}

#[test]
fn a_cgroup_namespace_hides_where_it_is() {
    let add = |bundle: &mut Bundle| {
        bundle.config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "cgroup"}));
    };
    let text = output(add, "cat /proc/self/cgroup");
    assert!(
        text.lines()
            .filter(|line| line.contains("memory") || line.starts_with("0::"))
            .all(|line| line.ends_with(":/")),
        "{text}"
    );
}

#[test]
fn a_namespace_is_joined_by_path() {
    let mut rt = Runtime::new();
    let (first, second) = (rt.id(), rt.id());
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &first);
    let pid = rt.state(&first)["pid"].to_string();
    let mut other =
        Bundle::script("readlink /proc/self/ns/net; readlink /proc/self/ns/pid; ps | grep -c 'sleep 600$'");
    for (kind, name) in [("network", "net"), ("pid", "pid"), ("ipc", "ipc")] {
        other.remove_namespace(kind);
        let namespace = json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")});
        other.config["linux"]["namespaces"].as_array_mut().expect("a list").push(namespace);
    }
    let text = rt.run(&other, &second).ok();
    let link = |name: &str| {
        let path = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("namespace");
        path.to_str().expect("text").to_owned()
    };
    assert_eq!(text, format!("{}\n{}\n1\n", link("net"), link("pid")));
    rt.call(&["delete", "-f", &first]).ok();
    rt.assert_clean(&bundle);
    rt.assert_clean(&other);
}

pub(crate) fn map_to_nobody(bundle: &mut Bundle) {
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let root = bundle.rootfs();
    rustix::fs::chown(&root, Some(rustix::fs::Uid::from_raw(100_000)), None).expect("chown");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.path(), open).expect("chmod");
}

#[test]
fn a_user_namespace_maps_root_to_nobody() {
    let text = output(
        map_to_nobody,
        "id -u; cat /proc/self/uid_map; touch /file; echo x > /dev/null; ls /dev | grep -c '^null$'; echo hi",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(&lines[2..], ["1", "hi"]);
}

#[test]
fn masked_and_readonly_paths() {
    let text = output(
        |_| (),
        "cat /proc/keys | wc -c; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; ls /proc/acpi 2>/dev/null | wc -l;
         echo 1 2>&1 > /proc/sys/kernel/domainname; echo x 2>&1 > /proc/sysrq-trigger; echo 2>&1 > /sys/x; true",
    );
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(&lines[..4], ["0", "0", "0", "0"]);
}

#[test]
fn proc_sys_cannot_be_written() {
    let text = output(
        |_| (),
        "(echo x > /proc/sys/kernel/domainname) 2>&1; (echo 1 > /proc/sys/vm/drop_caches) 2>&1; true",
    );
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
}

#[test]
fn capabilities_are_what_was_asked_for() {
    let limit = |bundle: &mut Bundle| {
        let few = json!(["CAP_KILL", "CAP_CHOWN"]);
        bundle.config["process"]["capabilities"] = json!({"bounding": few, "effective": ["CAP_KILL"], "permitted": few, "inheritable": [], "ambient": []});
    };
    let text = output(limit, "grep -E 'Cap|NoNew' /proc/self/status");
    let squeezed: Vec<String> =
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    // Root gets its whole bounding set at exec; an ordinary user keeps nothing but the ambient.
    assert!(squeezed.contains(&"CapBnd: 0000000000000021".to_owned()), "{text}");
    assert!(squeezed.contains(&"CapEff: 0000000000000021".to_owned()), "{text}");
    assert!(squeezed.contains(&"CapInh: 0000000000000000".to_owned()), "{text}");
    assert!(squeezed.contains(&"NoNewPrivs: 1".to_owned()), "{text}");
}

#[test]
fn ambient_capabilities_reach_an_ordinary_user() {
    let ambient = |bundle: &mut Bundle| {
        let one = json!(["CAP_NET_BIND_SERVICE"]);
        bundle.config["process"]["capabilities"] =
            json!({"bounding": one, "effective": one, "permitted": one, "inheritable": one, "ambient": one});
        bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    };
    let text = output(ambient, "grep -E 'CapEff|CapAmb' /proc/self/status");
    assert_eq!(text.matches("0000000000000400").count(), 2, "{text}");
}

#[test]
fn seccomp_refuses_kills_and_filters_by_argument() {
    let refuse = |no_new_privileges: bool| {
        move |bundle: &mut Bundle| {
            bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            bundle.config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                    {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
                     "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
                ],
            });
        }
    };
    for no_new_privileges in [true, false] {
        let text = output(
            refuse(no_new_privileges),
            "mkdir /tmp/a 2>&1; trap '' USR2; (kill -10 $$) 2>&1; kill -12 $$ 2>&1; grep ^Seccomp: /proc/self/status",
        );
        assert_eq!(text.matches("No space left on device").count(), 2, "{text}");
        assert!(text.contains("Seccomp:\t2"), "{text}");
    }
}

#[test]
fn a_readonly_root_and_its_writable_mounts() {
    let readonly = |bundle: &mut Bundle| bundle.config["root"]["readonly"] = json!(true);
    let text = output(readonly, "(touch /x) 2>&1; touch /dev/shm/x && echo shm; true");
    assert!(text.contains("Read-only file system") && text.contains("shm"), "{text}");
}

#[test]
fn rlimits_oom_score_umask_and_groups() {
    let set = |bundle: &mut Bundle| {
        let process = &mut bundle.config["process"];
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 111, "soft": 100}]);
        process["oomScoreAdj"] = json!(123);
        process["user"] = json!({"uid": 1000, "gid": 2000, "umask": 7, "additionalGids": [2000, 3000]});
    };
    let text = output(
        set,
        "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask; grep Groups /proc/self/status",
    );
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["100", "111", "123", "0007", "Groups:", "2000", "3000"]
    );
}

#[test]
fn sysctls_and_devices() {
    let set = |bundle: &mut Bundle| {
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678"});
        bundle.config["linux"]["devices"] = json!([{"path": "/dev/mydev", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6}]);
    };
    let text = output(
        set,
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; stat -c '%t:%T %a %u %g' /dev/mydev /dev/null;
         mknod /dev/kmsg2 c 1 11 2>/dev/null; (cat /dev/kmsg2 2>&1 | head -1); readlink /dev/ptmx",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..4], ["1", "12345678", "1:3 600 5 6", "1:3 666 0 0"]);
    assert_eq!(lines.last(), Some(&"pts/ptmx"));
}

/// A stream that is the host's null device is the container's own inside.
#[test]
fn null_streams_are_the_containers_own() {
    let look = "[ \"$(stat -L -c '%d:%i' /proc/self/fd/0)\" = \"$(stat -L -c '%d:%i' /dev/null)\" ] && echo own; \
                stat -L -c %t:%T /proc/self/fd/0";
    assert_eq!(output(|_| {}, look), "own\n1:3\n");
}

/// A process in a user namespace may make no node: they are made for it, whether or not the host has one of that name.
#[test]
fn devices_of_a_user_namespace_are_as_configured() {
    let set = |bundle: &mut Bundle| {
        map_to_nobody(bundle);
        bundle.config["linux"]["devices"] = json!([
            {"path": "/dev/mydev", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6},
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640},
            {"path": "/own/pipe", "type": "p", "fileMode": 0o620, "uid": 70_000},
        ]);
    };
    let text = output(
        set,
        "stat -c '%F %t:%T %a %u %g' /dev/mydev /dev/null /dev/zero; stat -c '%F %a %u %g' /own/pipe
         echo x > /dev/mydev && head -c3 /dev/zero | wc -c; grep -c ' /dev tmpfs' /proc/mounts; ls -A /dev | grep -c '^[0-9]' || true",
    );
    let device = "character special file";
    let zero = std::fs::metadata("/dev/zero").expect("the host's node");
    // Its owner is none of the container's.
    let zero = format!("{device} 1:5 {:o} 65534 65534", std::os::unix::fs::MetadataExt::mode(&zero) & 0o7777);
    let mine = format!("{device} 1:3 600 5 6");
    let null = format!("{device} 1:3 640 0 0");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, [&mine, &null, &zero, "fifo 620 65534 0", "3", "1", "0"]);
}

#[test]
fn a_device_outside_the_list_cannot_be_opened() {
    let allow_mknod = |bundle: &mut Bundle| {
        for set in ["bounding", "effective", "permitted"] {
            bundle.config["process"]["capabilities"][set]
                .as_array_mut()
                .expect("a list")
                .push(json!("CAP_MKNOD"));
        }
        // In /tmp of the root file system: the default /dev is mounted as any other.
        bundle.config["process"]["noNewPrivileges"] = json!(false);
    };
    let text = output(
        allow_mknod,
        "mknod /tmp/kmsg c 1 11 && (head -c1 /tmp/kmsg) 2>&1; mknod /tmp/zero c 1 5 && head -c1 /tmp/zero | wc -c",
    );
    assert!(text.contains("Operation not permitted"), "{text}");
    assert!(text.ends_with("1\n"), "{text}");
}

#[test]
fn an_unknown_capability_is_left_out_with_a_warning() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_OF_TOMORROW", "CAP_KILL"]});
    bundle.config["process"]["args"] = json!(["sleep", "600"]);
    let warning = "unavailable capabilities: CAP_OF_TOMORROW";
    let create = rt.create(&bundle, &id);
    assert!(create.code == 0 && create.stderr.contains(warning), "{create:?}");
    rt.call(&["start", &id]).ok();
    let show = ["sh", "-c", "grep CapBnd /proc/self/status"];
    let exec = rt.call(&[&["exec", "--cap", "CAP_OF_TOMORROW", id.as_str()][..], &show].concat());
    assert!(exec.stderr.contains(warning), "{exec:?}");
    assert_eq!(exec.ok(), "CapBnd:\t0000000000000020\n");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}
