//! Our programs against libseccomp's, by interpreting both: an engine's default profile and a thousand random ones,
//! every system call, arguments around the values of the rules.
//!
//! libseccomp 2.5.4 is itself wrong at times: it merges rules for one call whose conditions are of several kinds (with
//! a0 < 1 and a0 <= 2^32 it refuses 22), and one call's branch can be taken for another's (EQ 0 and EQ 2 on kill next
//! to rules for munlockall and sigprocmask). So a plain reading of the rules is the third voice: ours must always agree
//! with it, libseccomp's in nearly every case.
//!
//! Where the two differ on purpose, and what is therefore not compared:
//! - A foreign architecture: libseccomp ends the thread, we the process.
//! - Numbers above the highest of the profile: a refusing filter of ours says ENOSYS, as runc makes libseccomp's.
//! - Numbers that x32 alone has (512 and above) on x86-64, and on x32 those that x86-64 alone has: one tree
//!   serves both, and the kernel has no such call.
//! - Upper halves of arguments and values on x32 and x86: libseccomp looks at the lower ones alone.
//! - `socketcall` and `ipc` for rules with conditions: libseccomp compares the condition with the wrong arguments;
//!   the version in the upper half of ipc's first argument, which libseccomp does not take away.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use super::tests::{Call, engine_profile, interpret};
use super::*;

const PROFILES: usize = 1000;

struct Oracle {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    x32: Vec<u32>,
    _dir: Scratch,
}

struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Oracle {
    /// None, with a word about it, where there is no C compiler or no libseccomp.
    fn build() -> Option<Oracle> {
        let dir = std::env::temp_dir().join(format!("rung-oracle-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let dir = Scratch(dir);
        std::fs::write(dir.0.join("oracle.c"), include_str!("oracle.c")).expect("a file");
        let mut compiler = Command::new("cc");
        compiler.current_dir(&dir.0).args(["-o", "oracle", "oracle.c", "-l:libseccomp.so.2"]);
        if !compiler.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: no C compiler, or libseccomp.so.2 is not installed");
            return None;
        }
        let mut command = Command::new(dir.0.join("oracle"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the oracle starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Some(Oracle { child, output, x32: Vec::new(), _dir: dir })
    }

    /// Of x32 it also says the number, if there is one.
    fn knows(&mut self, name: &str) -> bool {
        writeln!(self.child.stdin.as_mut().expect("piped"), "N {name}").expect("the oracle reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        let (known, x32) = line.trim().split_once(' ').expect("two numbers");
        if let Ok(number @ 0..) = x32.parse::<i32>() {
            self.x32.push(number as u32 & !X32_BIT);
        }
        known == "1"
    }

    fn compile(&mut self, seccomp: &Seccomp) -> Program {
        let action = |name: &str, errno| super::action(name, errno).expect("known");
        let mut text = format!("P {}", action(&seccomp.default_action, seccomp.default_errno_ret));
        for arch in &seccomp.architectures {
            // libseccomp tells x32 from x86-64 by a bit missing.
            let token = match Arch::from_name(arch).expect("known") {
                Arch::X32 => 0x4000_003e,
                arch => arch.audit(),
            };
            text += &format!(" {token}");
        }
        text.push('\n');
        for rule in &seccomp.syscalls {
            let action = action(&rule.action, rule.errno_ret);
            if action == super::action(&seccomp.default_action, seccomp.default_errno_ret).expect("known") {
                continue;
            }
            for name in &rule.names {
                text += &format!("R {action} {name} {}", rule.args.len());
                for a in &rule.args {
                    let op = match a.op.as_str() {
                        "SCMP_CMP_NE" => 1,
                        "SCMP_CMP_LT" => 2,
                        "SCMP_CMP_LE" => 3,
                        "SCMP_CMP_EQ" => 4,
                        "SCMP_CMP_GE" => 5,
                        "SCMP_CMP_GT" => 6,
                        _ => 7,
                    };
                    text += &format!(" {} {op} {} {}", a.index, a.value, a.value_two);
                }
                text.push('\n');
            }
        }
        text += "E\n";
        self.child.stdin.as_mut().expect("piped").write_all(text.as_bytes()).expect("the oracle reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        let length: usize = line.trim().parse().unwrap_or_else(|_| panic!("libseccomp: {line}\n{text}"));
        let mut bytes = vec![0; length];
        self.output.read_exact(&mut bytes).expect("a program");
        let instruction = |c: &[u8]| Instruction {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        };
        bytes.chunks_exact(8).map(instruction).collect()
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// Names that this version of libseccomp knows too: it may be older than the table.
fn names(oracle: &mut Oracle) -> Vec<&'static str> {
    let mut names: Vec<_> = numbers::for_tests().filter(|name| oracle.knows(name)).collect();
    names.sort_unstable();
    assert!(names.len() > 300, "libseccomp knows only {} calls", names.len());
    names
}

/// A profile in which no two rules contradict each other: what holds then, no document says.
fn random_profile(random: &mut Random, names: &[&str]) -> Seccomp {
    const ACTIONS: [&str; 6] = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRACE",
    ];
    const VALUES: [u64; 8] = [0, 1, 2, 0xff, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX];
    const ARCHES: [&[&str]; 4] = [
        &["SCMP_ARCH_X86_64"],
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
    ];
    let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut profile = Seccomp {
        default_action: random.one(&["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"]).into(),
        default_errno_ret: Some(1),
        architectures: owned(random.one(&ARCHES)),
        ..Seccomp::default()
    };
    let mut left = names.to_vec();
    for _ in 0..1 + random.below(12) {
        let action = random.one(&ACTIONS).to_owned();
        let errno_ret = Some(random.below(100) as u32 + 1);
        let with_arguments = random.below(2) == 0;
        let count = 1 + random.below(if with_arguments { 3 } else { 40 });
        let chosen: Vec<&str> =
            (0..count.min(left.len())).map(|_| left.swap_remove(random.below(left.len()))).collect();
        let rules = if with_arguments { 1 + random.below(3) } else { 1 };
        let conditions = match (with_arguments, rules) {
            (false, _) => 0,
            (true, 1) => 1 + random.below(3),
            (true, _) => 1,
        };
        let mut indices = [0u32, 1, 2, 3, 4, 5];
        for _ in 0..rules {
            let mut args = Vec::new();
            for place in 0..conditions {
                if rules == 1 {
                    let other = place + random.below(6 - place);
                    indices.swap(place, other);
                }
                let op = if rules == 1 { random.one(&OPERATORS) } else { "SCMP_CMP_EQ" };
                let wide = profile.architectures.len() == 1;
                let widest = if wide { u64::MAX } else { 0xffff_ffff };
                let (mut value, mut value_two) = (random.one(&VALUES) & widest, 0);
                if op == "SCMP_CMP_MASKED_EQ" {
                    value = value.max(1);
                    value_two = random.one(&VALUES) & value;
                }
                args.push(SyscallArgument { index: indices[place], value, value_two, op: op.into() });
            }
            profile.syscalls.push(SyscallRule {
                names: owned(&chosen),
                action: action.clone(),
                errno_ret,
                args,
            });
        }
    }
    profile
}

/// Arguments that lie around the values of a profile's rules, and some that do not.
fn arguments(random: &mut Random, profile: &Seccomp) -> [u64; 6] {
    let values: Vec<u64> =
        profile.syscalls.iter().flat_map(|rule| &rule.args).flat_map(|a| [a.value, a.value_two]).collect();
    std::array::from_fn(|_| match random.below(4) {
        0 => random.next(),
        1 => random.next() % 30,
        _ if values.is_empty() => 0,
        _ => random.one(&values).wrapping_add(random.below(3) as u64).wrapping_sub(1),
    })
}

fn largest(arch: Arch, profile: &Seccomp) -> Option<u32> {
    let default = super::action(&profile.default_action, profile.default_errno_ret).ok();
    let rules =
        profile.syscalls.iter().filter(|rule| super::action(&rule.action, rule.errno_ret).ok() != default);
    let names = rules.flat_map(|rule| &rule.names);
    names.filter_map(|name| numbers::find(name).and_then(|numbers| arch.number(numbers))).max()
}

/// The rules as they read, for profiles that do not contradict themselves.
fn read(profile: &Seccomp, arch: Arch, number: u32, arguments: &[u64; 6]) -> u32 {
    let holds = |a: &SyscallArgument| {
        let given = arguments[a.index as usize];
        match a.op.as_str() {
            "SCMP_CMP_NE" => given != a.value,
            "SCMP_CMP_LT" => given < a.value,
            "SCMP_CMP_LE" => given <= a.value,
            "SCMP_CMP_EQ" => given == a.value,
            "SCMP_CMP_GE" => given >= a.value,
            "SCMP_CMP_GT" => given > a.value,
            _ => given & a.value == a.value_two,
        }
    };
    let names_it = |rule: &&SyscallRule| {
        let numbers = rule.names.iter().filter_map(|name| numbers::find(name));
        numbers.filter_map(|numbers| arch.number(numbers)).any(|n| n == number)
    };
    let rule = profile.syscalls.iter().filter(names_it).find(|rule| rule.args.iter().all(holds));
    rule.map_or_else(
        || super::action(&profile.default_action, profile.default_errno_ret),
        |rule| super::action(&rule.action, rule.errno_ret),
    )
    .expect("known")
}

/// How many calls were compared, and in how many libseccomp differed.
fn compare(profile: &Seccomp, oracle: &mut Oracle, random: &mut Random, rounds: usize) -> (usize, usize) {
    let (ours, theirs) = (compile(profile).expect("compiles"), oracle.compile(profile));
    let conditional = profile.syscalls.iter().any(|rule| !rule.args.is_empty());
    let (mut compared, mut differing) = (0, 0);
    for arch in profile.architectures.iter().map(|name| Arch::from_name(name).expect("known")) {
        let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
        // Of the two that share a tree the higher counts for ours.
        let Some(last) = largest(if arch == Arch::X32 { Arch::X86_64 } else { arch }, profile) else {
            continue;
        };
        let last = if arch == Arch::X32 { last.min(largest(arch, profile).unwrap_or(0)) } else { last };
        let with_conditions = profile.syscalls.iter().filter(|rule| !rule.args.is_empty());
        let conditions: Vec<u32> = with_conditions
            .flat_map(|rule| &rule.names)
            .filter_map(|name| numbers::find(name).and_then(|numbers| arch.number(numbers)))
            .collect();
        for number in 0..=last.min(511) {
            let is_multiplexed = arch == Arch::X86 && matches!(number, 102 | 117);
            if (is_multiplexed && conditional) || (arch == Arch::X32 && !oracle.x32.contains(&number)) {
                continue;
            }
            for _ in 0..if conditions.contains(&number) { rounds } else { 1 } {
                let mut arguments = arguments(random, profile);
                if arch != Arch::X86_64 {
                    arguments = arguments.map(|argument| argument & 0xffff_ffff);
                }
                if is_multiplexed {
                    arguments[0] &= 0xffff;
                }
                let call = Call { arch: arch.audit(), number: number | bit, arguments };
                let (a, b) = (interpret(&ours, &call), interpret(&theirs, &call));
                compared += 1;
                if a == b {
                    continue;
                }
                differing += 1;
                let expected = read(profile, arch, number, &arguments);
                assert_eq!(
                    a, expected,
                    "{arch:?} {number} {arguments:x?}: ours {a:#x}, libseccomp's {b:#x}\n{profile:#?}"
                );
            }
        }
    }
    (compared, differing)
}

#[test]
fn the_same_decisions() {
    let Some(mut oracle) = Oracle::build() else { return };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let known = names(&mut oracle);
    let mut engine = engine_profile();
    for rule in &mut engine.syscalls {
        rule.names.retain(|name| known.contains(&name.as_str()));
    }
    let (compared, differing) = compare(&engine, &mut oracle, &mut random, 40);
    assert!(compared > 1000 && differing == 0, "{differing} of {compared}");
    let (mut compared, mut differing) = (0, 0);
    for _ in 0..PROFILES {
        let profile = random_profile(&mut random, &known);
        let (more, wrong) = compare(&profile, &mut oracle, &mut random, 30);
        compared += more;
        differing += wrong;
    }
    assert!(differing * 1000 < compared, "{differing} of {compared} differ");
    eprintln!("{compared} calls compared, {differing} answered wrongly by libseccomp");
}
