//! Containers of an ordinary user, as `rung spec --rootless` describes them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::bundle::make_rootfs;
use integration::runtime::{Run, finish, text};
use integration::{bins, leaks};
use serde_json::{Value, json};

/// `nobody`, whom every Debian has.
const USER: u32 = 65534;

/// A directory of the user's with a bundle, a state directory and a copy of the runtime that it can reach.
struct Home {
    dir: tempfile::TempDir,
    id: String,
}

impl Home {
    fn new(name: &str) -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let id = format!("gantry-rootless-{}-{name}", std::process::id());
        fs::copy(bins::runtime(), dir.path().join("rung")).expect("a copy of the runtime");
        make_rootfs(&dir.path().join("b/rootfs"));
        fs::create_dir(dir.path().join("run")).expect("a directory");
        own(dir.path());
        let home = Home { dir, id };
        home.call(&["spec", "--rootless", "--bundle", text(&home.bundle())]).ok();
        home
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("b")
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("config")).expect("JSON");
        config["process"]["terminal"] = json!(false);
        change(&mut config);
        fs::write(&path, config.to_string()).expect("config.json");
    }

    fn script(&self, text: &str) {
        self.configure(|config| config["process"]["args"] = json!(["sh", "-c", text]));
    }

    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        [&user[..], &[text_of(self.dir.path(), "rung")], words].concat()
    }

    fn call(&self, words: &[&str]) -> Run {
        let mut command = Command::new("setpriv");
        command.args(self.words(words)).env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        finish(command)
    }

    fn run(&self) -> Run {
        self.call(&["run", "--bundle", text(&self.bundle()), &self.id])
    }

    fn assert_clean(&self) {
        let found = leaks::find(&[&self.id, text(self.dir.path())]);
        assert!(found.is_empty(), "left behind: {found:#?}");
        let state = self.dir.path().join("run/rung");
        let left = leaks::in_state(&state);
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

fn text_of(dir: &Path, name: &str) -> &'static str {
    Box::leak(text(&dir.join(name)).to_owned().into_boxed_str())
}

fn own(path: &Path) {
    chown(path, Some(USER), Some(USER)).expect("chown");
    if path.is_dir() && !path.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::read_dir(path)
            .expect("a directory")
            .flatten()
            .filter(|e| !e.path().is_symlink())
            .for_each(|e| own(&e.path()));
    }
}

#[test]
fn run_as_an_ordinary_user() {
    let home = Home::new("run");
    home.script("id -u; cat /proc/self/uid_map; touch /tmp/x 2>&1; echo x > /dev/null && echo null; hostname; echo $$; exit 3");
    home.configure(|config| config["root"]["readonly"] = json!(false));
    let run = home.run();
    assert_eq!(run.code, 3, "{run:?}");
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "65534", "1", "null", "rung", "1"], "{run:?}");
    let file = fs::metadata(home.bundle().join("rootfs/tmp/x")).expect("a file made inside");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), USER);
    home.assert_clean();
}

#[test]
fn the_whole_life_as_an_ordinary_user() {
    let home = Home::new("life");
    home.script("exec sleep 600");
    let id = home.id.as_str();
    home.call(&["create", "--bundle", text(&home.bundle()), id]).ok();
    home.call(&["start", id]).ok();
    let state: Value = serde_json::from_str(&home.call(&["state", id]).ok()).expect("JSON");
    assert_eq!(state["status"], "running");
    assert_eq!(home.call(&["exec", id, "sh", "-c", "id -u; readlink /proc/self/ns/pid; exit 4"]).code, 4);
    let own = home.call(&["exec", id, "readlink", "/proc/self/ns/user"]).ok();
    assert_eq!(own, home.call(&["exec", id, "readlink", "/proc/1/ns/user"]).ok());
    home.call(&["exec", "-g", "5", id, "true"]).refused("additionalGids");
    home.call(&["exec", "-u", "5", id, "true"]).refused("maps no such id");
    assert!(home.call(&["list"]).ok().contains("nobody"));
    home.call(&["kill", id, "KILL"]).ok();
    home.call(&["delete", "--force", id]).ok();
    home.assert_clean();
}

#[test]
fn limits_without_a_cgroup_are_refused() {
    let home = Home::new("limits");
    home.configure(|config| {
        config["process"]["args"] = json!(["true"]);
        config["linux"]["resources"] =
            json!({"memory": {"limit": 100_000_000}, "devices": [{"allow": false}]});
    });
    let delegated = fs::read_to_string("/proc/self/cgroup").unwrap_or_default().lines().count() == 1;
    if !delegated {
        home.run().refused("resources.memory needs a cgroup");
    }
    // Rules for devices need none.
    home.configure(|config| config["linux"]["resources"] = json!({"devices": [{"allow": false}]}));
    home.run().ok();
    home.assert_clean();
}

#[test]
fn what_takes_root_says_so() {
    let home = Home::new("root");
    let id = home.id.as_str();
    home.call(&["--rootless=false", "run", "--bundle", text(&home.bundle()), id]).refused("--rootless=false");
    home.configure(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "user");
        config["linux"]["uidMappings"] = json!([]);
        config["linux"]["gidMappings"] = json!([]);
    });
    home.run().refused("rung spec --rootless");
    home.assert_clean();
}

#[test]
fn more_ids_by_the_helpers() {
    if bins::on_path("newuidmap").is_none() {
        eprintln!("skipped: newuidmap (Debian's uidmap) is not installed");
        return;
    }
    let home = Home::new("ids");
    home.script("cat /proc/self/uid_map /proc/self/gid_map; id -G; id -u");
    home.configure(|config| {
        for kind in ["uidMappings", "gidMappings"] {
            config["linux"][kind] = json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 1000}]);
        }
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    });
    home.run().refused("newuidmap");
    // The table that allows it, for this run alone.
    let table = home.dir.path().join("table");
    fs::write(&table, "nobody:300000:1000\n").expect("a file");
    let mut command = Command::new("unshare");
    command.args([
        "-m",
        "sh",
        "-c",
        "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec setpriv \"$@\"",
    ]);
    command.arg(&table).args(home.words(&["run", "--bundle", text(&home.bundle()), &home.id]));
    command.env("XDG_RUNTIME_DIR", home.dir.path().join("run"));
    let out = finish(command).ok();
    let map = ["0", "65534", "1", "1", "300000", "1000"];
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, [&map[..], &map, &["8", "9", "7"]].concat());
    home.assert_clean();
}
