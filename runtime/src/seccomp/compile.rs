//! A seccomp section to a BPF program.
//!
//! ```text
//! load arch ── one section for each architecture, else kill
//!   load number ── a binary search over ranges of numbers that are treated alike
//!     leaf: return the action, or try the rules with argument conditions in their order
//! ```
//!
//! Returns of one action are one instruction where a jump can reach it: the kernel checks, converts and translates
//! every instruction each time a container starts.
//!
//! The search makes the program's path short: the kernel walks it for every number when it is installed and for
//! every call that is not simply allowed.

use super::numbers::{self, Arch, Numbers, X32_BIT};
use crate::error::{Error, Result};
use crate::spec::{Seccomp, SyscallArgument, SyscallRule};
use crate::sys::prctl::Instruction;

pub(crate) const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

pub(crate) const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

pub(crate) const ARCHITECTURES: [&str; 5] =
    ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

pub(crate) const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 4),
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 32),
];

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// The kernel's limit on the length of a program.
const LONGEST_PROGRAM: usize = 4096;
const LARGEST_ERRNO: u32 = 4095;
/// Above every call number of the covered architectures.
const MOST_NUMBERS: usize = 640;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
const AT_ARGUMENTS: u32 = 16;

type Program = Vec<Instruction>;

/// What to do with a call number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leaf {
    Return(u32),
    /// Rules with argument conditions in their order, and what holds if none of them does.
    Rules(Vec<(Vec<SyscallArgument>, u32)>, u32),
}

