//! Requests to the engine's API, as bytes on its socket.

mod configurations;
mod images;

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
