//! Mounts whose files appear under other owners.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use integration::bundle::Bundle;
use integration::runtime::{Runtime, text};
use serde_json::{Value, json};

fn user_namespace(bundle: &mut Bundle) {
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    for kind in ["uidMappings", "gidMappings"] {
        linux[kind] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    }
    chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown");
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
}

fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("file"), "").expect("a file");
    chown(dir.path().join("file"), Some(1000), Some(1001)).expect("chown");
    chown(dir.path(), Some(1000), Some(1001)).expect("chown");
    dir
}

fn mapping(inside: u32, outside: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": 1}])
}

#[test]
fn a_bind_with_mappings_of_its_own() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let dir = source();
    let mut bundle =
        Bundle::script("stat -c '%u %g' /data/file; echo > /data/new; stat -c '%u %g' /plain/file");
    bundle.add_mount(
        json!({"destination": "/data", "type": "bind", "source": text(dir.path()), "options": ["bind"],
        "uidMappings": mapping(1000, 0), "gidMappings": mapping(1001, 0)}),
    );
    bundle.add_mount(
        json!({"destination": "/plain", "type": "bind", "source": text(dir.path()), "options": ["bind"]}),
    );
    assert_eq!(rt.run(&bundle, &id).ok(), "0 0\n1000 1001\n");
    let new = fs::metadata(dir.path().join("new")).expect("a file made inside");
    assert_eq!((new.uid(), new.gid()), (1000, 1001));
    rt.assert_clean(&bundle);
}

#[test]
fn a_bind_that_takes_the_containers_mappings() {
    for option in ["idmap", "ridmap"] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let dir = source();
        let mut bundle = Bundle::script("id -u; stat -c '%u %g' /data/file; stat -c '%u %g' /plain/file");
        user_namespace(&mut bundle);
        bundle.add_mount(json!({"destination": "/data", "type": "bind", "source": text(dir.path()), "options": ["rbind", option]}));
        bundle.add_mount(
            json!({"destination": "/plain", "type": "bind", "source": text(dir.path()), "options": ["bind"]}),
        );
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(rt.run(&bundle, &id).ok(), "0\n1000 1001\n65534 65534\n", "{option}");
        rt.assert_clean(&bundle);
    }
}

#[test]
fn a_user_namespace_binds_what_only_its_maker_can_reach() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let dir = tempfile::tempdir().expect("a directory that only root may enter");
    fs::create_dir(dir.path().join("shared")).expect("a directory");
    fs::write(dir.path().join("shared/file"), "content\n").expect("a file");
    let mut bundle = Bundle::script("cat /data/file; grep ' /data ' /proc/self/mountinfo | grep -c shared:");
    user_namespace(&mut bundle);
    bundle.add_mount(json!({"destination": "/data", "type": "bind", "source": text(&dir.path().join("shared")), "options": ["rbind", "ro"]}));
    let run = rt.run(&bundle, &id);
    assert_eq!(run.stdout, "content\n0\n", "{run:?}");
    rt.assert_clean(&bundle);
}

#[test]
fn refusals_name_the_mount() {
    for (mount, part) in [
        (
            json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["bind", "idmap"]}),
            "/x needs mappings",
        ),
        (
            json!({"destination": "/x", "type": "tmpfs", "uidMappings": mapping(0, 0), "gidMappings": mapping(0, 0)}),
            "not a bind",
        ),
        (
            json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["bind"], "uidMappings": mapping(0, 0)}),
            "gidMappings",
        ),
        (
            json!({"destination": "/x", "type": "bind", "source": "/proc", "options": ["bind"], "uidMappings": mapping(0, 0), "gidMappings": mapping(0, 0)}),
            "/x",
        ),
    ] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::new();
        bundle.add_mount(mount);
        rt.create(&bundle, &id).refused(part);
        rt.assert_clean(&bundle);
    }
}
