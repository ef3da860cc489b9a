//! Which devices the container's processes may use: rules to v1 file writes, or to a v2 eBPF program.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::{Error, Result, Step};
use crate::spec::DeviceRule;
use crate::sys::bpf;

/// One rule; `None` for a number means any.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: u8,
    major: Option<u32>,
    minor: Option<u32>,
    access: String,
}

/// What is decided when no rule matches, and the rules of which the last match wins.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    allow_by_default: bool,
    rules: Vec<Rule>,
}

impl Policy {
    /// An earlier rule for exactly the same no longer decides anything.
    fn push(&mut self, rule: Rule) {
        let what = |rule: &Rule| (rule.kind, rule.major, rule.minor, rule.access.clone());
        self.rules.retain(|earlier| what(earlier) != what(&rule));
        self.rules.push(rule);
    }
}

/// Devices every container gets: making nodes of any kind, the harmless character devices and terminals.
const ALWAYS: [(u8, Option<u32>, Option<u32>, &str); 10] = [
    (b'c', None, None, "m"),
    (b'b', None, None, "m"),
    (b'c', Some(1), Some(3), "rwm"),
    (b'c', Some(1), Some(5), "rwm"),
    (b'c', Some(1), Some(7), "rwm"),
    (b'c', Some(1), Some(8), "rwm"),
    (b'c', Some(1), Some(9), "rwm"),
    (b'c', Some(5), Some(0), "rwm"),
    (b'c', Some(5), Some(2), "rwm"),
    (b'c', Some(136), None, "rwm"),
];

/// Configurations are about with an `a` among the letters, which the original passes over.
fn access(letters: &str) -> Result<String> {
    if letters == "a" || !letters.bytes().all(|b| b"rwma".contains(&b)) {
        return Err(Error::invalid(format!("device access {letters:?} is not made of r, w and m")));
    }
    Ok(if letters.is_empty() { "rwm".into() } else { letters.replace('a', "") })
}

fn policy(rules: &[DeviceRule]) -> Result<Policy> {
    let mut policy =
        Policy { allow_by_default: false, rules: Vec::with_capacity(rules.len() + ALWAYS.len()) };
    for rule in rules {
        let number = |n: Option<i64>| match n {
            None | Some(-1) => Ok(None),
            Some(n) => {
                u32::try_from(n).map(Some).map_err(|_| Error::invalid(format!("{n} is not a device number")))
            }
        };
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let access = access(&rule.access)?;
        match rule.kind.as_str() {
            // A rule for all devices outweighs whatever came before.
            "" | "a" => {
                policy.allow_by_default = rule.allow;
                policy.rules.clear();
            }
            "c" | "b" | "u" => {
                let kind = if rule.kind == "b" { b'b' } else { b'c' };
                policy.push(Rule { allow: rule.allow, kind, major, minor, access });
            }
            other => return Err(Error::invalid(format!("device type {other:?} is not a, b, c or u"))),
        }
    }
    if !policy.allow_by_default {
        for &(kind, major, minor, access) in &ALWAYS {
            policy.push(Rule { allow: true, kind, major, minor, access: access.to_owned() });
        }
    }
    Ok(policy)
}

/// Refuse what cannot be carried out, before anything is made.
pub(crate) fn validate(rules: &[DeviceRule]) -> Result<()> {
    policy(rules).map(drop)
}

pub(super) fn write_v1(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    let policy = policy(rules)?;
    let open = |file: &str| {
        let path = dir.join(file);
        OpenOptions::new().write(true).open(&path).step(|| format!("open {}", path.display()))
    };
    let mut deny = open("devices.deny")?;
    let mut allow = open("devices.allow")?;
    // A new cgroup has what its parent has; only a denial of all has to be written.
    if !policy.allow_by_default {
        deny.write_all(b"a").step(|| format!("deny all devices in {}", dir.display()))?;
    }
    for rule in &policy.rules {
        let text = rule.v1_line();
        let file = if rule.allow { &mut allow } else { &mut deny };
        file.write_all(text.as_bytes())
            .step(|| format!("write {text:?} to the device rules of {}", dir.display()))?;
    }
    Ok(())
}

impl Rule {
    fn v1_line(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", char::from(self.kind), number(self.major), number(self.minor), self.access)
    }
}

