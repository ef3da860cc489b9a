//! Images that are not there, and archives that are none or lead out of their root.

use super::*;

#[test]
fn images_that_are_not_there() {
    let of = |image: &str, status, sentence: &str| {
        Row::new("POST /containers/create", json!({ "Image": image }).to_string(), status, sentence)
    };
    let long = "a".repeat(300);
    let id = "a".repeat(64);
    let upper = "invalid reference format: repository name (library/BAD) must be lowercase";
    check(vec![
        of("nosuchimg", 404, "No such image: nosuchimg:latest"),
        of("localhost:9/x:y", 404, "No such image: localhost:9/x:y"),
        of("BAD", 400, upper),
        of("a b", 400, "invalid reference format"),
        of("busybox:", 400, "invalid reference format"),
        of("busybox@sha256:12", 400, "invalid reference format"),
        of("x/../y", 400, "invalid reference format"),
        of("-x", 400, "invalid reference format"),
        of(&id, 404, &format!("No such image: sha256:{id}")),
        of(&long, 400, "repository name must not be more than 255 characters"),
        plain("GET /images/nosuch/json", 404, "No such image: nosuch:latest"),
        plain("GET /images/BAD/json", 400, upper),
        plain("GET /images/nosuch/history", 404, "No such image: nosuch:latest"),
        plain("DELETE /images/nosuch", 404, "No such image: nosuch:latest"),
        plain("DELETE /images/BAD", 400, upper),
        plain(
            "DELETE /images/busybox",
            409,
            "conflict: unable to remove repository reference \"busybox\" (must force) - container * is using its referenced image *",
        ),
        plain("POST /images/nosuch/tag?repo=a", 404, "No such image: nosuch:latest"),
        plain("POST /images/busybox/tag?repo=BAD", 400, upper),
        plain("POST /images/busybox/tag?repo=a&tag=b%20c", 400, "invalid tag format"),
        plain(&format!("POST /images/busybox/tag?repo=a@sha256:{id}"), 400, "cannot import digest reference"),
        plain(
            "POST /images/busybox/tag?repo=sha256",
            400,
            "refusing to create an ambiguous tag using digest algorithm as name",
        ),
        plain("POST /images/create?fromImage=BAD", 400, upper),
        plain("POST /images/create?fromImage=busybox&tag=a%20b", 400, "invalid tag format"),
        plain("POST /images/create?fromImage=127.0.0.1:9/x&tag=sha256:12", 400, "invalid tag format"),
        plain(
            "POST /images/create?fromImage=127.0.0.1:9/x&tag=y",
            500,
            "Get \"http://127.0.0.1:9/v2/*onnection refused*",
        ),
        plain(
            "POST /images/create?fromImage=127.0.0.1:9/x&tag=y&platform=a/b/c/d",
            400,
            "\"a/b/c/d\": cannot parse platform specifier: invalid argument",
        ),
        plain("GET /images/get?names=nosuch", 404, "No such image: nosuch*"),
        plain("GET /images/json?filters={\"bogus\":[\"x\"]}", 400, "invalid filter 'bogus'"),
        plain("GET /images/json?filters={\"dangling\":[\"x\"]}", 400, "invalid filter 'dangling=[x]'"),
        plain("GET /images/json?filters={\"before\":[\"nosuch\"]}", 404, "No such image: nosuch:latest"),
        plain("POST /images/prune?filters={\"dangling\":[\"x\"]}", 400, "invalid filter 'dangling=[x]'"),
    ]);
}

/// A tar of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        // The crate's own setter refuses names that lead out.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, *content).expect("write to memory");
    }
    archive.into_inner().expect("write to memory")
}

/// An archive as docker writes it, of one layer.
fn saved(layer: &[u8], diff_id: &str, name: &str) -> Vec<u8> {
    let manifest = json!([{"Config": "c.json", "RepoTags": [name], "Layers": ["l"]}]).to_string();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let config = config.to_string();
    tar(&[("manifest.json", manifest.as_bytes()), ("c.json", config.as_bytes()), ("l", layer)])
}

#[test]
fn archives_that_are_none_and_those_that_lead_out() {
    let load = |body: Vec<u8>, sentence: &str| {
        Row::new("POST /images/load?quiet=1", body, 200, sentence).of_type("application/x-tar")
    };
    let import = |query: &str, body: &[u8], status, sentence: &str| {
        let request = format!("POST /images/create?fromSrc=-{query}");
        Row::new(&request, body, status, sentence).of_type("application/x-tar")
    };
    let canary = "../".repeat(8) + "tmp/gantry-badinput-escape";
    let digest = |layer: &[u8]| integration::oci::digest(layer);
    let escaping = tar(&[(&canary, b"x")]);
    let layer = tar(&[("a", b"b")]);
    let wrong_id = format!("sha256:{}", "a".repeat(64));
    let no_config = br#"[{"Config":"nosuch.json","RepoTags":["a:b"],"Layers":[]}]"#;
    let no_rootfs = br#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":[]}]"#;
    let upper = "invalid reference format: repository name (library/BAD) must be lowercase";
    check(vec![
        load(b"x".to_vec(), "unexpected EOF"),
        load(vec![b'x'; 2000], "archive/tar: invalid tar header"),
        load(b"\x1f\x8bgarbage".to_vec(), "unexpected EOF"),
        load(tar(&[("manifest.json", b"{")]), "unexpected EOF"),
        load(tar(&[("manifest.json", no_config)]), "open *nosuch.json: no such file or directory"),
        load(tar(&[("manifest.json", no_rootfs), ("c.json", b"{}")]), "invalid image JSON, no RootFS key"),
        load(saved(&layer, &digest(&layer), "BAD"), upper),
        load(saved(&layer, &wrong_id, "wrong:1"), "invalid diffID for layer *: expected \"*\", got \"*\""),
        load(saved(&[b'x'; 2000], &digest(&[b'x'; 2000]), "none:1"), "*archive/tar: invalid tar header*"),
        load(escaping.clone(), &format!("invalid entry name \"{canary}\"")),
        load(saved(&escaping, &digest(&escaping), "escape:1"), &format!("*{canary}*")),
        load(tar(&[("x", b"y")]), "*"),
        load(Vec::new(), "*"),
        import("&repo=BAD", b"x", 400, upper),
        import("&repo=ok&tag=b%20c", b"x", 400, "invalid tag format"),
        import(&format!("&repo=a@{wrong_id}"), b"x", 400, "cannot import digest reference"),
        import("&repo=ok", b"notatar", 500, "unexpected EOF"),
        import("&repo=ok&changes=BOGUS%20x", b"x", 400, "BOGUS is not a valid change command"),
        import("&repo=ok&changes=EXPOSE%20x", b"x", 400, "Invalid containerPort: x"),
        import("&repo=ok&changes=ENV", b"x", 400, "ENV requires at least one argument"),
        import("&repo=ok&changes=WORKDIR", b"x", 400, "WORKDIR requires exactly one argument"),
        import(
            "&platform=a/b/c/d",
            b"x",
            400,
            "\"a/b/c/d\": cannot parse platform specifier: invalid argument",
        ),
        import("&repo=escape", &escaping, 400, &format!("*{canary}*")).ours(),
    ]);
    assert!(!std::path::Path::new("/tmp/gantry-badinput-escape").exists());
}
