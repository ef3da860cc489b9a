//! Containers that cannot be: names, configurations, host configurations, mounts.

use super::*;

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
    let wrong_log = |reason: &str| format!("failed to initialize logging driver: {reason}");
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
        log(
            "local",
            json!({"max-buffer-size": "1m"}),
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        log(
            "json-file",
            json!({"mode": "non-blocking", "max-buffer-size": "x"}),
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        log(
            "json-file",
            json!({"mode": "non-blocking", "max-buffer-size": "-1m"}),
            "error parsing option max-buffer-size: invalid size: '-1m'",
        ),
        log("local", json!({"tag": "x"}), "unknown log opt 'tag' for log driver local"),
        // The original says so at the start only.
        log(
            "local",
            json!({"max-size": "x"}),
            &wrong_log("invalid value for max-size: x: invalid size: 'x'"),
        )
        .ours(),
        log("local", json!({"max-size": "0"}), &wrong_log("max size should be a positive number")).ours(),
        log(
            "local",
            json!({"max-file": "x"}),
            &wrong_log("invalid value for max-file: x: strconv.Atoi: parsing \"x\": invalid syntax"),
        )
        .ours(),
        log("local", json!({"max-file": "-1"}), &wrong_log("max file count cannot be less than 0")).ours(),
        log(
            "local",
            json!({"compress": "x"}),
            &wrong_log("invalid value for compress: x: strconv.ParseBool: parsing \"x\": invalid syntax"),
        )
        .ours(),
        log(
            "local",
            json!({"max-file": "1"}),
            &wrong_log("compression cannot be enabled when max file count is 1"),
        )
        .ours(),
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
