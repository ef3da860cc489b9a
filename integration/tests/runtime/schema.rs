//! The runtime-spec's own JSON schema as the list of what a document may say: every property of a Linux container stands
//! in runtime/README.md, is applied or refused by name, and must have its type; what is kept and shown of a document is
//! what was given.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use integration::bundle::Bundle;
use integration::leaks;
use integration::runtime::{Run, Runtime, text};
use integration::spec_schema::{Generator, Property, Schema, merge, read, violations, wrong_values};
use serde_json::{Value, json};

/// Not carried out at all, so that no field of theirs is looked at.
const REFUSED_WHOLE: [&str; 1] = ["linux.intelRdt"];

/// Why no value of a property may be applied: where it stands, and what is said then.
const NOT_APPLIED: [(&str, &str); 9] = [
    // For Windows, or what the README says is refused.
    ("", "is not supported by rung"),
    // AppArmor and SELinux, which the kernel may not have.
    ("", "is disabled or not supported"),
    // This machine's cgroups.
    ("linux.resources", "controller is not available on this machine"),
    ("linux.resources", "cannot be used with cgroup v"),
    ("linux.resources", "no such file or directory"),
    // A disk without a scheduler that knows weights.
    ("linux.resources.blockIO.weightDevice", "operation not supported"),
    // One list alone, as here, is nothing: idmap::a_bind_with_mappings_of_its_own has both.
    ("mounts[]", "needs both uidMappings and gidMappings"),
    // Realtime policies take what a cgroup may lack: unit scheduling.
    ("process.scheduler.priority", "for SCHED_FIFO and SCHED_RR alone"),
    // There is no agent here: handover::a_seccomp_listener_reaches_its_agent has one.
    ("linux.seccomp.listenerMetadata", "listenerPath"),
];

/// Run side by side by as many tests.
const PARTS: usize = 2;

