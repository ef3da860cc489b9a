//! Programs are judged by running them in a small interpreter, against a plain reading of the same rules.

use super::*;

#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

pub(super) fn interpret(program: &[Instruction], call: &Call) -> u32 {
    let word = |offset: u32| match offset {
        AT_NUMBER => call.number,
        AT_ARCH => call.arch,
        other => {
            let argument = call.arguments[(other as usize - 16) / 8];
            if other % 8 == 0 { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut at, mut a) = (0, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LOAD => a = word(i.k),
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            JUMP_EQUAL => at += branch(a == i.k),
            JUMP_GREATER => at += branch(a > i.k),
            JUMP_GREATER_EQUAL => at += branch(a >= i.k),
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn seccomp(json: &str) -> Seccomp {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn number(arch: Arch, name: &str) -> Option<u32> {
    numbers::find(name).and_then(|numbers| arch.number(numbers))
}

fn call(arch: Arch, name: &str, arguments: &[u64]) -> Call {
    let number = number(arch, name).unwrap_or_else(|| panic!("{name} on {arch:?}"));
    let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Call { arch: arch.audit(), number: number | bit, arguments: all }
}

const EPERM: u32 = RET_ERRNO | 1;
const ENOSYS: u32 = RET_ERRNO | 38;

#[test]
fn every_operator_compares_all_64_bits() {
    let holds = |op: &str, a: u64, value: u64, two: u64| match op {
        "SCMP_CMP_EQ" => a == value,
        "SCMP_CMP_NE" => a != value,
        "SCMP_CMP_LT" => a < value,
        "SCMP_CMP_LE" => a <= value,
        "SCMP_CMP_GT" => a > value,
        "SCMP_CMP_GE" => a >= value,
        _ => a & value == two,
    };
    let values = [
        0,
        1,
        2,
        38,
        40,
        0xffff_ffff,
        1 << 32,
        (1 << 32) + 1,
        (1 << 32) + 2,
        5 << 32,
        u64::MAX - 1,
        u64::MAX,
    ];
    for op in OPERATORS {
        for value in values {
            for two in [0, 1, value] {
                let json = format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
                       {{"names":["socket"],"action":"SCMP_ACT_ALLOW",
                         "args":[{{"index":1,"value":{value},"valueTwo":{two},"op":"{op}"}}]}}]}}"#
                );
                let program = compile(&seccomp(&json)).expect("compiles");
                for argument in values {
                    let result = interpret(&program, &call(Arch::X86_64, "socket", &[99, argument]));
                    let expected = if holds(op, argument, value, two) { RET_ALLOW } else { EPERM };
                    assert_eq!(result, expected, "{argument} {op} {value}, {two}");
                }
            }
        }
    }
}

#[test]
fn conditions_on_different_arguments_must_all_hold_and_on_one_any() {
    let all = seccomp(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["openat"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_GE"},
            {"index":2,"value":3,"op":"SCMP_CMP_NE"}]}]}"#,
    );
    let any = seccomp(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["openat"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":7,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let native = Arch::native().expect("a known machine");
    for (a, b, c) in [(1, 2, 0), (1, 9, 4), (0, 2, 0), (1, 1, 0), (1, 2, 3), (7, 0, 0)] {
        let call = call(native, "openat", &[a, b, c]);
        let expected = if a == 1 && b >= 2 && c != 3 { RET_ALLOW } else { EPERM };
        assert_eq!(interpret(&compile(&all).expect("compiles"), &call), expected, "{a} {b} {c}");
        let expected = if a == 1 || a == 7 { RET_ALLOW } else { EPERM };
        assert_eq!(interpret(&compile(&any).expect("compiles"), &call), expected, "{a} {b} {c}");
    }
}

#[test]
fn every_action_and_refusal() {
    let compiled = |json: &str| compile(&seccomp(json));
    let native = Arch::native().expect("a known machine");
    for (name, expected) in [
        ("SCMP_ACT_ERRNO", RET_ERRNO | 7),
        ("SCMP_ACT_KILL", RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", RET_TRAP),
        ("SCMP_ACT_TRACE", RET_TRACE | 7),
        ("SCMP_ACT_LOG", RET_LOG),
    ] {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["mkdirat"],"action":"{name}","errnoRet":7}}]}}"#
        );
        let program = compiled(&json).expect(name);
        assert_eq!(interpret(&program, &call(native, "mkdirat", &[])), expected, "{name}");
        assert_eq!(interpret(&program, &call(native, "read", &[])), RET_ALLOW);
        let unheard = Call { number: 9999, ..call(native, "read", &[]) };
        assert_eq!(interpret(&program, &unheard), RET_ALLOW);
    }
    for refused in [
        r#"{"defaultAction":"SCMP_ACT_NOPE"}"#,
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["X"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":0,"op":"EQ"}]}]}"#,
    ] {
        assert!(compiled(refused).is_err(), "{refused}");
    }
    assert!(flags(Some(&["X".into()])).is_err());
    assert_eq!(flags(Some(&["SECCOMP_FILTER_FLAG_LOG".into()])).ok(), Some(2));
    assert_eq!(flags(None).ok(), Some(4));
}