pub(super) fn attach_v2(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<()> {
    let program = compile(&policy(rules)?);
    let program = bpf::load_device_program(&program).step(|| "load the device program".into())?;
    // One of an earlier life of this cgroup would go on refusing.
    let former = bpf::device_programs(cgroup).unwrap_or_default();
    bpf::attach_device_program(cgroup, std::os::fd::AsFd::as_fd(&program))
        .step(|| "attach the device program".into())?;
    for program in former {
        let _ = bpf::detach_device_program(cgroup, std::os::fd::AsFd::as_fd(&program));
    }
    Ok(())
}

/// One eBPF instruction in the kernel's layout.
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(dst) << 8
        | u64::from(src) << 12
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER_32: u8 = 0xbc;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The last rule that matches decides, so they are tried from the last to the first. The context holds the type
/// and the access wanted (16 bits each), the major and the minor number.
fn compile(policy: &Policy) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(AND_32, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 3, 1, 0, 0),
        instruction(SHIFT_RIGHT_32, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in policy.rules.iter().rev() {
        compile_rule(rule, &mut program);
    }
    program.push(instruction(MOVE, 0, 0, 0, policy.allow_by_default.into()));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

fn compile_rule(rule: &Rule, program: &mut Vec<u64>) {
    let kind = if rule.kind == b'b' { 1 } else { 2 };
    let bit = |letter, bit| if rule.access.contains(letter) { bit } else { 0 };
    let access = bit('m', 1) | bit('r', 2) | bit('w', 4);
    // Each test jumps over the rest of this rule; how far is known once the rule is whole.
    let mut tests = vec![(JUMP_NOT_EQUAL, 2, 0, kind)];
    if access != 7 {
        // All wanted bits are among the rule's: r1 = wanted & rule; r1 == wanted.
        tests.push((MOVE_REGISTER_32, 1, 3, 0));
        tests.push((AND_32, 1, 0, access));
        tests.push((JUMP_NOT_EQUAL_REGISTER, 1, 3, 0));
    }
    if let Some(major) = rule.major {
        tests.push((JUMP_NOT_EQUAL, 4, 0, major as i32));
    }
    if let Some(minor) = rule.minor {
        tests.push((JUMP_NOT_EQUAL, 5, 0, minor as i32));
    }
    let count = tests.len();
    for (i, (code, dst, src, immediate)) in tests.into_iter().enumerate() {
        let jumps = matches!(code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER);
        let offset = if jumps { (count - i - 1 + 2) as i16 } else { 0 };
        program.push(instruction(code, dst, src, offset, immediate));
    }
    program.push(instruction(MOVE, 0, 0, 0, rule.allow.into()));
    program.push(instruction(EXIT, 0, 0, 0, 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<DeviceRule> {
        serde_json::from_str(json).expect(json)
    }

    /// Runs the few instructions that `compile` uses.
    fn interpret(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0u64; 10];
        let mut at = 0;
        loop {
            let i = program[at];
            let (code, dst, src) = (i as u8, (i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, immediate) = ((i >> 16) as i16, (i >> 32) as u32);
            at += 1;
            match code {
                LOAD_WORD => r[dst] = context[offset as usize / 4].into(),
                MOVE => r[dst] = immediate.into(),
                MOVE_REGISTER_32 => r[dst] = r[src],
                AND_32 => r[dst] &= u64::from(immediate),
                SHIFT_RIGHT_32 => r[dst] >>= immediate,
                JUMP_NOT_EQUAL if r[dst] != i64::from(immediate as i32) as u64 => at += offset as usize,
                JUMP_NOT_EQUAL_REGISTER if r[dst] != r[src] => at += offset as usize,
                JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER => {}
                EXIT => return r[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;
    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    #[test]
    fn the_program_decides_as_the_rules_say() {
        let docker = r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":10,"minor":229,"access":"r"},
            {"allow":false,"type":"c","major":10,"minor":200,"access":"rwm"}]"#;
        for (json, kind, access, major, minor, allowed) in [
            (docker, CHAR, READ | WRITE, 1, 3, true),
            (docker, CHAR, READ, 136, 7, true),
            (docker, CHAR, MKNOD, 99, 99, true),
            (docker, BLOCK, MKNOD, 8, 0, true),
            (docker, BLOCK, READ, 8, 0, false),
            (docker, CHAR, READ, 10, 229, true),
            (docker, CHAR, READ | WRITE, 10, 229, false),
            (docker, CHAR, READ, 10, 200, false),
            (docker, CHAR, READ, 1, 1, false),
            ("[]", CHAR, READ, 1, 1, false),
            (r#"[{"allow":true,"access":"rwm"}]"#, BLOCK, READ | WRITE, 8, 0, true),
            (r#"[{"allow":true,"type":"a"},{"allow":false,"type":"b","major":8}]"#, BLOCK, READ, 8, 1, false),
            (r#"[{"allow":true,"type":"a"},{"allow":false,"type":"b","major":8}]"#, BLOCK, READ, 9, 1, true),
            (r#"[{"allow":true,"type":"b","major":8,"minor":-1,"access":"r"}]"#, BLOCK, READ, 8, 5, true),
        ] {
            let program = compile(&policy(&rules(json)).expect("valid"));
            assert_eq!(
                interpret(&program, kind, access, major, minor),
                allowed,
                "{json} {kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn v1_lines_and_refusals() {
        let policy =
            policy(&rules(r#"[{"allow":true,"type":"c","major":10,"access":"rw"}]"#)).expect("valid");
        assert_eq!(policy.rules[0].v1_line(), "c 10:* rw");
        for (letters, understood) in
            [("", Some("rwm")), ("rwa", Some("rw")), ("m", Some("m")), ("a", None), ("q", None)]
        {
            assert_eq!(access(letters).ok().as_deref(), understood, "{letters:?}");
        }
        for refused in [
            r#"[{"allow":true,"type":"x"}]"#,
            r#"[{"allow":true,"type":"c","access":"q"}]"#,
            r#"[{"type":"c","major":-2}]"#,
        ] {
            assert!(validate(&rules(refused)).is_err(), "{refused}");
        }
    }
}