/// Values that the schema's types alone do not give: what the path of a property ends with, and one that can work.
fn hints(id: &str) -> Vec<(&'static str, Value)> {
    let [major, minor] = disk();
    let mapping = json!({"containerID": 0, "hostID": 100_000, "size": 65536});
    let all = integration::bundle::CAPABILITIES;
    let namespaces =
        json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}]);
    vec![
        ("process", json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]})),
        ("linux", json!({"namespaces": namespaces})),
        ("linux.namespaces", namespaces),
        ("ociVersion", json!("1.0.2")),
        ("root.path", json!("rootfs")),
        ("process.args", json!(["true"])),
        ("process.cwd", json!("/tmp")),
        ("process.env", json!(["NAME=value", "PATH=/bin"])),
        ("process.rlimits[]", json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 4096})),
        ("process.rlimits[].type", json!("RLIMIT_CORE")),
        ("process.scheduler", json!({"policy": "SCHED_OTHER"})),
        ("process.ioPriority", json!({"class": "IOPRIO_CLASS_BE"})),
        ("process.execCPUAffinity.initial", json!("0")),
        ("process.execCPUAffinity.final", json!("0")),
        ("process.capabilities.bounding", json!(["CAP_KILL"])),
        ("process.capabilities.permitted", json!(all)),
        ("process.capabilities.effective", json!(["CAP_KILL"])),
        ("process.capabilities.inheritable", json!(["CAP_KILL"])),
        ("process.capabilities.ambient", json!(["CAP_KILL"])),
        ("mounts[]", json!({"destination": "/mnt/sample", "type": "tmpfs", "source": "tmpfs"})),
        ("mounts[].destination", json!("/mnt/elsewhere")),
        ("mounts[].type", json!("tmpfs")),
        ("mounts[].options", json!(["ro"])),
        ("linux.devices[]", json!({"type": "c", "path": "/dev/sample", "major": 1, "minor": 3})),
        ("linux.devices[].type", json!("c")),
        ("linux.devices[].path", json!("/dev/other")),
        ("linux.namespaces[]", json!({"type": "cgroup"})),
        ("linux.namespaces[].path", json!("/proc/self/ns/cgroup")),
        ("linux.cgroupsPath", json!(format!("/{id}"))),
        ("linux.resources.unified", json!({"memory.high": "max"})),
        ("linux.resources.devices[]", json!({"allow": true, "type": "c", "access": "rwm"})),
        ("linux.resources.devices[].type", json!("c")),
        ("linux.resources.devices[].access", json!("rw")),
        ("linux.resources.memory.limit", json!(64 << 20)),
        ("linux.resources.memory.reservation", json!(32 << 20)),
        ("linux.resources.cpu.cpus", json!("0")),
        ("linux.resources.cpu.mems", json!("0")),
        ("linux.resources.hugepageLimits[].pageSize", json!("2MB")),
        ("BpsDevice[]", json!({"major": major, "minor": minor, "rate": 1 << 30})),
        ("IOPSDevice[]", json!({"major": major, "minor": minor, "rate": 1 << 20})),
        ("Device[].major", json!(major)),
        ("Device[].minor", json!(minor)),
        ("linux.uidMappings[]", mapping.clone()),
        ("linux.gidMappings[]", mapping),
        ("Mappings[].containerID", json!(0)),
        ("Mappings[].hostID", json!(100_000)),
        ("Mappings[].size", json!(65536)),
        ("linux.seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"})),
        ("linux.seccomp.syscalls[]", json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"})),
        ("linux.seccomp.syscalls[].names", json!(["mkdir"])),
        ("linux.seccomp.syscalls[].args", json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}])),
        ("linux.seccomp.listenerPath", json!("/no/such/listener")),
        ("linux.sysctl", json!({"net.ipv4.ip_forward": "1"})),
        ("linux.maskedPaths", json!(["/proc/keys"])),
        ("linux.readonlyPaths", json!(["/proc/sys"])),
        ("linux.personality", json!({"domain": "LINUX"})),
        ("linux.intelRdt.memBwSchema", json!("MB:0=50")),
        // A hook, in the host's file system or in the container's.
        ("[].path", json!("/bin/true")),
        ("[].args", json!(["true"])),
        ("[].env", json!(["NAME=value"])),
    ]
}

/// The numbers of some disk.
fn disk() -> [i64; 2] {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let text = fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = text.trim_end().split_once(':')?;
        Some([major.parse().ok()?, minor.parse().ok()?])
    });
    numbers.min().unwrap_or([8, 0])
}

/// What a property needs around it.
fn surroundings(place: &str) -> Value {
    let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let other = match place.split(['.', '[']).nth(1) {
        Some("timeOffsets") => return json!({"linux": {"namespaces": [{"type": "time"}]}}),
        Some("uidMappings") => "gidMappings",
        Some("gidMappings") => "uidMappings",
        _ => return json!({}),
    };
    json!({"linux": {"namespaces": [{"type": "user"}], other: mappings}})
}

fn generator(id: &str) -> Generator {
    Generator { schema: Schema::load().document("config-schema.json"), hints: hints(id) }
}

/// Whether a message names the property or, if that can be told from other words, its value.
fn names(message: &str, property: &Property, value: &Value) -> bool {
    let squeeze = |text: &str| text.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let squeezed = squeeze(message);
    let mut told = match value {
        Value::Array(list) => list.iter().map(|item| squeeze(&item.to_string())).collect(),
        Value::Object(map) => map.keys().map(|key| squeeze(key)).collect(),
        scalar => vec![squeeze(&scalar.to_string())],
    };
    told.retain(|text| text.len() > 3);
    told.extend(value.as_str().map(squeeze));
    let words: Vec<String> = message.split(|c: char| !c.is_ascii_alphanumeric()).map(squeeze).collect();
    words.iter().any(|word| told.contains(word))
        || told.iter().any(|text| text.len() > 3 && squeezed.contains(text))
        || property
            .names()
            .iter()
            .any(|name| words.contains(name) || name.len() > 6 && squeezed.contains(name))
}

