//! Requests to the engine's API, as bytes on its socket.

use crate::{difference, says};
use integration::bins::subject_is_reference;
use integration::engine::{Engine, IMAGE};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A wrong request and its answer.
struct Row {
    request: String,
    content_type: &'static str,
    body: Vec<u8>,
    status: u16,
    sentence: String,
    /// The original accepts it, at first or altogether.
    ours: bool,
}

impl Row {
    fn new(request: &str, body: impl Into<Vec<u8>>, status: u16, sentence: &str) -> Row {
        let (request, sentence) = (request.to_owned(), sentence.to_owned());
        Row { request, content_type: "application/json", body: body.into(), status, sentence, ours: false }
    }

    fn of_type(mut self, content_type: &'static str) -> Row {
        self.content_type = content_type;
        self
    }

    fn ours(mut self) -> Row {
        self.ours = true;
        self
    }
}

/// Without a body.
fn plain(request: &str, status: u16, sentence: &str) -> Row {
    Row::new(request, "", status, sentence)
}

/// `POST /containers/create` of an image that is there.
fn create(mut config: Value, status: u16, sentence: &str) -> Row {
    config["Image"] = IMAGE.into();
    Row::new("POST /containers/create", config.to_string(), status, sentence)
}

fn host(host: Value, status: u16, sentence: &str) -> Row {
    create(json!({ "HostConfig": host }), status, sentence)
}

fn mount(mount: Value, status: u16, sentence: &str) -> Row {
    host(json!({ "Mounts": [mount] }), status, sentence)
}

fn bind(bind: &str, status: u16, sentence: &str) -> Row {
    host(json!({ "Binds": [bind] }), status, sentence)
}

/// One with containers in every state: created, running, paused, exited, and one with a terminal.
fn engine() -> Option<Engine> {
    let engine = Engine::start()?;
    engine.ok(&["create", "--name", "created", IMAGE, "true"]);
    engine.ok(&["run", "-d", "--name", "running", IMAGE, "sleep", "600"]);
    engine.ok(&["run", "-d", "-t", "--name", "tty", IMAGE, "sleep", "600"]);
    engine.ok(&["run", "-d", "--name", "paused", IMAGE, "sleep", "600"]);
    engine.ok(&["pause", "paused"]);
    engine.docker(&["run", "--name", "exited", IMAGE, "false"]);
    Some(engine)
}

