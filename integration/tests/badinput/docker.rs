//! Command lines: the real docker command and ours, both at our engine, end with the same code and say the same.

use crate::{difference, says};
use integration::bins::{self, subject_is_reference};
use integration::engine::{Engine, IMAGE, Ran};
use std::process::{Command, Stdio};

/// Command line, exit code, and what standard error says; `IMAGE` is an image that is there.
type Row = (&'static str, i32, &'static str);

const RUN: &[Row] = &[
    ("run", 1, "*requires at least 1 argument*"),
    ("run IMAGE no-such-program", 127, "*exec: \"no-such-program\": executable file not found in $PATH*"),
    (
        "run IMAGE /no/such/program",
        127,
        "*exec: \"/no/such/program\": stat /no/such/program: no such file or directory*",
    ),
    ("run IMAGE /proc/version", 126, "*exec: \"/proc/version\": permission denied*"),
    ("run IMAGE /etc", 126, "*exec: \"/etc\": *is a directory*"),
    (
        "run -w rel IMAGE true",
        125,
        "*the working directory 'rel' is invalid, it needs to be an absolute path*",
    ),
    ("run -w /etc/passwd IMAGE true", 125, "*not a directory*"),
    ("run --user nosuch IMAGE true", 125, "*unable to find user nosuch: no matching entries in passwd file*"),
    (
        "run --user 1:nosuch IMAGE true",
        125,
        "*unable to find group nosuch: no matching entries in group file*",
    ),
    (
        "run --name taken IMAGE true",
        125,
        "*Conflict. The container name \"/taken\" is already in use by container \"*\". You have to remove (or rename) that container to be able to reuse that name.*",
    ),
    (
        "run --name a+b IMAGE true",
        125,
        "*Invalid container name (a+b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed*",
    ),
    ("run --pull never nosuchimg true", 125, "*No such image: nosuchimg:latest*"),
    ("run 127.0.0.1:9/x:1 true", 125, "*Unable to find image '127.0.0.1:9/x:1' locally*onnection refused*"),
    (
        "run --pull bogus IMAGE true",
        125,
        "*invalid pull option: 'bogus': must be one of \"always\", \"missing\" or \"never\"*",
    ),
    ("run BAD true", 125, "*invalid reference format: repository name (library/BAD) must be lowercase*"),
    ("run --memory 1k IMAGE true", 125, "*Minimum memory limit allowed is 6MB*"),
    (
        "run --memory x IMAGE true",
        125,
        "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'*",
    ),
    (
        "run --cpus 1000 IMAGE true",
        125,
        "*range of CPUs is from 0.01 to *, as there are only * CPUs available*",
    ),
    (
        "run --cpus x IMAGE true",
        125,
        "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number*",
    ),
    ("run --cpu-shares -5 IMAGE true", 125, "*invalid CPU shares (-5): value must be a positive integer*"),
    (
        "run --pids-limit x IMAGE true",
        125,
        "invalid argument \"x\" for \"--pids-limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax*",
    ),
    (
        "run -P=x IMAGE true",
        125,
        "invalid argument \"x\" for \"-P, --publish-all\" flag: strconv.ParseBool: parsing \"x\": invalid syntax*",
    ),
    ("run -p x IMAGE true", 125, "*invalid containerPort: x*"),
    ("run -p 99999:80 IMAGE true", 125, "*invalid hostPort: 99999*"),
    ("run -p 80:80:80:80 IMAGE true", 125, "*invalid IP address: 80:80*"),
    ("run -p 1.2.3:80:80 IMAGE true", 125, "*invalid IP address: 1.2.3*"),
    ("run -p 80:80/bogus IMAGE true", 125, "*invalid proto: bogus*"),
    ("run -v /a:/b:bogus IMAGE true", 125, "*invalid mode: bogus*"),
    ("run -v /a:rel IMAGE true", 125, "*invalid mount path: 'rel' mount path must be absolute*"),
    ("run -v /a:/ IMAGE true", 125, "*invalid specification: destination can't be '/'*"),
    ("run -v /tmp:/x -v /var:/x IMAGE true", 125, "*Duplicate mount point: /x*"),
    (
        "run --mount type=bind,src=/nosuch,dst=/x IMAGE true",
        125,
        "*invalid mount config for type \"bind\": bind source path does not exist: /nosuch*",
    ),
    (
        "run --mount type=bogus,dst=/x IMAGE true",
        125,
        "*invalid mount config for type \"bogus\": mount type unknown*",
    ),
    (
        "run --mount dst IMAGE true",
        125,
        "invalid argument \"dst\" for \"--mount\" flag: invalid field 'dst' must be a key=value pair*",
    ),
    (
        "run --mount type=volume,dst=/y,bogus=1 IMAGE true",
        125,
        "invalid argument \"type=volume,dst=/y,bogus=1\" for \"--mount\" flag: unexpected key 'bogus' in 'bogus=1'*",
    ),
    ("run --tmpfs rel IMAGE true", 125, "*invalid mount path: 'rel' mount path must be absolute*"),
    ("run --network nosuch IMAGE true", 125, "*network nosuch not found*"),
    (
        "run --network container:nosuch IMAGE true",
        125,
        "*joining network namespace of container: No such container: nosuch*",
    ),
    (
        "run --network container:taken IMAGE true",
        125,
        "*cannot join network namespace of a non running container: container taken is created*",
    ),
    (
        "run --restart bogus IMAGE true",
        125,
        "*invalid restart policy: unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'*",
    ),
    ("run --restart on-failure:x IMAGE true", 125, "*maximum retry count must be an integer*"),
    (
        "run --restart always --rm IMAGE true",
        125,
        "*conflicting options: cannot specify both --restart and --rm*",
    ),
    ("run --stop-signal BOGUS IMAGE true", 125, "*invalid signal: BOGUS*"),
    ("run --log-opt bogus=1 IMAGE true", 125, "*unknown log opt 'bogus' for json-file log driver*"),
    ("run --runtime nosuch IMAGE true", 125, "*unknown or invalid runtime name: nosuch*"),
    ("run --cap-add BOGUS IMAGE true", 125, "*invalid CapAdd: unknown capability: \"CAP_BOGUS\"*"),
    (
        "run --ulimit nofile IMAGE true",
        125,
        "invalid argument \"nofile\" for \"--ulimit\" flag: invalid ulimit argument: nofile*",
    ),
    (
        "run --ulimit nofile=5:3 IMAGE true",
        125,
        "invalid argument \"nofile=5:3\" for \"--ulimit\" flag: ulimit soft limit must be less than or equal to hard limit: 5 > 3*",
    ),
    (
        "run --device /dev/nosuch IMAGE true",
        127,
        "*error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory*",
    ),
    ("run --env-file /nosuch IMAGE true", 125, "*open /nosuch: no such file or directory*"),
    (
        "run -e = IMAGE true",
        125,
        "invalid argument \"=\" for \"-e, --env\" flag: invalid environment variable: =*",
    ),
    ("run --mac-address x IMAGE true", 125, "*x is not a valid mac address*"),
    (
        "run --add-host x IMAGE true",
        125,
        "invalid argument \"x\" for \"--add-host\" flag: bad format for add-host: \"x\"*",
    ),
    (
        "run --dns x IMAGE true",
        125,
        "invalid argument \"x\" for \"--dns\" flag: IP address is not correctly formatted: x*",
    ),
    (
        "run --sysctl kernel.bogus=1 IMAGE true",
        125,
        "invalid argument \"kernel.bogus=1\" for \"--sysctl\" flag: sysctl 'kernel.bogus=1' is not allowed*",
    ),
    ("run --pid bogus IMAGE true", 125, "*--pid: invalid PID mode*"),
    ("run --uts bogus IMAGE true", 125, "*--uts: invalid UTS mode*"),
    ("run --userns bogus IMAGE true", 125, "*--userns: invalid USER mode*"),
    ("run --cgroupns bogus IMAGE true", 125, "*--cgroupns: invalid CGROUP mode*"),
    ("run --ipc bogus IMAGE true", 125, "*invalid IPC mode: bogus*"),
    (
        "run --platform bogus IMAGE true",
        125,
        "*\"bogus\": unknown operating system or architecture: invalid argument*",
    ),
    (
        "run --oom-score-adj 5000 IMAGE true",
        125,
        "*Invalid value 5000, range for oom score adj is [-1000, 1000]*",
    ),
    ("run --health-retries -1 --health-cmd x IMAGE true", 125, "*--health-retries cannot be negative*"),
    (
        "run --health-interval 1us --health-cmd x IMAGE true",
        125,
        "*Interval in Healthcheck cannot be less than 1ms*",
    ),
    (
        "run --no-healthcheck --health-cmd x IMAGE true",
        125,
        "*--no-healthcheck conflicts with --health-* options*",
    ),
    (
        "run --cidfile /proc/nosuch/x IMAGE true",
        127,
        "*failed to create the container ID file: open /proc/nosuch/x: no such file or directory*",
    ),
    (
        "run --cidfile /etc/passwd IMAGE true",
        125,
        "*container ID file found, make sure the other container isn't running or delete /etc/passwd*",
    ),
    ("run -d -a stdout IMAGE true", 1, "*conflicting options: cannot specify both --attach and --detach*"),
    ("run -it IMAGE true", 1, "*the input device is not a TTY*"),
    (
        "run --attach bogus IMAGE true",
        125,
        "invalid argument \"bogus\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR*",
    ),
    ("run --no-such-flag IMAGE true", 125, "unknown flag: --no-such-flag*"),
];