/// A profile of the size and kind that engines use by default: several hundred names, families of sockets,
/// personality values, namespace flags of clone, an explicit errno, three architectures.
pub(super) fn engine_profile() -> Seccomp {
    let allowed: Vec<&str> = numbers::for_tests()
        .filter(|name| {
            !matches!(
                *name,
                "socket" | "personality" | "clone" | "clone3" | "mount" | "bpf" | "keyctl" | "reboot"
            )
        })
        .filter(|name| !name.starts_with("io_uring"))
        .collect();
    let equal = |value: u64| {
        format!(
            r#"{{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
        )
    };
    let personalities: Vec<String> = [0, 8, 0x20000, 0x20008, 0xffff_ffff].map(equal).into();
    seccomp(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[
            {{"names":{},"action":"SCMP_ACT_ALLOW"}},
            {{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":38,"op":"SCMP_CMP_LT"}}]}},
            {{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":39,"op":"SCMP_CMP_EQ"}}]}},
            {{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":40,"op":"SCMP_CMP_GT"}}]}},
            {},
            {{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}}]}},
            {{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}}]}}"#,
        serde_json::to_string(&allowed).expect("names"),
        personalities.join(",")
    ))
}

#[test]
fn an_engines_profile_decides_as_it_reads() {
    let program = compile(&engine_profile()).expect("compiles");
    assert!(program.len() < 1500, "{} instructions", program.len());
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for (name, arguments, expected) in [
            ("read", &[][..], RET_ALLOW),
            ("futex", &[], RET_ALLOW),
            ("openat", &[], RET_ALLOW),
            ("mount", &[], EPERM),
            ("bpf", &[], EPERM),
            ("keyctl", &[], EPERM),
            ("reboot", &[], EPERM),
            ("io_uring_setup", &[], EPERM),
            ("clone3", &[], ENOSYS),
            ("clone", &[0x11], RET_ALLOW),
            ("clone", &[0x1000_0000], EPERM),
            ("clone", &[0x2000_0011], EPERM),
            ("socket", &[1], RET_ALLOW),
            ("socket", &[38], EPERM),
            ("socket", &[39], RET_ALLOW),
            ("socket", &[40], EPERM),
            ("socket", &[41], RET_ALLOW),
            ("socket", &[(1 << 32) + 38], RET_ALLOW),
            ("personality", &[0xffff_ffff], RET_ALLOW),
            ("personality", &[1], EPERM),
        ] {
            assert_eq!(
                interpret(&program, &call(arch, name, arguments)),
                expected,
                "{arch:?} {name} {arguments:?}"
            );
        }
    }
    let newest = Call { number: 5000, ..call(Arch::X86_64, "read", &[]) };
    assert_eq!(interpret(&program, &newest), ENOSYS);
    assert_eq!(interpret(&program, &Call { number: 5000 | X32_BIT, ..newest }), ENOSYS);
    assert_eq!(interpret(&program, &Call { arch: Arch::Aarch64.audit(), ..newest }), RET_KILL_PROCESS);
}

#[test]
fn an_abi_that_is_not_listed_is_killed() {
    let program =
        compile(&seccomp(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"]}"#))
            .expect("compiles");
    assert_eq!(interpret(&program, &call(Arch::X86_64, "read", &[])), RET_ALLOW);
    assert_eq!(interpret(&program, &call(Arch::X32, "read", &[])), RET_KILL_PROCESS);
    assert_eq!(interpret(&program, &call(Arch::X86, "read", &[])), RET_KILL_PROCESS);
}

/// Every number of an architecture against a reading of the rules without any tree.
#[test]
fn the_tree_agrees_with_the_list_on_every_number() {
    let profile = engine_profile();
    let program = compile(&profile).expect("compiles");
    for arch in [Arch::X86_64, Arch::X86] {
        let allowed: Vec<u32> =
            profile.syscalls[0].names.iter().filter_map(|name| number(arch, name)).collect();
        let special: Vec<u32> = ["socket", "personality", "clone", "clone3"]
            .iter()
            .filter_map(|name| number(arch, name))
            .collect();
        let largest = allowed.iter().chain(&special).max().copied().expect("some");
        // From 512 on are the numbers that x32 alone has.
        for number in (0..512).filter(|n| !special.contains(n)) {
            let expected = match number {
                n if allowed.contains(&n) => RET_ALLOW,
                n if n > largest => ENOSYS,
                _ => EPERM,
            };
            let result = interpret(&program, &Call { arch: arch.audit(), number, arguments: [0; 6] });
            assert_eq!(result, expected, "{arch:?} {number}");
        }
    }
}
