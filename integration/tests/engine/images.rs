//! Images: load, tag, save, import, history, and a registry on loopback.

use super::{Engine, IMAGE};
use integration::bins;
use integration::containerd_lite::wait_for;
use std::process::{Child, Command, Stdio};

#[test]
fn local_images() {
    let Some(engine) = Engine::start() else { return };
    let id = engine.ok(&["images", "-q", "--no-trunc", IMAGE]);
    engine.ok(&["tag", IMAGE, "other:v1"]);
    assert_eq!(engine.ok(&["images", "-q", "--no-trunc", "other"]), id);
    let saved = engine.path("saved.tar");
    let saved = saved.to_str().unwrap();
    engine.ok(&["save", "-o", saved, "other:v1"]);
    engine.ok(&["rmi", "other:v1"]);
    engine.docker(&["inspect", "other:v1"]).fails(1, "o such object: other:v1");
    assert!(engine.ok(&["load", "-i", saved]).contains("Loaded image: other:v1"));
    assert_eq!(engine.ok(&["images", "-q", "--no-trunc", "other"]), id);
    engine.ok(&["create", "--name", "user", IMAGE]);
    engine.ok(&["rmi", "other:v1"]);
    engine
        .docker(&["rmi", IMAGE])
        .fails(1, "conflict: unable to remove repository reference \"busybox\" (must force)");
    let layer = engine.path("layer.tar");
    std::fs::write(&layer, integration::oci::layer(&integration::oci::busybox())).unwrap();
    engine.ok(&["import", layer.to_str().unwrap(), "imported:v2"]);
    assert_eq!(engine.ok(&["history", "--format", "{{.Comment}}", "imported:v2"]), "Imported from -");
    assert_eq!(engine.ok(&["run", "--rm", "imported:v2", "/bin/echo", "yes"]), "yes");
    engine.assert_nothing_left();
}

struct Registry(Child);

impl Registry {
    /// One in the daemon's network namespace.
    fn start(engine: &Engine, port: u16, auth: bool) -> Option<Registry> {
        let Some(program) = bins::on_path("docker-registry") else {
            eprintln!("SKIPPED: docker-registry is not installed");
            return None;
        };
        let store = engine.path(&format!("registry{port}"));
        let config = engine.path(&format!("registry{port}.yml"));
        let mut text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            store.display()
        );
        if auth {
            let users = engine.path("htpasswd");
            // "pw" by bcrypt.
            std::fs::write(&users, "u:$2b$04$xlnfChH6hCHZPHev6fW2wuWzY0.2YTKZNdQdAVf.Oyr9IB269idL6\n")
                .unwrap();
            text += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display());
        }
        std::fs::write(&config, text).unwrap();
        let mut command = engine.in_netns();
        command.arg(program).arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry(command.spawn().unwrap());
        wait_for(
            || {
                let mut nc = engine.in_netns();
                nc.args(["timeout", "2", "busybox", "nc", "127.0.0.1", &port.to_string()]);
                nc.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
            },
            || "the registry does not listen".to_owned(),
        );
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies the test's image there with skopeo.
fn fill(engine: &Engine, port: u16, credentials: &[&str]) -> bool {
    let Some(skopeo) = bins::on_path("skopeo") else {
        eprintln!("SKIPPED: skopeo is not installed");
        return false;
    };
    let mut copy: Command = engine.in_netns();
    copy.args(["timeout", "60"]).arg(skopeo).args([
        "copy",
        "-q",
        "--insecure-policy",
        "--dest-tls-verify=false",
    ]);
    copy.args(credentials).arg(format!("oci-archive:{}", engine.path("image.tar").display()));
    copy.arg(format!("docker://127.0.0.1:{port}/me/box:v1"));
    let output = copy.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn pull() {
    let Some(engine) = Engine::start() else { return };
    let Some(registry) = Registry::start(&engine, 5000, false) else { return };
    if !fill(&engine, 5000, &[]) {
        return;
    }
    let name = "127.0.0.1:5000/me/box:v1";
    assert!(
        engine.ok(&["pull", name]).contains("Status: Downloaded newer image for 127.0.0.1:5000/me/box:v1")
    );
    assert!(engine.ok(&["pull", name]).contains("Status: Image is up to date"));
    assert_eq!(engine.ok(&["run", "--rm", name, "echo", "pulled"]), "pulled");
    engine.docker(&["pull", "127.0.0.1:5000/me/nosuch"]).fails(1, "manifest unknown");
    drop(registry);
    engine.assert_nothing_left();
}

#[test]
fn pull_with_credentials() {
    let Some(engine) = Engine::start() else { return };
    let Some(registry) = Registry::start(&engine, 5001, true) else { return };
    if !fill(&engine, 5001, &["--dest-creds", "u:pw"]) {
        return;
    }
    let name = "127.0.0.1:5001/me/box:v1";
    engine.docker(&["pull", name]).fails(1, "no basic auth credentials");
    // What `docker login` would write.
    std::fs::create_dir_all(engine.path("config")).unwrap();
    std::fs::write(
        engine.path("config").join("config.json"),
        r#"{"auths":{"127.0.0.1:5001":{"auth":"dTpwdw=="}}}"#,
    )
    .unwrap();
    engine.ok(&["pull", name]);
    assert_eq!(engine.ok(&["run", "--rm", name, "echo", "pulled"]), "pulled");
    drop(registry);
    engine.assert_nothing_left();
}