/// What is wrong with how a document was taken, if anything.
fn judge(run: &Run, property: &Property, value: &Value, bundle: &Bundle) -> Option<&'static str> {
    let place = property.place();
    let message = run.stderr.replace(text(bundle.path()), "").replace("invalid type", "");
    let whole = REFUSED_WHOLE.iter().find(|whole| place.starts_with(**whole));
    match run.code {
        0 => None,
        1 if message.trim().is_empty() => Some("refused without a word"),
        1 if names(&message, property, value) || whole.is_some_and(|whole| message.contains(whole)) => None,
        1 => Some("neither the field nor its value is named"),
        _ => Some("neither run nor refused"),
    }
}

/// Runs a document; where every system call fails by what is asked for, as far as that lets it.
fn take(rt: &Runtime, bundle: &Bundle, id: &str, property: &Property) -> Run {
    if property.place() != "linux.seccomp.defaultAction" {
        return rt.run(bundle, id);
    }
    let run = rt.create(bundle, id);
    if run.code == 0 {
        rt.call(&["delete", "--force", id]).ok();
    }
    run
}

#[test]
fn every_property_stands_in_the_readme() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/README.md"))
        .expect("README");
    let (fields, _) = readme.split_once("## Commands").expect("fields, then commands");
    // The names of a row's first cell, and of the line above the table of resources for all of its rows.
    let mut rows: Vec<BTreeSet<&str>> = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    for line in fields.lines() {
        let cell =
            if let Some(row) = line.strip_prefix('|') { row.split('|').next().unwrap_or(row) } else { line };
        let quoted = cell.split('`').skip(1).step_by(2).flat_map(|words| words.split('.'));
        if line.starts_with('|') {
            rows.push(quoted.chain(above.iter().copied()).collect());
        } else if line.starts_with('`') {
            above = quoted.collect();
            rows.push(above.iter().copied().collect());
        }
    }
    let stands = |property: &Property| {
        let mut names = property.path.iter().rev().filter(|name| !matches!(name.as_str(), "[]" | "{}"));
        let (name, parent) = (names.next().expect("a name"), names.next());
        rows.iter().any(|row| {
            row.contains(name.as_str()) && parent.is_none_or(|parent| row.contains(parent.as_str()))
        })
    };
    let all = generator("").properties();
    let missing: Vec<String> = all.iter().filter(|property| !stands(property)).map(Property::place).collect();
    assert!(missing.is_empty(), "not in a row of runtime/README.md with what they belong to: {missing:#?}");
}

