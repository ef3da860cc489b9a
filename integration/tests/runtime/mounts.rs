use std::fs;
use std::os::unix::fs::symlink;

use integration::bins;
use integration::bundle::Bundle;
use integration::runtime::{Runtime, text};
use serde_json::json;

#[test]
fn binds_tmpfs_and_their_options() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let source = tempfile::tempdir().expect("a directory");
    fs::write(source.path().join("file"), "content\n").expect("file");
    let mut bundle = Bundle::script(
        "cat /data/file /single; (touch /data/x) 2>&1; touch /rw/new && echo written; grep ' /tmp ' /proc/mounts | cut -d' ' -f4; stat -c %a /made/for/it",
    );
    bundle.add_mount(json!({"destination": "/data", "type": "bind", "source": text(source.path()), "options": ["rbind", "ro"]}));
    bundle.add_mount(json!({"destination": "/single", "type": "bind", "source": text(&source.path().join("file")), "options": ["bind", "ro"]}));
    bundle.add_mount(json!({"destination": "/rw", "type": "bind", "source": text(source.path()), "options": ["bind", "rprivate"]}));
    bundle.add_mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "nosuid", "nodev", "size=64k", "mode=1777"]}));
    bundle.add_mount(
        json!({"destination": "/made/for/it", "type": "tmpfs", "source": "tmpfs", "options": ["mode=711"]}),
    );
    let out = rt.run(&bundle, &id).ok();
    assert!(out.starts_with("content\ncontent\n"), "{out}");
    assert!(out.contains("Read-only file system") && out.contains("written"), "{out}");
    assert!(out.contains("noexec") && out.contains("nosuid") && out.contains("size=64k"), "{out}");
    assert!(out.ends_with("711\n"), "{out}");
    assert!(source.path().join("new").exists());
    rt.assert_clean(&bundle);
}

#[test]
fn a_recursive_readonly_bind_covers_what_is_below() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("(touch /h/shm/x) 2>&1; true");
    bundle.add_mount(
        json!({"destination": "/h", "type": "bind", "source": "/dev", "options": ["rbind", "rro"]}),
    );
    let out = rt.run(&bundle, &id).ok();
    assert!(out.contains("Read-only file system"), "{out}");
    rt.assert_clean(&bundle);
}

/// A directory outside every root, that must stay as it is.
struct Canary(tempfile::TempDir);

impl Canary {
    fn new() -> Canary {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("file"), "untouched").expect("file");
        Canary(dir)
    }

    fn assert_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.0.path()).expect("canary").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["file"], "the canary has more or less than it had");
        assert_eq!(fs::read_to_string(self.0.path().join("file")).expect("file"), "untouched");
    }
}

#[test]
fn links_in_the_image_lead_nowhere_outside() {
    let canary = Canary::new();
    let source = tempfile::tempdir().expect("a directory");
    fs::write(source.path().join("inner"), "").expect("file");
    for (kind, bind_source) in [("tmpfs", None), ("bind", Some(source.path())), ("mqueue", None)] {
        for link in [text(canary.0.path()), "../../../../../../../../tmp", "/dangling/deep"] {
            for destination in ["/link", "/link/sub", "/link/a/b/c"] {
                let mut rt = Runtime::new();
                let id = rt.id();
                let mut bundle = Bundle::script("true");
                symlink(link, bundle.rootfs().join("link")).expect("link");
                let mount = match bind_source {
                    Some(source) => {
                        json!({"destination": destination, "type": "bind", "source": text(source), "options": ["bind"]})
                    }
                    None => json!({"destination": destination, "type": kind, "source": kind}),
                };
                bundle.add_mount(mount);
                // It may work, inside the root, or be refused; the host must not notice either way.
                rt.run(&bundle, &id);
                canary.assert_untouched();
                rt.assert_clean(&bundle);
            }
        }
    }
}

#[test]
fn proc_sys_and_dev_must_be_what_they_seem() {
    if bins::subject_is_reference() {
        return; // runc 1.1 makes devices behind a link at /dev
    }
    let canary = Canary::new();
    for name in ["proc", "sys", "dev"] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let bundle = Bundle::script("true");
        let path = bundle.rootfs().join(name);
        fs::remove_dir(&path).expect("an empty directory");
        symlink(canary.0.path(), &path).expect("link");
        let run = rt.run(&bundle, &id);
        if name != "dev" {
            assert_ne!(run.code, 0, "{name} as a link was accepted");
        }
        canary.assert_untouched();
        rt.assert_clean(&bundle);
    }
}

#[test]
fn nothing_is_mounted_over_the_kernels_files() {
    let source = tempfile::tempdir().expect("a directory");
    for destination in ["/proc", "/proc/self/attr", "/proc/sys/kernel", "/proc/1/fd"] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::script("true");
        bundle.add_mount(json!({"destination": destination, "type": "bind", "source": text(source.path()), "options": ["bind"]}));
        assert_ne!(rt.run(&bundle, &id).code, 0, "{destination}");
        rt.assert_clean(&bundle);
    }
}

#[test]
fn a_directory_of_the_host_is_not_entered_through_a_descriptor() {
    for number in 3..24 {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::script("ls");
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        assert_ne!(rt.run(&bundle, &id).code, 0, "{number}");
        rt.assert_clean(&bundle);
    }
}

#[test]
fn the_host_keeps_its_mounts_and_their_propagation() {
    let mountinfo = || fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let own = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains("/tmp/"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = own(&mountinfo());
    for propagation in ["", "rslave", "shared", "rprivate"] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::script("true");
        if !propagation.is_empty() {
            bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
        }
        rt.run(&bundle, &id).ok();
        rt.assert_clean(&bundle);
    }
    assert_eq!(own(&mountinfo()), before);
}

#[test]
fn the_cgroup_view_shows_the_containers_own_and_is_readonly() {
    if !integration::bundle::machine_limits_pids() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script(
        "cat /sys/fs/cgroup/pids/pids.max; (echo 5 > /sys/fs/cgroup/pids/pids.max) 2>&1; true",
    );
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 21});
    let out = rt.run(&bundle, &id).ok();
    if std::path::Path::new("/sys/fs/cgroup/pids").exists() {
        assert!(out.starts_with("21\n") && out.contains("Read-only"), "{out}");
    }
    rt.assert_clean(&bundle);
}
