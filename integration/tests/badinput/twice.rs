//! The same request from two clients at once, and a second time: one does it, the others are told.

use integration::engine::{Engine, IMAGE};
use serde_json::json;

const CLIENTS: usize = 8;

/// The same request from several clients at once; their answers, sorted by status.
fn at_once(engine: &Engine, request: &str, body: &str) -> Vec<(u16, String)> {
    let head = format!("{request} HTTP/1.1\r\nContent-Type: application/json");
    let start = std::sync::Barrier::new(CLIENTS);
    let mut answers: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    engine.request(&head, body.as_bytes())
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client ends")).collect()
    });
    answers.sort();
    answers
}

/// One succeeds with `good`; all others are told one of `told`.
#[track_caller]
fn one_wins(answers: &[(u16, String)], good: u16, told: &[(u16, &str)]) {
    let (winners, losers): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == good);
    assert_eq!(winners.len(), 1, "{answers:#?}");
    for (status, body) in losers {
        let known = told.iter().any(|(code, part)| status == code && body.contains(part));
        assert!(known, "{status} {body} is none of {told:?}");
    }
}

#[test]
fn one_name_for_many_clients() {
    let Some(engine) = Engine::start() else { return };
    let body = json!({"Image": IMAGE, "Cmd": ["true"]}).to_string();
    for step in 0..5 {
        let name = format!("wanted{step}");
        let answers = at_once(&engine, &format!("POST /containers/create?name={name}"), &body);
        one_wins(&answers, 201, &[(409, "is already in use by container")]);
    }
    assert_eq!(engine.ok(&["ps", "-aq"]).lines().count(), 5);
    engine.assert_nothing_left();
}

#[test]
fn a_life_in_which_everything_is_asked_eight_times() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&["create", "--name", "cc", IMAGE, "sleep", "600"]);
    let ask = |request: &str| at_once(&engine, request, "");
    one_wins(&ask("POST /containers/cc/start"), 204, &[(304, "")]);
    one_wins(&ask("POST /containers/cc/pause"), 204, &[(409, "is already paused")]);
    one_wins(&ask("POST /containers/cc/unpause"), 204, &[(500, "is not paused")]);
    let renamed = [(400, "same name as its current name"), (404, "No such container: cc")];
    one_wins(&ask("POST /containers/cc/rename?name=dd"), 204, &renamed);
    // A stop that found it running waits for its end; those that came later find it stopped.
    for (status, body) in ask("POST /containers/dd/stop?t=0") {
        assert!(matches!(status, 204 | 304), "{status} {body}");
    }
    one_wins(&ask("POST /containers/dd/start"), 204, &[(304, "")]);
    for (status, body) in ask("POST /containers/dd/kill") {
        assert!(status == 204 || (status == 409 && body.contains("is not running")), "{status} {body}");
    }
    engine.wait_inspect("dd", ".State.Status", "exited");
    let (status, body) = engine.request("POST /containers/dd/kill HTTP/1.1", b"");
    assert!(status == 409 && body.contains("is not running"), "{status} {body}");
    let gone = [(404, "No such container: dd"), (409, "removal of container dd is already in progress")];
    one_wins(&ask("DELETE /containers/dd"), 204, &gone);
    let (status, body) = engine.request("DELETE /containers/dd HTTP/1.1", b"");
    assert!(status == 404 && body.contains("No such container: dd"), "{status} {body}");
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    engine.assert_nothing_left();
}

#[test]
fn an_exec_runs_once() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&["run", "-d", "--name", "cc", IMAGE, "sleep", "600"]);
    let body = json!({"Cmd": ["sleep", "1"]}).to_string();
    let head = "POST /containers/cc/exec HTTP/1.1\r\nContent-Type: application/json";
    let (status, answer) = engine.request(head, body.as_bytes());
    assert_eq!(status, 201, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let id = answer["Id"].as_str().expect("an id");
    let answers = at_once(&engine, &format!("POST /exec/{id}/start"), "{\"Detach\":true}");
    one_wins(&answers, 200, &[(409, "is already running"), (409, "has already run")]);
    engine.assert_nothing_left();
}