/// Every `PARTS`th property; each document is that of a container of its own, whose name begins with the test's.
fn apply_or_refuse(part: usize) {
    let mut rt = Runtime::new();
    let prefix = rt.id();
    let generator = generator(&prefix);
    let mut bundle = Bundle::new();
    let config = bundle.config.clone();
    // For a user that is not root, in a user namespace.
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (mut failures, mut documents) = (Vec::new(), Vec::new());
    for property in generator.properties().into_iter().skip(part).step_by(PARTS) {
        let mut is_applied = false;
        let has_reason = |said: &str| {
            let mut reasons = NOT_APPLIED.iter().filter(|(place, _)| property.place().starts_with(place));
            reasons.any(|(_, words)| said.contains(words))
        };
        for value in generator.values(&property) {
            let id = format!("{prefix}.{}.", documents.len());
            documents.push(format!("{} = {value}", property.place()));
            bundle.config = config.clone();
            merge(&mut bundle.config, surroundings(&property.place()));
            generator.put(&mut bundle.config, &property, &value);
            let invalid = violations(&generator.schema, &bundle.config, "");
            assert!(invalid.is_empty(), "the test's own document: {invalid:?}");
            let run = take(&rt, &bundle, &id, &property);
            is_applied |= run.code == 0 || has_reason(&run.stderr);
            let mut wrong = judge(&run, &property, &value, &bundle);
            if rt.root().join(&id).exists() {
                rt.call(&["delete", "--force", &id]);
                wrong = Some("its state is left");
            }
            failures.extend(wrong.map(|wrong| format!("{} = {value}: {wrong}: {run:?}", property.place())));
        }
        if !is_applied {
            failures.push(format!("{}: no value is applied, for no known reason", property.place()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    let left = leaks::find(&[&prefix, text(bundle.path())]);
    let of =
        |line: &String| documents.iter().enumerate().find(|(n, _)| line.contains(&format!("{prefix}.{n}.")));
    assert!(left.is_empty(), "{:#?}", left.iter().map(|line| (line, of(line))).collect::<Vec<_>>());
}

#[test]
fn every_property_is_applied_or_refused_by_name() {
    apply_or_refuse(0);
}

#[test]
fn every_property_is_applied_or_refused_by_name_too() {
    apply_or_refuse(1);
}

#[test]
fn a_value_of_another_type_is_refused_at_its_place() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let generator = generator(&id);
    let bundle = Bundle::new();
    let mut failures = Vec::new();
    for property in generator.properties() {
        let place = property.place();
        // Looked at by nobody, whatever its type.
        if REFUSED_WHOLE.iter().any(|whole| place.starts_with(whole)) {
            continue;
        }
        let written = |value: &Value| {
            let mut config = bundle.config.clone();
            generator.put(&mut config, &property, value);
            serde_json::to_string_pretty(&config).expect("JSON")
        };
        let good = written(&generator.sample(&property.schema, &property.path));
        for value in wrong_values(&property.schema) {
            let bad = written(&value);
            fs::write(bundle.path().join("config.json"), &bad).expect("config.json");
            let run = rt.call(&["create", "--bundle", text(bundle.path()), &id]);
            let line = 1 + good.lines().zip(bad.lines()).take_while(|(good, bad)| good == bad).count();
            let is_placed =
                run.stderr.contains("config.json: ") && run.stderr.contains(&format!(" line {line} "));
            if run.code != 1 || !is_placed || rt.root().join(&id).exists() {
                failures.push(format!("{place} = {value} (line {line}): {run:?}"));
                rt.call(&["delete", "--force", &id]);
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    rt.assert_clean(&bundle);
}

/// A hook of each kind, with every field that the schema knows, that keeps its stdin.
fn hooks(schema: &Value, folder: &Path) -> Value {
    let mut hooks = json!({});
    for kind in schema["properties"]["hooks"]["properties"].as_object().expect("hooks").keys() {
        let file = if kind == "startContainer" { "/state".into() } else { folder.join(kind) };
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "cat > $FILE"], "timeout": 60,
            "env": ["PATH=/usr/bin:/bin", format!("FILE={}", file.display())]});
        hooks[kind] = json!([hook]);
    }
    hooks
}

#[test]
fn what_is_kept_and_shown_is_what_was_given() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let schemas = Schema::load();
    let (config, state) = (schemas.document("config-schema.json"), schemas.document("state-schema.json"));
    let mut bundle = Bundle::with_args(&["sleep", "600"]);
    bundle.config["annotations"] =
        json!({"org.example.plain": "a value", "org.example.odd": "\" \\ ü \n", "": "none"});
    bundle.config["hooks"] = hooks(&config, bundle.path());
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX}]);
    assert_eq!(violations(&config, &bundle.config, ""), [""; 0]);
    rt.create(&bundle, &id).ok();
    let kept = read(&rt.root().join(&id).join("state.json"));
    let shown = |status: &str| {
        let shown = rt.state(&id);
        assert_eq!(violations(&state, &shown, ""), [""; 0], "{shown}");
        assert_eq!((&shown["id"], &shown["status"]), (&json!(id), &json!(status)));
        shown
    };
    let given = bundle.config.clone();
    for document in [&kept, &shown("created")] {
        for field in ["ociVersion", "annotations"] {
            let name = if document.get(field).is_none() { "oci_version" } else { field };
            assert_eq!(document[name], given[field], "{field} of {document}");
        }
        assert_eq!(document["bundle"], json!(bundle.path()), "{document}");
    }
    // The others are over by now.
    for kind in ["poststart", "poststop"] {
        assert_eq!(kept["config"]["hooks"][kind], given["hooks"][kind]);
    }
    assert_eq!(kept["config"]["process_defaults"]["rlimits"], given["process"]["rlimits"]);
    assert_eq!(kept["config"]["rootfs"], json!(bundle.rootfs()));
    let kinds =
        given["linux"]["namespaces"].as_array().expect("a list").iter().map(|one| one["type"].clone());
    assert_eq!(kept["config"]["namespaces"], kinds.collect::<Value>());
    rt.call(&["start", &id]).ok();
    shown("running");
    rt.call(&["kill", &id, "KILL"]).ok();
    rt.await_status(&id, "stopped");
    let last = shown("stopped");
    rt.call(&["delete", &id]).ok();
    for kind in given["hooks"].as_object().expect("hooks").keys() {
        let file =
            if kind == "startContainer" { bundle.rootfs().join("state") } else { bundle.path().join(kind) };
        let told = read(&file);
        assert_eq!(violations(&state, &told, kind), [""; 0], "{told}");
        for field in ["id", "ociVersion", "bundle", "annotations"] {
            assert_eq!(told[field], last[field], "{field} of {kind}: {told}");
        }
    }
    rt.assert_clean(&bundle);
}

