//! A client's logging program (`binary://`) and log file (`file://`): what reaches it, when it is there, and what its end
//! means to the container.

use integration::containerd_lite::{Daemon, IMAGE, wait_for};
use integration::leaks;
use integration::random::Random;
use integration::task_api::{TaskApi, exec_spec};
use proto::containerd::tasks::tasks_client::TasksClient;
use proto::containerd::tasks::{DeleteProcessRequest, ExecProcessRequest, StartRequest, WaitRequest};
use proto::task::{api, gantry};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const OURS: [&str; 2] = ["--runtime", "io.containerd.gantry.v2"];

/// Writes what it is given, line by line, into a file that the argument `to` names.
const LOGGER: &str = r#"
exec >>"$2/$CONTAINER_ID.log" 2>&1
echo "begin $CONTAINER_NAMESPACE $# $3 $4"
echo >&5
exec 5>&-
while read -r line; do echo "err $line"; done <&4 &
while read -r line; do echo "out $line"; done <&3
wait
echo end
"#;

struct Programs {
    daemon: Daemon,
}

impl Programs {
    fn under(daemon: Daemon) -> Programs {
        daemon.import_image();
        Programs { daemon }
    }

    /// A program's URI.
    fn program(&self, script: &str) -> String {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.daemon.path(&format!("logging program {number}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let folder = self.daemon.path("");
        format!("binary://{}?to={}&k=a+b", path.display().to_string().replace(' ', "%20"), folder.display())
    }

    fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.daemon.path(&format!("{id}.log"))).unwrap_or_default()
    }

    fn run(&self, uri: &str, id: &str, script: &str) -> (Option<i32>, String) {
        let words =
            [&["run", "--rm"], &OURS[..], &["--log-uri", uri, IMAGE, id, "/bin/sh", "-c", script]].concat();
        let output = self.daemon.ctr(&words);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn run_detached(&self, uri: &str, id: &str, script: &str) {
        let words =
            [&["run", "-d"], &OURS[..], &["--log-uri", uri, IMAGE, id, "/bin/sh", "-c", script]].concat();
        self.daemon.ctr_ok(&words);
    }

    fn remove(&self, id: &str) {
        self.daemon.ctr_ok(&["tasks", "rm", "-f", id]);
        self.daemon.ctr_ok(&["containers", "rm", id]);
    }

    fn task(&self, id: &str) -> TaskApi {
        TaskApi::connect(&self.daemon.bundle(id))
    }
}

fn both() -> [Programs; 2] {
    [Programs::under(Daemon::start()), Programs::under(Daemon::original())]
}

#[test]
fn a_program_takes_the_output_of_a_container_and_of_an_exec() {
    for programs in both() {
        let (daemon, namespace) = (&programs.daemon, programs.daemon.namespace());
        let uri = programs.program(LOGGER);
        let ran = programs.run(&uri, "b1", "echo one; echo two; echo three >&2; exit 3");
        assert_eq!(ran, (Some(3), String::new()));
        // The delete has waited for its end. What comes by different pipes has no order.
        let log = programs.log("b1");
        let mut lines: Vec<&str> = log.lines().collect();
        let last = lines.len() - 1;
        lines[1..last].sort();
        let begin = format!("begin {namespace} 4 k a b");
        assert_eq!(lines, [&begin, "err three", "out one", "out two", "end"], "{log}");

        programs.run_detached(&uri, "b2", "sleep 1000");
        let exec =
            ["tasks", "exec", "--exec-id", "e1", "--log-uri", &uri, "b2", "/bin/sh", "-c", "echo in; exit 4"];
        let output = daemon.ctr(&exec);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert_eq!(programs.log("e1"), format!("{begin}\nout in\nend\n"));

        // A file, whose folder is made.
        let file = daemon.path("a folder/file");
        let uri = format!("file://{}", file.display().to_string().replace(' ', "%20"));
        for line in ["one", "two"] {
            assert_eq!(programs.run(&uri, "b3", &format!("echo {line}")), (Some(0), String::new()));
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), "one\ntwo\n");
        programs.remove("b2");
        assert_eq!(programs.log("b2"), format!("{begin}\nend\n"));
        daemon.assert_nothing_left();
    }
}

