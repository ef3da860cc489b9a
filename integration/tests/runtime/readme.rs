//! runtime/README.md says of every field and every flag which test it has: it must be whole, and name no test that is
//! none.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use integration::bins;

fn crate_file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn readme() -> String {
    fs::read_to_string(crate_file("../runtime/README.md")).expect("runtime/README.md")
}

/// The fields of the runtime-spec's structures for Linux.
const FIELDS: &str = "ociVersion process root hostname domainname mounts hooks annotations terminal consoleSize user args \
    commandLine env cwd capabilities rlimits noNewPrivileges apparmorProfile oomScoreAdj scheduler selinuxLabel ioPriority \
    execCPUAffinity initial final policy nice priority flags runtime deadline period bounding effective permitted inheritable \
    ambient class uid gid umask additionalGids username path readonly destination type source options uidMappings gidMappings \
    timeout prestart createRuntime createContainer startContainer poststart poststop sysctl resources cgroupsPath namespaces \
    devices netDevices seccomp rootfsPropagation maskedPaths readonlyPaths mountLabel intelRdt memoryPolicy personality \
    timeOffsets secs nanosecs pageSize limit weight leafWeight weightDevice throttleReadBpsDevice throttleWriteBpsDevice \
    throttleReadIOPSDevice throttleWriteIOPSDevice reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy \
    checkBeforeUpdate shares quota burst realtimeRuntime realtimePeriod cpus mems idle pids classID priorities hcaHandles \
    hcaObjects memory cpu blockIO hugepageLimits network rdma unified fileMode allow access major minor domain defaultAction \
    defaultErrnoRet architectures listenerPath listenerMetadata syscalls mode nodes solaris windows vm zos freebsd";

#[test]
fn every_field_stands_there() {
    let readme = readme();
    let stands = |field: &str| {
        [format!("`{field}`"), format!(".{field}`"), format!("process.{field}`"), format!("linux.{field}`")]
            .iter()
            .any(|text| readme.contains(text.as_str()))
    };
    let missing: Vec<&str> = FIELDS
        .split_whitespace()
        .filter(|field| !stands(field) && !matches!(*field, "resources" | "type"))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert!(!readme.contains("ignored"));
}

#[test]
fn every_command_and_flag_stands_there() {
    let readme = readme();
    let help = |words: &[&str]| {
        let output = std::process::Command::new(bins::path("rung")).args(words).output().expect("rung");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let overview = help(&["--help"]);
    let (_, list) = overview.split_once("Commands:\n").expect("a list of commands");
    let commands: Vec<&str> = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 15, "{overview}");
    let mut flags = BTreeSet::new();
    for command in &commands {
        assert!(readme.contains(&format!("`{command}`")), "{command} is missing");
        flags.extend(flags_of(&help(&[command, "--help"])));
    }
    flags.extend(flags_of(&overview));
    let missing: Vec<&String> = flags.iter().filter(|flag| !readme.contains(&format!("`{flag}`"))).collect();
    assert!(flags.len() > 50 && missing.is_empty(), "missing: {missing:?}");
}

fn flags_of(help: &str) -> Vec<String> {
    let words = help.lines().filter_map(|line| line.trim().split([' ', ',']).next());
    words.filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn every_test_that_is_named_is_one() {
    let readme = readme();
    let mut named = BTreeSet::new();
    for word in readme.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':') {
        if let Some((file, test)) = word.split_once("::") {
            named.insert((file.to_owned(), test.to_owned()));
        }
    }
    assert!(named.len() > 50, "only {} tests are named", named.len());
    named.remove(&("file".to_owned(), "test".to_owned()));
    for (file, test) in named {
        let path = crate_file(&format!("tests/runtime/{file}.rs"));
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(source.contains(&format!("fn {test}()")), "{file}::{test} is no test");
    }
}