const OTHERS: &[Row] = &[
    ("no-such-command", 1, "*unknown command: * no-such-command*"),
    ("ps extra", 1, "*accepts no arguments*"),
    ("rename taken", 1, "*requires 2 arguments*"),
    (
        "rename taken running",
        1,
        "*Error when allocating new name: Conflict. The container name \"/running\" is already in use by container*",
    ),
    (
        "rename taken a+b",
        1,
        "*Error when allocating new name: Invalid container name (/a+b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed*",
    ),
    ("exec running", 1, "*requires at least 2 arguments*"),
    ("exec nosuch true", 1, "*No such container: nosuch*"),
    ("exec taken true", 1, "*container * is not running*"),
    ("exec running no-such-program", 127, "*exec: \"no-such-program\": executable file not found in $PATH*"),
    ("exec running /proc/version", 126, "*exec: \"/proc/version\": permission denied*"),
    ("exec -w /no/such running true", 127, "*/no/such*no such file or directory*"),
    ("exec -u nosuch running true", 1, "*unable to find user nosuch: no matching entries in passwd file*"),
    ("start nosuch", 1, "*No such container: nosuch*"),
    ("stop nosuch", 1, "*No such container: nosuch*"),
    ("kill nosuch", 1, "*cannot kill container: nosuch: No such container: nosuch*"),
    ("kill taken", 1, "*cannot kill container: taken: container * is not running*"),
    ("kill -s BOGUS running", 1, "*invalid signal: BOGUS*"),
    ("pause taken", 1, "*container * is not running*"),
    ("unpause running", 1, "*Container * is not paused*"),
    ("rm nosuch", 1, "*No such container: nosuch*"),
    (
        "rm running",
        1,
        "*cannot remove container \"running\": container is running: stop the container before removing or force remove*",
    ),
    ("logs nosuch", 1, "*No such container: nosuch*"),
    ("logs --since x running", 1, "*\"x\"*"),
    ("top taken", 1, "*container * is not running*"),
    ("wait nosuch", 1, "*No such container: nosuch*"),
    ("attach nosuch", 1, "*No such container: nosuch*"),
    ("inspect nosuch", 1, "*o such object: nosuch*"),
    ("port nosuch", 1, "*No such container: nosuch*"),
    ("update --memory 1k running", 1, "*Minimum memory limit allowed is 6MB*"),
    ("ps --filter bogus=x", 1, "*invalid filter 'bogus'*"),
    (
        "ps --filter status=bogus",
        1,
        "*invalid filter 'status=bogus': invalid value for state (bogus): must be one of created, running, paused, restarting, removing, exited, dead*",
    ),
    ("images --filter bogus=x", 1, "*invalid filter 'bogus'*"),
    ("rmi nosuch", 1, "*No such image: nosuch:latest*"),
    (
        "rmi IMAGE",
        1,
        "*conflict: unable to remove repository reference \"IMAGE\" (must force) - container * is using its referenced image *",
    ),
    ("tag nosuch x", 1, "*No such image: nosuch:latest*"),
    ("tag IMAGE BAD", 1, "*invalid reference format: repository name *must be lowercase*"),
    ("history nosuch", 1, "*No such image: nosuch:latest*"),
    ("save nosuch -o /dev/null", 1, "*"),
    ("load -i /nosuch", 1, "*open /nosuch: no such file or directory*"),
    ("import /nosuch", 1, "*open /nosuch: no such file or directory*"),
    ("load -i /etc/passwd", 1, "*archive/tar: invalid tar header*"),
    ("pull BAD", 1, "*invalid reference format: repository name (library/BAD) must be lowercase*"),
    ("pull 127.0.0.1:9/x:1", 1, "*onnection refused*"),
];