#[test]
fn a_program_that_cannot_be_started_or_is_not_ready_fails_the_create() {
    for programs in both() {
        let silent = programs.program("exec 5>&-").replace("binary://", "binary-v2://");
        for (uri, want) in [
            ("binary:///none", "failed to start binary process: fork/exec /none: no such file or directory"),
            ("binary://none", "failed to start binary process: exec: no command"),
            ("binary:///etc/passwd", "fork/exec /etc/passwd: permission denied"),
            ("unknown:///none", "stdio scheme \"unknown\""),
            (&silent, "has ended its pipe without a word that it is ready"),
        ] {
            let (code, text) = programs.run(uri, "f1", "true");
            assert!(code == Some(1) && text.contains("failed to create shim task: "), "{uri}: {text}");
            assert!(text.contains(want), "{uri}: {text}");
            assert_eq!(programs.daemon.ctr_ok(&["containers", "ls", "-q"]), "");
        }
        programs.daemon.assert_nothing_left();
    }
}

/// Nothing of the container begins before it is ready; a word is as good as the end of the pipe.
#[test]
fn the_container_waits_for_its_program() {
    let programs = Programs::under(Daemon::start());
    for (index, ready) in ["exec 5>&-", "echo >&5"].into_iter().enumerate() {
        let id = format!("w{index}");
        let go = programs.daemon.path(&format!("go{index}"));
        let wait =
            format!("while [ ! -e {} ]; do sleep 0.01; done; {ready}; cat <&3 >$2/{id}.log", go.display());
        let uri = programs.program(&wait);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| programs.run(&uri, &id, "echo in"));
            wait_for(
                || !programs.daemon.ctr_ok(&["containers", "ls", "-q"]).is_empty(),
                || "no create".to_owned(),
            );
            let waiting = || programs.daemon.processes().iter().any(|(_, line)| line.contains(" -await 3 "));
            wait_for(waiting, || format!("{:?}", programs.daemon.processes()));
            assert!(!programs.daemon.bundle(&id).join("init.pid").exists());
            std::fs::write(&go, "").unwrap();
            assert_eq!(run.join().unwrap(), (Some(0), String::new()));
        });
        assert_eq!(programs.log(&id), "in\n");
    }
    programs.daemon.assert_nothing_left();
}

/// The container neither dies of the end of its program, nor stands still: it writes more than any pipe holds.
#[test]
fn a_program_that_ends_is_not_missed() {
    for programs in both() {
        for end in ["exit 1", "exec 5>&-; read -r line <&3; kill -9 $$"] {
            let uri = programs.program(end);
            let ran = programs.run(&uri, "d1", "seq 1 60000; seq 1 60000 >&2; exit 6");
            assert_eq!(ran, (Some(6), String::new()), "{end}\n{}", programs.daemon.log());
        }
        programs.daemon.assert_nothing_left();
    }
}

/// One that does not end at its end of file is asked to, and then not asked any more.
#[test]
fn a_program_that_stays_is_ended() {
    let programs = Programs::under(Daemon::start());
    for (id, trap, least, most) in
        [("s1", "trap 'echo term >>$2/s1.log; exit' TERM", 2, 6), ("s2", "trap '' TERM", 9, 20)]
    {
        let uri = programs
            .program(&format!("{trap}\nexec 5>&-; cat <&3 >>$2/{id}.log; while :; do sleep 0.1; done"));
        let start = Instant::now();
        assert_eq!(programs.run(&uri, id, "echo in"), (Some(0), String::new()));
        let seconds = start.elapsed().as_secs();
        assert!((least..=most).contains(&seconds), "{id}: {seconds} s");
        assert!(programs.log(id).starts_with("in\n"));
    }
    assert_eq!(programs.log("s1"), "in\nterm\n");
    programs.daemon.assert_nothing_left();
}

