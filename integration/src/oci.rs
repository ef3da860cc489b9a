//! Images for tests: layers given as entries, packed as an OCI layout in one tar, as `docker save` and `ctr images
//! export` write them.

use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::Path;

/// One entry of a layer.
#[derive(Clone, Debug)]
pub enum Entry {
    Folder(&'static str),
    File(&'static str, Vec<u8>),
    Link(&'static str, &'static str),
}

/// Commands of the busybox image, all in /bin.
const APPLETS: [&str; 14] =
    ["sh", "ls", "echo", "sleep", "cat", "ps", "true", "false", "kill", "id", "seq", "touch", "rm", "head"];

/// The layer that holds busybox, from the system's busybox-static.
pub fn busybox() -> Vec<Entry> {
    let binary = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    let binary = binary.expect("busybox is installed (Debian's busybox-static)");
    let mut entries: Vec<_> = ["bin/", "etc/", "tmp/", "proc/", "sys/", "dev/"].map(Entry::Folder).into();
    entries.push(Entry::File("bin/busybox", binary));
    entries.push(Entry::File("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n".to_vec()));
    entries.extend(
        APPLETS.map(|name| Entry::Link(Box::leak(format!("bin/{name}").into_boxed_str()), "busybox")),
    );
    entries
}

pub fn digest(bytes: &[u8]) -> String {
    proto::digest::Digest::from_sha256(&Sha256::digest(bytes).into()).to_string()
}

/// The tar of a layer.
pub fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o755);
        header.set_size(0);
        match entry {
            Entry::Folder(name) => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, name, std::io::empty())
            }
            Entry::File(name, content) => {
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, name, content.as_slice())
            }
            Entry::Link(name, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, name, target)
            }
        }
        .expect("write to memory");
    }
    archive.into_inner().expect("write to memory")
}

/// Writes an image of these layers, first one lowest, to `path`.
pub fn write_image(path: &Path, name: &str, layers: &[Vec<Entry>]) {
    const PREFIX: &str = "application/vnd.oci.image";
    let layers: Vec<Vec<u8>> = layers.iter().map(|entries| layer(entries)).collect();
    let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("{PREFIX}.{kind}"), "digest": digest(bytes), "size": bytes.len()});
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| digest(l)).collect::<Vec<_>>()},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format!("{PREFIX}.manifest.v1+json"),
        "config": descriptor("config.v1+json", &config),
        "layers": layers.iter().map(|l| descriptor("layer.v1.tar", l)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();

    let file = std::fs::File::create(path).expect("create the image");
    let mut archive = tar::Builder::new(file);
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).expect("write the image");
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json", &index);
    // The older form, which docker reads from the same archive.
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", &digest(bytes)["sha256:".len()..]);
    let short = name.trim_start_matches("docker.io/library/");
    let saved = json!([{"Config": blob(&config), "RepoTags": [short], "Layers": layers.iter().map(|l| blob(l)).collect::<Vec<_>>()}]);
    add("manifest.json", saved.to_string().as_bytes());
    for blob in layers.iter().chain([&config, &manifest]) {
        add(&format!("blobs/sha256/{}", &digest(blob)["sha256:".len()..]), blob);
    }
    archive.finish().expect("write the image");
}