/// Sends every row; each must be answered as it says and leave no trace.
fn check(rows: Vec<Row>) {
    let Some(engine) = engine() else { return };
    let mut wrong = Vec::new();
    let mut before = engine.footprint();
    for row in rows.iter().filter(|row| !(row.ours && subject_is_reference())) {
        let body = String::from_utf8_lossy(&row.body[..row.body.len().min(300)]).into_owned();
        let (status, said) = send(&engine, row);
        let after = settled(&engine, &before);
        if status != row.status || !says(&said, &row.sentence) {
            wrong.push(format!(
                "{} {body}\n  is to say {} {}\n  but says  {status} {said}",
                row.request, row.status, row.sentence
            ));
        }
        let changed = difference(&before, &after);
        // dockerd keeps the layers of a load that it refused later on.
        if !changed.is_empty() && !subject_is_reference() {
            wrong.push(format!("{} {body}\n  has changed {changed:#?}", row.request));
            before = after;
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    engine.assert_nothing_left();
}

/// What a failed request has made may take a moment to be gone.
fn settled(engine: &Engine, before: &BTreeSet<String>) -> BTreeSet<String> {
    for _ in 0..20 {
        let now = engine.footprint();
        if now == *before {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    engine.footprint()
}

fn send(engine: &Engine, row: &Row) -> (u16, String) {
    // What may not stand in a URL as it is.
    let request = row.request.chars().fold(String::new(), |text, letter| match letter {
        '{' | '}' | '[' | ']' | '"' => text + &format!("%{:02X}", letter as u32),
        letter => text + &letter.to_string(),
    });
    let mut head = format!("{request} HTTP/1.1");
    if !row.body.is_empty() || row.content_type != "application/json" {
        head += &format!("\r\nContent-Type: {}", row.content_type);
    }
    let (status, body) = engine.request(&head, &row.body);
    let message = serde_json::from_str::<Value>(&body).ok().and_then(|answer| {
        let message = answer.get("message").or(answer.pointer("/errorDetail/message"))?;
        message.as_str().map(str::to_owned)
    });
    (status, message.unwrap_or_else(|| body.trim_end().to_owned()))
}

#[test]
fn requests_that_are_none() {
    let json = "POST /containers/create";
    let depth = "[".repeat(20_000);
    let large = format!("{{\"Image\":\"{IMAGE}\",\"Env\":[\"A={}\"]}}", "a".repeat(5 << 20));
    let unmarshal = |what: &str| format!("invalid JSON: json: cannot unmarshal {what}");
    check(vec![
        plain("GET /nosuch", 404, "page not found"),
        plain("GET /v1.44/nosuch", 404, "page not found"),
        plain("PUT /containers/json", 404, "page not found"),
        plain("DELETE /version", 404, "page not found"),
        plain("GET /v1.x/info", 404, "page not found"),
        plain(
            "GET /v1.23/info",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
        plain(
            "GET /v1.1.1/info",
            400,
            "client version 1.1.1 is too old. Minimum supported API version is 1.24, *",
        ),
        plain(
            "GET /v1.99/info",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.51",
        ),
        plain("GET /v2/info", 400, "client version 2 is too new. Maximum supported API version is 1.51"),
        plain("GET /containers/%ff/json", 404, "No such container: \u{fffd}"),
        plain("GET /containers/%zz/json", 400, "400 Bad Request"),
        plain("GET /containers/json?all=%zz", 400, "invalid URL escape \"%zz\""),
        plain("GET /containers/json?all=1;b=2", 400, "invalid semicolon separator in query"),
        Row::new(json, "", 400, "invalid JSON: got EOF while reading request body"),
        Row::new(json, "{", 400, "invalid JSON: unexpected EOF"),
        Row::new(json, "xx", 400, "invalid JSON: invalid character 'x' looking for beginning of value"),
        Row::new(json, "{} {}", 400, "unexpected content after JSON"),
        Row::new(json, "null", 400, "config cannot be empty in order to create a container"),
        Row::new(json, "{}", 400, "config cannot be empty in order to create a container"),
        Row::new(json, "[]", 400, &unmarshal("array into Go value of type container.CreateRequest")),
        Row::new(json, "\"x\"", 400, &unmarshal("string into Go value of type container.CreateRequest")),
        Row::new(
            json,
            r#"{"Image":5}"#,
            400,
            &unmarshal("number into Go struct field .Image of type string"),
        ),
        create(
            json!({"HostConfig": []}),
            400,
            &unmarshal("array into Go struct field .HostConfig of type container.HostConfig"),
        ),
        create(json!({"Cmd": {"a": 1}}), 400, &unmarshal("object into Go value of type string")),
        create(
            json!({"Labels": ["a"]}),
            400,
            &unmarshal("array into Go struct field .Labels of type map[string]string"),
        ),
        host(
            json!({"Memory": "x"}),
            400,
            &unmarshal("string into Go struct field .HostConfig.Memory of type int64"),
        ),
        host(
            json!({"Memory": 1.5}),
            400,
            &unmarshal("number 1.5 into Go struct field .HostConfig.Memory of type int64"),
        ),
        Row::new(json, depth.clone(), 400, "invalid JSON: exceeded max depth"),
        Row::new(json, format!("{{\"Image\":{depth}"), 400, "invalid JSON: exceeded max depth"),
        Row::new(json, &b"{\"Image\":\"\xff\xfe\"}"[..], 400, "invalid reference format"),
        Row::new(json, large, 400, "invalid JSON: http: request body too large").ours(),
        create(json!({}), 400, "unsupported Content-Type header (text/plain): must be 'application/json'")
            .of_type("text/plain"),
        create(
            json!({}),
            400,
            "unsupported Content-Type header (application/x-www-form-urlencoded): must be 'application/json'",
        )
        .of_type("application/x-www-form-urlencoded"),
        create(json!({}), 400, "malformed Content-Type header (): mime: no media type").of_type(""),
        create(
            json!({}),
            400,
            "malformed Content-Type header (application/): mime: expected token after slash",
        )
        .of_type("application/"),
        Row::new("POST /containers/running/exec", "{", 400, "invalid JSON: unexpected EOF"),
        Row::new(
            "POST /containers/running/exec",
            r#"{"Cmd":["x"],"Tty":5}"#,
            400,
            &unmarshal("number into Go struct field ExecOptions.Tty of type bool"),
        ),
        Row::new("POST /volumes/create", "{", 400, "invalid JSON: unexpected EOF"),
        Row::new(
            "POST /volumes/create",
            r#"{"Name":5}"#,
            400,
            &unmarshal("number into Go struct field CreateOptions.Name of type string"),
        ),
        Row::new("POST /containers/running/update", "{", 400, "invalid JSON: unexpected EOF"),
    ]);
}

#[test]
fn heads_that_are_none() {
    let Some(engine) = engine() else { return };
    let before = engine.footprint();
    let long = "a".repeat(2 << 20);
    // Go answers 431, we 431 or a closed connection; both live on.
    let (status, _) = engine.request(&format!("GET /info HTTP/1.1\r\nX-Long: {long}"), b"");
    assert!(matches!(status, 0 | 431), "{status}");
    let (status, _) = engine.request(&format!("GET /{long} HTTP/1.1"), b"");
    assert!(matches!(status, 0 | 404 | 414 | 431), "{status}");
    for broken in ["nonsense", "GET /info HTTP/9.9", "GET  HTTP/1.1", "\u{1}\u{2}\u{3}"] {
        let (status, body) = engine.request(broken, b"");
        assert!(matches!(status, 0 | 400 | 505), "{broken}: {status} {body}");
    }
    assert_eq!(difference(&before, &engine.footprint()), [""; 0]);
    engine.ok(&["exec", "running", "true"]);
}

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

#[test]
fn names_and_configurations_that_cannot_be() {
    let named = |name: &str, status, sentence: &str| {
        let body = json!({ "Image": IMAGE }).to_string();
        Row::new(&format!("POST /containers/create?name={name}"), body, status, sentence)
    };
    let platform = |text: &str, status, sentence: &str| {
        let body = json!({ "Image": IMAGE }).to_string();
        Row::new(&format!("POST /containers/create?platform={text}"), body, status, sentence)
    };
    let endpoint = |settings: Value, sentence: &str| {
        let networking = json!({"EndpointsConfig": {"bridge": settings}});
        let body = json!({"NetworkingConfig": networking, "HostConfig": {"NetworkMode": "bridge"}});
        create(body, 400, sentence)
    };
    let taken = "Conflict. The container name \"/created\" is already in use by container \"*\". You have to remove (or rename) that container to be able to reuse that name.";
    let bad_name = "Invalid container name (*), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
    let health = |check: Value, sentence: &str| create(json!({ "Healthcheck": check }), 400, sentence);
    check(vec![
        named("created", 409, taken),
        named("%2fcreated", 409, taken),
        named("-x", 400, bad_name),
        named("a%20b", 400, bad_name),
        named("a%2fb", 400, bad_name),
        named("..", 400, bad_name),
        named("%ff", 400, bad_name),
        create(
            json!({"WorkingDir": "rel"}),
            400,
            "the working directory 'rel' is invalid, it needs to be an absolute path",
        ),
        create(json!({"Env": [""]}), 400, "invalid environment variable: "),
        create(json!({"Env": ["=x"]}), 400, "invalid environment variable: =x"),
        create(json!({"StopSignal": "BOGUS"}), 400, "invalid signal: BOGUS"),
        create(json!({"Entrypoint": [""]}), 400, "no command specified"),
        create(json!({"MacAddress": "x"}), 400, "invalid config for network bridge: invalid MAC address x"),
        health(json!({"Interval": 1}), "Interval in Healthcheck cannot be less than 1ms"),
        health(json!({"Test": ["CMD", "x"], "Timeout": 5}), "Timeout in Healthcheck cannot be less than 1ms"),
        health(json!({"Retries": -1}), "Retries in Healthcheck cannot be negative"),
        platform("bogus", 400, "\"bogus\": unknown operating system or architecture: invalid argument"),
        platform("a/b/c/d", 400, "\"a/b/c/d\": cannot parse platform specifier: invalid argument"),
        platform(
            "linux/",
            400,
            "\"\" is an invalid component of \"linux/\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
        ),
        platform(
            "linux/arm64",
            404,
            "image with reference busybox was found but its platform (linux/amd64) does not match the specified platform (linux/arm64*)",
        ),
        endpoint(json!({"MacAddress": "x"}), "invalid config for network bridge: invalid MAC address x"),
        endpoint(
            json!({"Aliases": ["x"]}),
            "invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks",
        ),
        endpoint(
            json!({"IPAMConfig": {"IPv4Address": "x"}}),
            "invalid config for network bridge: invalid endpoint settings:\n* user specified IP address is supported on user defined networks only\n* invalid IPv4 address: x\n* user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        endpoint(
            json!({"IPAMConfig": {"LinkLocalIPs": ["x"]}}),
            "invalid config for network bridge: invalid endpoint settings:\ninvalid link-local IP address: x",
        ),
        create(json!({"Volumes": {"rel": {}}}), 400, "*'rel' mount path must be absolute").ours(),
        create(json!({"ExposedPorts": {"x": {}}}), 400, "invalid port specification: \"x\"").ours(),
    ]);
}

#[test]
fn host_configurations_that_cannot_be() {
    let policy = |policy: Value, sentence: &str| host(json!({ "RestartPolicy": policy }), 400, sentence);
    let log = |kind: &str, options: Value, sentence: &str| {
        host(json!({"LogConfig": {"Type": kind, "Config": options}}), 400, sentence)
    };
    let ports = |port: &str, binding: Value, sentence: &str| {
        host(json!({ "PortBindings": { port: [binding] } }), 400, sentence)
    };
    let cpus = std::thread::available_parallelism().expect("the number of processors");
    let too_many =
        format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available");
    check(vec![
        host(json!({"Memory": 1000}), 400, "Minimum memory limit allowed is 6MB"),
        host(json!({"Memory": -5}), 400, "Minimum memory limit allowed is 6MB"),
        host(
            json!({"Memory": 6291456, "MemorySwap": 1000}),
            400,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        host(
            json!({"MemorySwap": 10000000}),
            400,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        host(json!({"MemoryReservation": 1000}), 400, "Minimum memory reservation allowed is 6MB"),
        host(
            json!({"Memory": 10000000, "MemoryReservation": 20000000}),
            400,
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        host(
            json!({"MemorySwappiness": 101}),
            400,
            "Invalid value: 101, valid memory swappiness range is 0-100",
        ),
        host(json!({"NanoCpus": 1_000_000_000_000_i64}), 400, &too_many),
        host(json!({"NanoCpus": -1}), 400, &too_many),
        host(
            json!({"NanoCpus": 1_000_000_000, "CpuQuota": 1000}),
            400,
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        host(
            json!({"CpuPeriod": 10}),
            400,
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        host(json!({"CpuQuota": 10}), 400, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        host(json!({"CpuShares": -1}), 400, "invalid CPU shares (-1): value must be a positive integer"),
        host(json!({"CpusetCpus": "x"}), 400, "Invalid value x for cpuset cpus: invalid format: x"),
        host(
            json!({"CpusetCpus": "999"}),
            400,
            "Requested CPUs are not available - requested 999, available: *",
        ),
        host(
            json!({"CpusetMems": "99"}),
            400,
            "Requested memory nodes are not available - requested 99, available: *",
        ),
        host(
            json!({"OomScoreAdj": 1001}),
            400,
            "Invalid value 1001, range for oom score adj is [-1000, 1000]",
        ),
        host(json!({"ShmSize": -1}), 400, "SHM size can not be less than 0"),
        host(json!({"CapAdd": ["BOGUS"]}), 400, "invalid CapAdd: unknown capability: \"CAP_BOGUS\""),
        host(json!({"SecurityOpt": ["bogus"]}), 500, "invalid --security-opt 1: \"bogus\""),
        host(json!({"SecurityOpt": ["bogus=1"]}), 500, "invalid --security-opt 2: \"bogus=1\""),
        host(
            json!({"NetworkMode": "container:"}),
            400,
            "invalid network mode: invalid container format container:<name|id>",
        ),
        host(json!({"PidMode": "bogus"}), 400, "invalid PID mode: bogus"),
        host(json!({"PidMode": "container:"}), 400, "invalid PID mode: container:"),
        host(json!({"PidMode": "container:nosuch"}), 400, "No such container: nosuch"),
        host(json!({"IpcMode": "bogus"}), 400, "invalid IPC mode: bogus"),
        host(json!({"UTSMode": "bogus"}), 400, "invalid UTS mode: bogus"),
        host(json!({"CgroupnsMode": "bogus"}), 400, "invalid cgroup namespace mode: bogus"),
        host(json!({"Isolation": "bogus"}), 400, "invalid isolation (bogus): linux only supports 'default'"),
        host(json!({"Runtime": "nosuch"}), 400, "unknown or invalid runtime name: nosuch"),
        host(json!({"ExtraHosts": ["x"]}), 400, "bad format for add-host: \"x\""),
        host(
            json!({"Annotations": {"": "x"}}),
            400,
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        policy(
            json!({"Name": "bogus"}),
            "invalid restart policy: unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        policy(
            json!({"Name": "always", "MaximumRetryCount": 3}),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        policy(
            json!({"Name": "on-failure", "MaximumRetryCount": -3}),
            "invalid restart policy: maximum retry count cannot be negative",
        ),
        host(
            json!({"RestartPolicy": {"Name": "always"}, "AutoRemove": true}),
            400,
            "can't create 'AutoRemove' container with restart policy",
        ),
        log("nosuch", json!({}), "error looking up logging plugin nosuch: plugin \"nosuch\" not found"),
        log("json-file", json!({"bogus": "1"}), "unknown log opt 'bogus' for json-file log driver"),
        log("json-file", json!({"mode": "x"}), "logger: logging mode not supported: x"),
        ports("x/tcp", json!({}), "invalid port specification: \"x\""),
        ports("99999/tcp", json!({}), "invalid port specification: \"99999\""),
        ports("80-90/tcp", json!({"HostPort": "1-2"}), "invalid port specification: \"80-90\""),
        ports("80/tcp", json!({"HostPort": "99999"}), "invalid port specification: \"99999\""),
        ports("80/tcp", json!({"HostPort": "90-80"}), "invalid port specification: \"90-80\""),
        ports("80/bogus", json!({}), "invalid port specification: \"80/bogus\"").ours(),
        ports("80/tcp", json!({"HostIp": "1.2.3"}), "invalid IP address: 1.2.3").ours(),
        host(json!({"UsernsMode": "bogus"}), 400, "invalid user namespace mode").ours(),
        host(
            json!({"Ulimits": [{"Name": "bogus", "Soft": 1, "Hard": 1}]}),
            400,
            "invalid ulimit type: bogus",
        )
        .ours(),
        host(json!({"Dns": ["x"]}), 400, "bad format for dns server: x").ours(),
    ]);
}

#[test]
fn mounts_that_cannot_be() {
    let config = |kind: &str, sentence: &str| format!("invalid mount config for type \"{kind}\": {sentence}");
    let volume = "includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path";
    let root = "invalid specification: destination can't be '/'";
    check(vec![
        bind("", 500, "invalid volume specification: ''"),
        bind(":/x", 500, "invalid volume specification: ':/x'"),
        bind("/x:", 500, "invalid volume specification: '/x:'"),
        bind("/a:/b:c:d", 500, "invalid volume specification: '/a:/b:c:d'"),
        bind(
            "/a:rel",
            500,
            "invalid volume specification: '/a:rel': invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
        ),
        bind(
            "/a:/",
            500,
            &format!("invalid volume specification: '/a:/': invalid mount config for type \"bind\": {root}"),
        ),
        bind(
            "/a:/../..",
            500,
            &format!(
                "invalid volume specification: '/a:/../..': invalid mount config for type \"bind\": {root}"
            ),
        ),
        bind("/a:/b:bogus", 500, "invalid mode: bogus"),
        bind("/a:/b:ro,rw", 500, "invalid mode: ro,rw"),
        bind("/tmp:/x:rshared,rslave", 500, "invalid mode: rshared,rslave"),
        bind(
            "/tmp:/x:nocopy",
            500,
            "invalid volume specification: '/tmp:/x:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified",
        ),
        bind(
            "vv:/x:rshared",
            500,
            "invalid volume specification: 'vv:/x:rshared': invalid mount config for type \"volume\": field BindOptions must not be specified",
        ),
        bind("a/b:/x", 400, &format!("create a/b: \"a/b\" {volume}")),
        bind("..:/x", 400, &format!("create ..: \"..\" {volume}")),
        bind(
            ".:/x",
            400,
            "create .: volume name is too short, names should be at least two alphanumeric characters",
        ),
        host(json!({"Binds": ["/tmp:/x", "/var:/x/"]}), 400, "Duplicate mount point: /x"),
        host(json!({"Binds": ["/tmp:/x"], "Tmpfs": {"/x": ""}}), 400, "Duplicate mount point: /x"),
        host(json!({"Tmpfs": {"rel": ""}}), 400, "invalid mount path: 'rel' mount path must be absolute"),
        host(json!({"Tmpfs": {"/x": "bogus"}}), 400, "invalid tmpfs option [\"bogus\"]").ours(),
        mount(json!({}), 400, &config("", "field Target must not be empty")),
        mount(json!({"Type": "bogus", "Target": "/x"}), 400, &config("bogus", "mount type unknown")),
        mount(
            json!({"Type": "npipe", "Source": "x", "Target": "/x"}),
            400,
            &config("npipe", "mount type unknown"),
        ),
        mount(
            json!({"Type": "bind", "Target": "/x"}),
            400,
            &config("bind", "field Source must not be empty"),
        ),
        mount(
            json!({"Type": "bind", "Source": "/tmp"}),
            400,
            &config("bind", "field Target must not be empty"),
        ),
        mount(
            json!({"Type": "bind", "Source": "/nosuch", "Target": "/x"}),
            400,
            &config("bind", "bind source path does not exist: /nosuch"),
        ),
        mount(
            json!({"Type": "bind", "Source": "rel", "Target": "/x"}),
            400,
            &config("bind", "invalid mount path: 'rel' mount path must be absolute"),
        ),
        mount(
            json!({"Type": "bind", "Source": "/tmp", "Target": "rel"}),
            400,
            &config("bind", "invalid mount path: 'rel' mount path must be absolute"),
        ),
        mount(json!({"Type": "bind", "Source": "/tmp", "Target": "/"}), 400, &config("bind", root)),
        mount(
            json!({"Type": "bind", "Source": "/tmp", "Target": "/x", "VolumeOptions": {}}),
            400,
            "VolumeOptions must not be specified on mount type \"bind\"",
        ),
        mount(
            json!({"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": {"Propagation": "bogus"}}),
            400,
            &config("bind", "invalid propagation mode: bogus"),
        ),
        mount(
            json!({"Type": "volume", "Source": "a/b", "Target": "/x"}),
            400,
            &format!("create a/b: \"a/b\" {volume}"),
        ),
        mount(
            json!({"Type": "volume", "Target": "rel"}),
            400,
            &config("volume", "invalid mount path: 'rel' mount path must be absolute"),
        ),
        mount(
            json!({"Type": "volume", "Target": "/x", "BindOptions": {}}),
            400,
            "BindOptions must not be specified on mount type \"volume\"",
        ),
        mount(
            json!({"Type": "tmpfs", "Source": "x", "Target": "/x"}),
            400,
            &config("tmpfs", "field Source must not be specified"),
        ),
        mount(
            json!({"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["bogus"]]}}),
            400,
            &config("tmpfs", "invalid option: bogus"),
        ),
        Row::new("POST /volumes/create", r#"{"Name":"a b"}"#, 400, &format!("create a b: \"a b\" {volume}")),
        Row::new(
            "POST /volumes/create",
            r#"{"Name":"x"}"#,
            400,
            "create x: volume name is too short, names should be at least two alphanumeric characters",
        ),
        plain("GET /volumes/nosuch", 404, "get nosuch: no such volume"),
        plain("DELETE /volumes/nosuch", 404, "get nosuch: no such volume"),
        plain("GET /volumes?filters={\"dangling\":[\"x\"]}", 400, "invalid filter 'dangling=[x]'"),
        plain("POST /volumes/prune?filters={\"bogus\":[\"x\"]}", 400, "invalid filter 'bogus'"),
        plain("GET /networks/nosuch", 404, "network nosuch not found"),
        plain("GET /networks?filters={\"bogus\":[\"x\"]}", 400, "invalid filter 'bogus'"),
    ]);
}

#[test]
fn requests_to_containers_that_are_not_there_or_not_so() {
    let missing = "No such container: nosuch";
    let exec = |name: &str, config: Value, status, sentence: &str| {
        Row::new(&format!("POST /containers/{name}/exec"), config.to_string(), status, sentence)
    };
    let update = |config: Value, sentence: &str| {
        Row::new("POST /containers/running/update", config.to_string(), 400, sentence)
    };
    let syntax = "strconv.ParseInt: parsing \"x\": invalid syntax";
    let unreadable_name = "Error when allocating new name: Invalid container name (/a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
    let taken = "Error when allocating new name: Conflict. The container name \"/created\" is already in use by container \"*\". You have to remove (or rename) that container to be able to reuse that name.";
    let mut rows: Vec<Row> = [
        "start",
        "stop",
        "restart",
        "pause",
        "unpause",
        "wait",
        "resize?h=1&w=1",
        "rename?name=x",
        "attach?stream=1&stdout=1",
    ]
    .map(|verb| plain(&format!("POST /containers/nosuch/{verb}"), 404, missing))
    .into();
    rows.extend(
        ["json", "top", "logs?stdout=1"]
            .map(|verb| plain(&format!("GET /containers/nosuch/{verb}"), 404, missing)),
    );
    rows.extend([
        plain("DELETE /containers/nosuch", 404, missing),
        plain("POST /containers/nosuch/kill", 404, "cannot kill container: nosuch: No such container: nosuch"),
        exec("nosuch", json!({"Cmd": ["x"]}), 404, missing),
        Row::new("POST /exec/nosuch/start", "{}", 404, "No such exec instance: nosuch"),
        plain("GET /exec/nosuch/json", 404, "No such exec instance: nosuch"),
        plain("POST /containers/running/start", 304, ""),
        plain("POST /containers/exited/stop", 304, ""),
        plain("POST /containers/exited/kill", 409, "cannot kill container: exited: container * is not running"),
        plain("POST /containers/created/kill", 409, "cannot kill container: created: container * is not running"),
        plain("POST /containers/paused/start", 409, "cannot start a paused container, try unpause instead"),
        plain("POST /containers/paused/pause", 409, "Container * is already paused"),
        plain("POST /containers/running/unpause", 500, "Container * is not paused"),
        plain("POST /containers/exited/pause", 409, "container * is not running"),
        plain("GET /containers/exited/top", 409, "container * is not running"),
        plain("GET /containers/running/top?ps_args=bogus", 500, "ps: error: unsupported option (BSD syntax)"),
        plain("GET /containers/running/top?ps_args=-o%20cmd", 500, "Couldn't find PID field in ps output"),
        plain("POST /containers/paused/attach?stream=1&stdout=1", 409, "container paused is paused, unpause the container before attach"),
        plain("POST /containers/running/attach?detachKeys=bogus", 400, "Invalid detach keys (bogus) provided"),
        exec("exited", json!({"Cmd": ["true"]}), 409, "container * is not running"),
        exec("paused", json!({"Cmd": ["true"]}), 409, "Container paused is paused, unpause the container before exec"),
        exec("running", json!({"Cmd": []}), 400, "No exec command specified"),
        exec("running", json!({}), 400, "No exec command specified"),
        plain("POST /containers/running/exec", 400, "No exec command specified"),
        exec("running", json!({"Cmd": ["x"], "DetachKeys": "bogus"}), 500, "Invalid escape keys (bogus) provided"),
        plain("POST /containers/running/kill?signal=BOGUS", 400, "cannot kill container: running: invalid signal: BOGUS"),
        plain("POST /containers/running/kill?signal=99", 400, "cannot kill container: running: the linux daemon does not support signal 99"),
        plain("POST /containers/running/stop?t=x", 500, "strconv.Atoi: parsing \"x\": invalid syntax"),
        plain("POST /containers/running/stop?signal=BOGUS", 500, "cannot stop container: running: invalid signal: BOGUS"),
        plain("POST /containers/running/restart?signal=BOGUS", 500, "Cannot restart container running: invalid signal: BOGUS"),
        plain("POST /containers/running/resize?h=x&w=1", 400, "invalid resize height \"x\": invalid syntax"),
        plain("POST /containers/running/resize?h=1&w=", 400, "invalid resize width \"\": invalid syntax"),
        plain("POST /containers/tty/resize?h=-1&w=1", 400, "invalid resize height \"-1\": value out of range"),
        plain("POST /containers/tty/resize?h=99999999999&w=1", 400, "invalid resize height \"99999999999\": value out of range"),
        plain("POST /containers/running/rename", 400, "Neither old nor new names may be empty"),
        plain("POST /containers/running/rename?name=running", 400, "Renaming a container with the same name as its current name"),
        plain("POST /containers/running/rename?name=a%20b", 400, unreadable_name),
        plain("POST /containers/running/rename?name=created", 409, taken),
        plain("GET /containers/running/logs", 400, "Bad parameters: you must choose at least one stream"),
        plain("GET /containers/running/logs?stdout=1&since=x", 500, syntax),
        plain("GET /containers/running/logs?stdout=1&until=x", 500, syntax),
        plain("GET /containers/running/logs?stdout=1&since=1.x", 500, syntax),
        plain("GET /containers/running/logs?stdout=1&since=99999999999999999999", 500, "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
        plain("POST /containers/running/wait?condition=bogus", 400, "invalid condition: \"bogus\""),
        Row::new("POST /containers/created/start", r#"{"HostConfig":{}}"#, 400, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"),
        plain("POST /containers/created/start?checkpoint=x", 400, "checkpoint is only supported in experimental mode"),
        update(json!({"Memory": 1000}), "Minimum memory limit allowed is 6MB"),
        update(json!({"RestartPolicy": {"Name": "bogus"}}), "invalid restart policy: unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"),
        plain("DELETE /containers/running", 409, "cannot remove container \"running\": container is running: stop the container before removing or force remove"),
        plain("DELETE /containers/paused", 409, "cannot remove container \"paused\": container is paused and must be unpaused first"),
    ]);
    check(rows);
}

#[test]
fn filters_and_times_that_are_none() {
    let filter = |filter: &str, status, sentence: &str| {
        plain(&format!("GET /containers/json?filters={filter}"), status, sentence)
    };
    check(vec![
        filter("x", 400, "invalid filter"),
        filter("[]", 400, "invalid filter"),
        filter("{\"status\":5}", 400, "invalid filter"),
        filter("{\"status\":[\"exited\"]", 400, "invalid filter"),
        filter("{\"bogus\":[\"x\"]}", 400, "invalid filter 'bogus'"),
        filter(
            "{\"status\":[\"bogus\"]}",
            400,
            "invalid filter 'status=bogus': invalid value for state (bogus): must be one of created, running, paused, restarting, removing, exited, dead",
        ),
        filter(
            "{\"health\":[\"bogus\"]}",
            400,
            "invalid filter 'health=bogus': invalid value for health (bogus): must be one of none, starting, healthy, unhealthy",
        ),
        filter(
            "{\"exited\":[\"x\"]}",
            400,
            "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        filter("{\"is-task\":[\"bogus\"]}", 400, "invalid filter 'is-task=[bogus]'"),
        filter("{\"before\":[\"nosuch\"]}", 404, "No such container: nosuch"),
        filter(
            "{\"publish\":[\"x\"]}",
            500,
            "error while looking up for publish x: strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        filter(
            "{\"expose\":[\"99999\"]}",
            500,
            "error while looking up for expose 99999: strconv.ParseUint: parsing \"99999\": value out of range",
        ),
        plain("GET /containers/json?limit=x", 500, "strconv.Atoi: parsing \"x\": invalid syntax"),
        plain("POST /containers/prune?filters=x", 400, "invalid filter"),
        plain("POST /containers/prune?filters={\"bogus\":[\"x\"]}", 400, "invalid filter 'bogus'"),
        plain(
            "POST /containers/prune?filters={\"until\":[\"x\"]}",
            400,
            "failed to parse value as time or duration: \"x\"",
        ),
        plain("GET /events?since=x", 500, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        plain("GET /events?since=100&until=50", 400, "`since` time (100) cannot be after `until` time (50)"),
        plain("GET /events?filters=x&until=1", 400, "invalid filter"),
    ]);
}