/// An upgrade and SIGKILLs of the shim: the same program reads on, and has every line once.
#[test]
fn a_program_outlives_the_shim() {
    let programs = Programs::under(Daemon::start());
    let (daemon, uri) = (&programs.daemon, programs.program(LOGGER));
    let gate = daemon.path("gate");
    std::fs::create_dir(&gate).unwrap();
    let mount = format!("type=bind,src={},dst=/gate,options=rbind:rw", gate.display());
    let script = "i=0; while [ ! -e /gate/end ]; do i=$((i+1)); echo line $i; done; echo last; exit 8";
    let words = ["--mount", &mount, "--log-uri", &uri, IMAGE, "k1", "/bin/sh", "-c", script];
    daemon.ctr_ok(&[&["run", "-d"], &OURS[..], &words[..]].concat());
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()));
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(random.below(80) as u64));
        if round == 2 {
            let request = gantry::UpgradeRequest::default();
            programs.task("k1").control::<gantry::UpgradeResponse>("Upgrade", &request).expect("an upgrade");
            continue;
        }
        TaskApi::kill_and_follow(&daemon.bundle("k1"), || daemon.log());
    }
    std::fs::write(gate.join("end"), "").unwrap();
    let wait = api::WaitRequest { id: "k1".to_owned(), ..Default::default() };
    assert_eq!(programs.task("k1").ok::<api::WaitResponse>("Wait", &wait).exit_status, 8);
    programs.remove("k1");
    let log = programs.log("k1");
    assert_eq!(log.matches("begin").count(), 1, "one program");
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("out line ")).collect();
    assert!(lines.len() > 100, "only {} lines", lines.len());
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("out line {}", index + 1));
    }
    assert!(log.ends_with("out last\nend\n"), "{}", &log[log.len() - 200..]);
    daemon.assert_nothing_left();
}

/// A terminal's output too; its program ends with the shim that is killed, and is started again by the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_program_too() {
    let programs = Programs::under(Daemon::start());
    let (daemon, uri) = (&programs.daemon, programs.program(LOGGER));
    programs.run_detached("file:///dev/null", "t1", "sleep 1000");
    let mut tasks = TasksClient::new(daemon.connect(daemon.headers()).await);
    let go = daemon.bundle("t1").join("rootfs/tmp/go");
    let script = "test -t 1 && echo one; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo two; exit 5";
    for is_killed in [false, true] {
        let _ = std::fs::remove_file(&go);
        let (id, exec_id) = ("t1".to_owned(), format!("e{is_killed}"));
        let request = ExecProcessRequest {
            container_id: id.clone(),
            exec_id: exec_id.clone(),
            terminal: true,
            stdout: uri.clone(),
            spec: Some(exec_spec(script, true)),
            ..Default::default()
        };
        tasks.exec(request).await.unwrap();
        let start = StartRequest { container_id: id.clone(), exec_id: exec_id.clone() };
        tasks.start(start).await.unwrap();
        let begin = format!("begin {} 4 k a b", daemon.namespace());
        let mut want = format!("{begin}\nout one\n");
        let log = || programs.log(&exec_id).replace('\r', "");
        wait_for(|| log() == want, log);
        if is_killed {
            wait_for(|| keeps_a_terminal(daemon.pid()), || "the daemon keeps no terminal".to_owned());
            leaks::kill(programs.task("t1").pid());
            want.push_str(&format!("end\n{begin}\n"));
            wait_for(|| log() == want, log);
        }
        std::fs::write(&go, "").unwrap();
        let wait = WaitRequest { container_id: id.clone(), exec_id: exec_id.clone() };
        assert_eq!(tasks.wait(wait).await.unwrap().into_inner().exit_status, 5);
        let delete = DeleteProcessRequest { container_id: id, exec_id: exec_id.clone() };
        tasks.delete_process(delete).await.unwrap();
        assert_eq!(log(), want + "out two\nend\n");
    }
    programs.remove("t1");
    daemon.assert_nothing_left();
}

fn keeps_a_terminal(pid: u32) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|path| path.ends_with("ptmx"))
}