#[test]
fn what_is_written_and_claimed_is_of_the_schema() {
    let mut rt = Runtime::new();
    let schemas = Schema::load();
    let schema = schemas.document("config-schema.json");
    for flags in [&[][..], &["--rootless"]] {
        let bundle = Bundle::new();
        rt.call(&[&["spec", "--bundle", text(bundle.path())], flags].concat()).ok();
        let written = read(&bundle.path().join("config.json"));
        assert_eq!(violations(&schema, &written, ""), [""; 0], "spec {flags:?}");
        // And it is taken back.
        let mut taken = Bundle::new();
        taken.config = written;
        taken.config["process"]["terminal"] = json!(false);
        taken.config["process"]["args"] = json!(["true"]);
        let id = rt.id();
        rt.run(&taken, &id).ok();
        rt.assert_clean(&taken);
    }
    // Every value that the schema lists is claimed: where one is not, the documents above were refused.
    let features: Value = serde_json::from_str(&rt.call(&["features"]).ok()).expect("JSON");
    // Debian 12's is from before there was one.
    if schemas.has("features-schema.json") {
        assert_eq!(
            violations(&schemas.document("features-schema.json"), &features, ""),
            [""; 0],
            "{features}"
        );
    }
    let linux = &schema["properties"]["linux"]["properties"];
    let seccomp = &linux["seccomp"]["properties"];
    let rule = &seccomp["syscalls"]["items"]["properties"];
    for (claimed, listed) in [
        ("/linux/namespaces", &linux["namespaces"]["items"]["properties"]["type"]),
        ("/linux/seccomp/actions", &seccomp["defaultAction"]),
        ("/linux/seccomp/actions", &rule["action"]),
        ("/linux/seccomp/operators", &rule["args"]["items"]["properties"]["op"]),
        ("/linux/seccomp/knownFlags", &seccomp["flags"]["items"]),
    ] {
        let claimed = features.pointer(claimed).and_then(Value::as_array).expect(claimed);
        let missing: Vec<_> =
            listed["enum"].as_array().expect("a list").iter().filter(|v| !claimed.contains(v)).collect();
        assert!(missing.is_empty(), "features does not claim {missing:?}");
    }
    let hooks = schema["properties"]["hooks"]["properties"].as_object().expect("hooks");
    assert!(
        hooks.keys().all(|kind| features["hooks"].as_array().is_some_and(|list| list.contains(&json!(kind))))
    );
}