/// The docker command whose sentences these are; an older one, as Debian 12 has it, says much of it in other words.
const DOCKER: u32 = 28;

fn docker_is_new_enough(engine: &Engine) -> bool {
    let version = engine.ok(&["version", "--format", "{{.Client.Version}}"]);
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let is_new = major.is_some_and(|major| major >= DOCKER);
    if !is_new {
        eprintln!("SKIPPED: the rows of docker {DOCKER} with docker {version}; ours are asked all the same");
    }
    is_new
}

/// How both clients are called, and what each is.
fn clients(engine: &Engine, with_docker: bool) -> Vec<(&'static str, Command)> {
    let mut clients = Vec::new();
    if with_docker {
        clients.push(("docker", engine.command(&[])));
    }
    if !subject_is_reference() {
        let mut ours = Command::new("timeout");
        ours.args(["--kill-after=2", "60"]).arg(bins::path("gantry"));
        ours.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
        ours.env("DOCKER_CONFIG", engine.path("config"));
        clients.push(("gantry", ours));
    }
    clients
}

fn check(rows: &[Row]) {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&["create", "--name", "taken", IMAGE, "true"]);
    engine.ok(&["run", "-d", "--name", "running", IMAGE, "sleep", "600"]);
    let before = engine.footprint();
    let with_docker = docker_is_new_enough(&engine);
    let mut wrong = Vec::new();
    for (line, code, sentence) in rows {
        let sentence = sentence.replace("IMAGE", IMAGE);
        for (name, mut client) in clients(&engine, with_docker) {
            let words = line.split(' ').map(|word| if word == "IMAGE" { IMAGE } else { word });
            let output = client.args(words).stdin(Stdio::null()).output().expect("run a client");
            let ran = Ran::from(output);
            // What a process of a container should have said comes on its stream.
            let said = format!("{}{}", ran.stdout, ran.stderr);
            if ran.code != *code || !says(said.trim_end(), &sentence) {
                wrong.push(format!("{name} {line}\n  is to end with {code}: {sentence}\n  but {ran:?}"));
            }
        }
        clear(&engine);
    }
    let changed = difference(&before, &engine.footprint());
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    if !subject_is_reference() {
        assert_eq!(changed, [""; 0]);
    }
    engine.assert_nothing_left();
}

/// A container whose start has failed stays, as created: that is docker's way.
fn clear(engine: &Engine) {
    let all = engine.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
    let names = all.lines().filter_map(|line| line.strip_suffix(" created"));
    for name in names.filter(|name| *name != "taken") {
        engine.ok(&["rm", "-v", name]);
    }
}

#[test]
fn runs_that_cannot_be() {
    check(RUN);
}

#[test]
fn commands_that_cannot_be() {
    check(OTHERS);
}