/// Without the field the original's default holds: no mitigation of speculation, which slows programs much.
pub(super) fn flags(names: Option<&[String]>) -> Result<u32> {
    let Some(names) = names else { return Ok(4) };
    names.iter().try_fold(0, |bits, name| {
        let row = FLAGS.iter().find(|row| row.0 == name);
        let bit = row.ok_or_else(|| Error::invalid(format!("seccomp flag {name:?} is not known")))?.1;
        Ok(bits | bit)
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    const EPERM: u32 = libc::EPERM as u32;
    let errno = errno.unwrap_or(EPERM);
    if errno > LARGEST_ERRNO {
        return Err(Error::invalid(format!("seccomp errnoRet {errno} is larger than {LARGEST_ERRNO}")));
    }
    Ok(match name {
        "SCMP_ACT_ALLOW" => RET_ALLOW,
        "SCMP_ACT_ERRNO" => RET_ERRNO | errno,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => RET_TRAP,
        "SCMP_ACT_TRACE" => RET_TRACE | errno,
        "SCMP_ACT_LOG" => RET_LOG,
        "SCMP_ACT_NOTIFY" => RET_NOTIFY,
        other => return Err(Error::invalid(format!("seccomp action {other:?} is not known"))),
    })
}

pub(super) fn compile(seccomp: &Seccomp) -> Result<Program> {
    let default = action(&seccomp.default_action, seccomp.default_errno_ret)?;
    let rules = seccomp.syscalls.iter().map(|rule| Ok((rule, action(&rule.action, rule.errno_ret)?)));
    let rules = rules.collect::<Result<Vec<_>>>()?;
    refuse_deaf_listener(default, &rules)?;
    for argument in rules.iter().flat_map(|(rule, _)| &rule.args) {
        if argument.index > 5 {
            return Err(Error::invalid(format!(
                "seccomp argument index {} is larger than 5",
                argument.index
            )));
        }
        if !OPERATORS.contains(&argument.op.as_str()) {
            return Err(Error::invalid(format!("seccomp operator {:?} is not known", argument.op)));
        }
    }
    let program = assemble(&architectures(seccomp)?, &rules, default);
    if program.len() > LONGEST_PROGRAM {
        return Err(Error::invalid(format!(
            "the seccomp filter is too long: {} instructions",
            program.len()
        )));
    }
    Ok(program)
}

/// Whether somebody outside is to be asked.
pub(super) fn notifies(seccomp: &Seccomp) -> bool {
    seccomp.syscalls.iter().any(|rule| rule.action == "SCMP_ACT_NOTIFY")
}

/// The listener is handed over when the filter is in force already: that call must not wait for the listener.
fn refuse_deaf_listener(default: u32, rules: &[(&SyscallRule, u32)]) -> Result<()> {
    if default == RET_NOTIFY {
        return Err(Error::invalid("SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    for (rule, _) in rules.iter().filter(|(_, action)| *action == RET_NOTIFY) {
        // `write` as in the original, whose callers know the sentence.
        if let Some(name) = rule.names.iter().find(|name| matches!(name.as_str(), "sendmsg" | "write")) {
            return Err(Error::invalid(format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall")));
        }
    }
    Ok(())
}

/// Machines that seccomp knows and that are never this one.
const FOREIGN: [&str; 18] = [
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "SH",
    "SHEB",
];

/// Those named; a name of hardware that this kernel cannot be is passed over, a misspelt one is an error.
fn architectures(seccomp: &Seccomp) -> Result<Vec<Arch>> {
    let native =
        Arch::native().ok_or_else(|| Error::Unsupported("seccomp on this machine's architecture".into()))?;
    let mut found = Vec::new();
    for name in &seccomp.architectures {
        match Arch::from_name(name) {
            Some(arch) if !found.contains(&arch) => found.push(arch),
            Some(_) => {}
            None if FOREIGN.iter().any(|foreign| name.strip_prefix("SCMP_ARCH_") == Some(foreign)) => {}
            None => return Err(Error::invalid(format!("string {name} is not a valid arch for seccomp"))),
        }
    }
    // libseccomp's filters always cover the machine itself.
    if !found.contains(&native) {
        found.push(native);
    }
    Ok(found)
}

/// A rule with its names looked up: what no architecture knows is dropped, as a profile is written for many
/// kernels.
struct Rule<'a> {
    calls: Vec<Numbers<'a>>,
    arguments: &'a [SyscallArgument],
    action: u32,
}

fn assemble(archs: &[Arch], rules: &[(&SyscallRule, u32)], default: u32) -> Program {
    let rules: Vec<Rule<'_>> = rules
        .iter()
        // To ask for the default is to ask for nothing, as in the original.
        .filter(|(_, action)| *action != default)
        .map(|&(rule, action)| Rule {
            calls: rule.names.iter().filter_map(|name| numbers::find(name)).collect(),
            arguments: &rule.args,
            action,
        })
        .collect();
    let mut program = vec![load(AT_ARCH)];
    let x32 = archs.contains(&Arch::X32);
    // x32 shares the audit architecture with x86-64, whose section holds both.
    for &arch in archs.iter().filter(|arch| **arch != Arch::X32) {
        let mut section = vec![load(AT_NUMBER)];
        if arch == Arch::X86_64 && x32 {
            // The two have their calls in common but for some with numbers of their own, which mean nothing to
            // the other: one tree serves both.
            section.push(Instruction { code: AND, jt: 0, jf: 0, k: !X32_BIT });
            section.extend(search(&[Arch::X86_64, Arch::X32], &rules, default));
        } else if arch == Arch::X86_64 {
            let foreign = vec![ret(RET_KILL_PROCESS)];
            section.extend(branch_at(X32_BIT, search(&[arch], &rules, default), foreign));
        } else {
            section.extend(search(&[arch], &rules, default));
        }
        jump_if_not_equal(&mut program, arch.audit(), section.len());
        program.extend(section);
    }
    program.push(ret(RET_KILL_PROCESS));
    share_returns(&program)
}

/// Every conditional jump to a return goes to the furthest one like it within its reach; what nothing leads to any
/// more is left out, which makes all jumps shorter or leaves them as they are.
fn share_returns(program: &[Instruction]) -> Program {
    const REACH: usize = u8::MAX as usize;
    let conditional = |i: &Instruction| matches!(i.code, JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_EQUAL);
    let furthest = |at: usize, target: usize| {
        let wanted = &program[target];
        let last = (at + 1 + REACH).min(program.len() - 1);
        let alike = (target..=last).rev().find(|&other| program[other] == *wanted);
        if wanted.code == RETURN { alike.unwrap_or(target) } else { target }
    };
    // Where each instruction can lead to, as places in this program.
    let next = |at: usize| {
        let i = &program[at];
        match i.code {
            RETURN => [None, None],
            JUMP => [Some(at + 1 + i.k as usize), None],
            _ if conditional(i) => {
                [i.jt, i.jf].map(|distance| Some(furthest(at, at + 1 + usize::from(distance))))
            }
            _ => [Some(at + 1), None],
        }
    };
    let mut reached = vec![false; program.len()];
    reached[0] = true;
    for at in 0..program.len() {
        if reached[at] {
            next(at).into_iter().flatten().for_each(|target| reached[target] = true);
        }
    }
    let mut places = Vec::with_capacity(program.len());
    let mut count = 0usize;
    for &kept in &reached {
        places.push(count);
        count += usize::from(kept);
    }
    let move_instruction = |at: usize| {
        let mut i = program[at];
        let distance = |target: Option<usize>| target.map_or(0, |target| places[target] - places[at] - 1);
        let [first, second] = next(at).map(distance);
        if conditional(&i) {
            (i.jt, i.jf) = (first as u8, second as u8);
        } else if i.code == JUMP {
            i.k = first as u32;
        }
        i
    };
    (0..program.len()).filter(|&at| reached[at]).map(move_instruction).collect()
}

/// The tree over the numbers of one architecture, or of two that share their numbers.
fn search(archs: &[Arch], rules: &[Rule<'_>], default: u32) -> Program {
    let mut leaves: Vec<Option<Leaf>> = Vec::new();
    leaves.resize_with(MOST_NUMBERS, || None);
    let mut largest = 0;
    let multiplexed = if archs == [Arch::X86] { multiplexed(rules) } else { Vec::new() };
    for rule in rules {
        for call in &rule.calls {
            let mut former = None;
            for arch in archs {
                let number = arch.number(*call).filter(|&number| (number as usize) < MOST_NUMBERS);
                let Some(number) = number.filter(|_| number != former) else { continue };
                former = Some(number);
                if *arch != Arch::X32 {
                    largest = largest.max(number);
                }
                let leaf = &mut leaves[number as usize];
                leaf.get_or_insert_with(|| Leaf::Rules(Vec::new(), default)).add(
                    rule.arguments,
                    rule.action,
                    default,
                );
            }
        }
    }
    for (number, arguments, action) in multiplexed {
        let leaf = &mut leaves[number as usize];
        leaf.get_or_insert_with(|| Leaf::Rules(Vec::new(), default)).add(&arguments, action, default);
    }
    tree(&ranges(leaves, default, largest))
}

/// On 32-bit x86 the same rules for the numbers that have many calls behind them, or a refusal would be gone around.
/// Their arguments lie in memory, where a filter cannot look: with conditions on them a refusal is one without, and
/// a permission is none.
fn multiplexed(rules: &[Rule<'_>]) -> Vec<(u32, Vec<SyscallArgument>, u32)> {
    let mut found = Vec::new();
    for rule in rules {
        let allows = matches!(rule.action, RET_ALLOW | RET_LOG);
        if allows && !rule.arguments.is_empty() {
            continue;
        }
        for call in &rule.calls {
            let Some((name, mask, value)) = call.behind_one() else { continue };
            let number = numbers::find(name).and_then(|numbers| Arch::X86.number(numbers));
            let Some(number) = number.filter(|&number| (number as usize) < MOST_NUMBERS) else { continue };
            let op = if mask == u64::MAX { "SCMP_CMP_EQ" } else { "SCMP_CMP_MASKED_EQ" };
            let (first, second) = if mask == u64::MAX { (value, 0) } else { (mask, value) };
            let argument = SyscallArgument { index: 0, value: first, value_two: second, op: op.into() };
            found.push((number, vec![argument], rule.action));
        }
    }
    found
}

impl Leaf {
    /// Conditions are tried in the order they came; a rule without any holds when none of them does, and the
    /// first of several such wins.
    fn add(&mut self, arguments: &[SyscallArgument], action: u32, default: u32) {
        let Leaf::Rules(conditions, otherwise) = self else { return };
        if arguments.is_empty() {
            if *otherwise == default {
                *otherwise = action;
            }
            return;
        }
        let mut indices: Vec<u32> = arguments.iter().map(|argument| argument.index).collect();
        indices.sort_unstable();
        indices.dedup();
        if indices.len() == arguments.len() {
            conditions.push((arguments.to_vec(), action));
        } else {
            // Several conditions on one argument cannot all be meant to hold: each is a rule of its own.
            conditions.extend(arguments.iter().map(|argument| (vec![argument.clone()], action)));
        }
    }

    fn simplified(self) -> Leaf {
        match self {
            Leaf::Rules(conditions, otherwise) if conditions.iter().all(|row| row.1 == otherwise) => {
                Leaf::Return(otherwise)
            }
            leaf => leaf,
        }
    }
}

/// Ranges that begin at a number and reach to the next; equal neighbours are one. Above the highest number
/// that the profile knows, a refusing filter says ENOSYS: a library then falls back to older calls, which it
/// would not do for EPERM.
fn ranges(leaves: Vec<Option<Leaf>>, default: u32, largest: u32) -> Vec<(u32, Leaf)> {
    let refuses = !matches!(default, RET_ALLOW | RET_LOG) && default & 0xffff_0000 != RET_TRACE;
    let knows_any = leaves.iter().any(Option::is_some);
    let unknown = if refuses && knows_any { RET_ERRNO | libc::ENOSYS as u32 } else { default };
    let mut ranges: Vec<(u32, Leaf)> = Vec::with_capacity(128);
    for (number, leaf) in (0u32..).zip(leaves.into_iter().chain([None])) {
        let gap = if number > largest { unknown } else { default };
        let leaf = leaf.map_or(Leaf::Return(gap), Leaf::simplified);
        if ranges.last().is_none_or(|last| last.1 != leaf) {
            ranges.push((number, leaf));
        }
    }
    ranges
}

fn tree(ranges: &[(u32, Leaf)]) -> Program {
    match ranges {
        [] => Vec::new(),
        [(_, leaf)] => compile_leaf(leaf),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            branch_at(high[0].0, tree(low), tree(high))
        }
    }
}

/// `low` for numbers below `at`, `high` from there on. Conditional jumps reach 255 instructions, the other kind
/// reaches everything.
fn branch_at(at: u32, low: Program, high: Program) -> Program {
    let mut program = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(over_low) => program.push(Instruction { code: JUMP_GREATER_EQUAL, jt: over_low, jf: 0, k: at }),
        Err(_) => {
            program.push(Instruction { code: JUMP_GREATER_EQUAL, jt: 0, jf: 1, k: at });
            program.push(Instruction { code: JUMP, jt: 0, jf: 0, k: low.len() as u32 });
        }
    }
    program.extend(low);
    program.extend(high);
    program
}

fn compile_leaf(leaf: &Leaf) -> Program {
    match leaf {
        Leaf::Return(action) => vec![ret(*action)],
        Leaf::Rules(rules, otherwise) => {
            let mut program: Program =
                rules.iter().flat_map(|(conditions, action)| rule(conditions, *action)).collect();
            program.push(ret(*otherwise));
            program
        }
    }
}

/// All conditions, then the action; a condition that does not hold jumps behind it.
fn rule(conditions: &[SyscallArgument], action: u32) -> Program {
    let mut program = vec![ret(action)];
    for condition in conditions.iter().rev() {
        let mut test = compare(condition, program.len() as u8);
        test.extend(program);
        program = test;
    }
    program
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn ret(action: u32) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: action }
}

fn jump_if_not_equal(program: &mut Program, value: u32, distance: usize) {
    match u8::try_from(distance) {
        Ok(distance) => program.push(Instruction { code: JUMP_EQUAL, jt: 0, jf: distance, k: value }),
        Err(_) => {
            program.push(Instruction { code: JUMP_EQUAL, jt: 1, jf: 0, k: value });
            program.push(Instruction { code: JUMP, jt: 0, jf: 0, k: distance as u32 });
        }
    }
}

/// A 64-bit comparison by halves. Falls through when it holds, else jumps `rest` instructions past its end.
fn compare(argument: &SyscallArgument, rest: u8) -> Program {
    let (high, low) = ((argument.value >> 32) as u32, argument.value as u32);
    let low_at = AT_ARGUMENTS + argument.index * 8;
    let high_at = low_at + 4;
    let jump = |code, k, jt, jf| Instruction { code, jt, jf, k };
    match argument.op.as_str() {
        "SCMP_CMP_EQ" => vec![
            load(high_at),
            jump(JUMP_EQUAL, high, 0, 2 + rest),
            load(low_at),
            jump(JUMP_EQUAL, low, 0, rest),
        ],
        "SCMP_CMP_NE" => {
            vec![load(high_at), jump(JUMP_EQUAL, high, 0, 2), load(low_at), jump(JUMP_EQUAL, low, rest, 0)]
        }
        // The value is the mask, the second value what must be left.
        "SCMP_CMP_MASKED_EQ" => {
            let (wanted_high, wanted_low) = ((argument.value_two >> 32) as u32, argument.value_two as u32);
            let and = |k| Instruction { code: AND, jt: 0, jf: 0, k };
            vec![
                load(high_at),
                and(high),
                jump(JUMP_EQUAL, wanted_high, 0, 3 + rest),
                load(low_at),
                and(low),
                jump(JUMP_EQUAL, wanted_low, 0, rest),
            ]
        }
        // Decided by the high half unless it is equal.
        "SCMP_CMP_GT" => ordered(high_at, low_at, high, jump(JUMP_GREATER, low, 0, rest), true, rest),
        "SCMP_CMP_GE" => ordered(high_at, low_at, high, jump(JUMP_GREATER_EQUAL, low, 0, rest), true, rest),
        "SCMP_CMP_LT" => ordered(high_at, low_at, high, jump(JUMP_GREATER_EQUAL, low, rest, 0), false, rest),
        "SCMP_CMP_LE" => ordered(high_at, low_at, high, jump(JUMP_GREATER, low, rest, 0), false, rest),
        other => unreachable!("operator {other} was checked before"),
    }
}

fn ordered(high_at: u32, low_at: u32, high: u32, low_test: Instruction, greater: bool, rest: u8) -> Program {
    let (if_greater, if_less) = if greater { (3, 2 + rest) } else { (3 + rest, 2) };
    vec![
        load(high_at),
        Instruction { code: JUMP_GREATER, jt: if_greater, jf: 0, k: high },
        Instruction { code: JUMP_EQUAL, jt: 0, jf: if_less, k: high },
        load(low_at),
        low_test,
    ]
}

#[cfg(test)]
mod against_libseccomp;
#[cfg(test)]
mod tests;
