//! The default seccomp profile, resolved for a container's capabilities and this machine.

use serde_json::{Value, json};

const RULES: &str = include_str!("seccomp.rules");
const ERRNO_EPERM: u32 = 1;

/// libseccomp's names: the machine's architecture for conditions, and what the filter must know.
fn architectures() -> (&'static str, &'static [&'static str]) {
    if cfg!(target_arch = "x86_64") {
        ("amd64", &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    } else if cfg!(target_arch = "aarch64") {
        ("arm64", &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    } else {
        ("unknown", &[])
    }
}

/// `linux.seccomp` of a container that holds `capabilities`.
pub(crate) fn default_profile(capabilities: &[&str]) -> Value {
    let (machine, names) = architectures();
    let mut calls = Vec::new();
    let mut lines = RULES.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).peekable();
    while let Some(conditions) = lines.next() {
        let mut syscalls = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
            syscalls.extend(line.split_whitespace());
        }
        if let Some(rule) = resolve(conditions.trim_end_matches(':'), &syscalls, machine, capabilities) {
            calls.push(rule);
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ERRNO_EPERM,
        "architectures": names,
        "syscalls": calls,
    })
}

/// One rule for the runtime, or none when a condition does not hold.
fn resolve(conditions: &str, syscalls: &[&str], machine: &str, capabilities: &[&str]) -> Option<Value> {
    let mut rule = json!({ "names": syscalls, "action": "SCMP_ACT_ALLOW" });
    let mut arguments = Vec::new();
    let listed = |list: &str| list.split(',').any(|name| name == machine);
    for condition in conditions.split_whitespace() {
        if let Some(argument) = condition.strip_prefix("arg") {
            arguments.push(parse_argument(argument));
            continue;
        }
        let (key, value) = condition.split_once('=').expect("a condition of our own file has a value");
        let holds = match key {
            "cap" => capabilities.contains(&value),
            "nocap" => !capabilities.contains(&value),
            "arch" => listed(value),
            "noarch" => !listed(value),
            "errno" => {
                rule["action"] = "SCMP_ACT_ERRNO".into();
                rule["errnoRet"] = value.parse::<u32>().expect("a number in our own file").into();
                true
            }
            other => unreachable!("unknown condition {other} in our own file"),
        };
        if !holds {
            return None;
        }
    }
    if !arguments.is_empty() {
        rule["args"] = arguments.into();
    }
    Some(rule)
}

/// `0==1` or `0&6==0`.
fn parse_argument(text: &str) -> Value {
    let (left, value) = text.split_once("==").expect("a comparison in our own file");
    let number = |text: &str| text.parse::<u64>().expect("a number in our own file");
    match left.split_once('&') {
        // The runtime's masked comparison has the mask in `value`.
        Some((index, mask)) => json!({
            "index": number(index), "value": number(mask), "valueTwo": number(value), "op": "SCMP_CMP_MASKED_EQ"
        }),
        None => json!({ "index": number(left), "value": number(value), "op": "SCMP_CMP_EQ" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(profile: &Value, name: &str) -> bool {
        profile["syscalls"].as_array().unwrap().iter().any(|rule| {
            rule["action"] == "SCMP_ACT_ALLOW"
                && rule["args"].is_null()
                && rule["names"].as_array().unwrap().iter().any(|n| n == name)
        })
    }

    #[test]
    fn capabilities_decide_what_is_allowed() {
        let plain = default_profile(&["CAP_CHOWN"]);
        let admin = default_profile(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
        for (name, by_plain, by_admin) in [
            ("read", true, true),
            ("mount", false, true),
            ("clone3", false, true),
            ("kcmp", false, true),
            ("io_uring_setup", false, false),
            ("keyctl", false, false),
        ] {
            assert_eq!((allows(&plain, name), allows(&admin, name)), (by_plain, by_admin), "{name}");
        }
        let clone3 =
            plain["syscalls"].as_array().unwrap().iter().find(|r| r["names"][0] == "clone3").unwrap();
        assert_eq!((&clone3["action"], &clone3["errnoRet"]), (&"SCMP_ACT_ERRNO".into(), &38.into()));
    }
}
