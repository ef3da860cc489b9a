//! The last steps of a process, the same for a container's first and for any later one: where it stands, who it
//! is, what it may do, and the exec.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use super::diagnose;
use crate::error::{Error, Result, Step};
use crate::seccomp::Filter;
use crate::seccomp::notify::{Listener, Subject};
use crate::setup::capabilities::{self, Plan as Capabilities};
use crate::setup::{rlimits, scheduling, user};
use crate::spec::{ConsoleSize, Process, Rlimit, User};
use crate::sys::files::{self, CStrings};
use crate::sys::{self, prctl};

/// Decided before the clone.
pub(crate) struct Plan {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: User,
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Option<Filter>,
    /// Who is to get the filter's listener.
    pub(crate) listener: Option<Listener>,
    pub(crate) apparmor_profile: String,
    pub(crate) selinux_label: String,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) may_set_groups: bool,
    pub(crate) rlimits: Vec<Rlimit>,
    scheduling: scheduling::Plan,
    /// For a process that joins; empty for the first one.
    pub(crate) affinity: scheduling::Affinity,
    /// Descriptors from 3 on that the program gets.
    passed_descriptors: i32,
}

pub(crate) fn plan(process: &Process, seccomp: Option<Filter>, preserve_fds: u32) -> Result<Plan> {
    let (listen, mut environment) = (listen_fds(), deduplicated(&process.env));
    let passed = preserve_fds.checked_add(listen).and_then(|n| i32::try_from(n).ok());
    let passed_descriptors = passed.ok_or_else(|| Error::invalid("too many descriptors to preserve"))?;
    for number in 3 + listen as i32..3 + passed_descriptors {
        if files::inherited(number).is_none() {
            return Err(Error::invalid(format!("unable to preserve descriptor {number}: it is not open")));
        }
    }
    if listen > 0 {
        environment.push(format!("LISTEN_FDS={listen}"));
        environment.push("LISTEN_PID=1".into());
    }
    Ok(Plan {
        arguments: process.args.clone(),
        environment,
        cwd: process.cwd.clone(),
        user: process.user.clone(),
        // Who asks for none gets none.
        capabilities: process.capabilities.as_ref().map(capabilities::plan).unwrap_or_default(),
        no_new_privileges: process.no_new_privileges,
        seccomp,
        listener: None,
        apparmor_profile: process.apparmor_profile.clone(),
        selinux_label: process.selinux_label.clone(),
        terminal: process.terminal,
        console_size: process.console_size,
        may_set_groups: true,
        rlimits: process.rlimits.clone(),
        scheduling: scheduling::plan(process)?,
        affinity: scheduling::Affinity::default(),
        passed_descriptors,
    })
}

/// Of several values of a variable the last holds, in the place of the first.
fn deduplicated(environment: &[String]) -> Vec<String> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(environment.len());
    let mut list: Vec<String> = Vec::with_capacity(environment.len() + 3);
    for pair in environment {
        let name = pair.split_once('=').map_or(pair.as_str(), |(name, _)| name);
        match places.get(name) {
            Some(&place) => list[place] = pair.clone(),
            None => {
                places.insert(name, list.len());
                list.push(pair.clone());
            }
        }
    }
    list
}

/// Sockets handed to us by the protocol of systemd are meant for the container.
fn listen_fds() -> u32 {
    const MOST: u32 = 1024;
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let ours = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|&n| ours && n <= MOST).unwrap_or(0)
}

impl Plan {
    /// Every descriptor but those to be passed on ends with an exec, the program's as well as a hook's.
    pub(crate) fn keep_to_ourselves(&self) -> Result<()> {
        files::cloexec_from(3 + self.passed_descriptors).step(|| "close descriptors".into())
    }
}

/// A process about to execute its program.
pub(crate) struct Program {
    path: std::ffi::CString,
    arguments: CStrings,
    environment: CStrings,
    /// For the receiver of the filter's listener.
    announcement: Vec<u8>,
}

impl Plan {
    /// Empty where nobody listens.
    pub(super) fn announcement(&self, subject: &Subject<'_>) -> Result<Vec<u8>> {
        self.listener.as_ref().map_or(Ok(Vec::new()), |listener| listener.message(subject))
    }

    fn install_filter(&self, filter: &Filter, program: &Program) -> Result<()> {
        match (filter.install()?, &self.listener) {
            (Some(fd), Some(listener)) => listener.send(&program.announcement, &fd),
            _ => Ok(()),
        }
    }
}

/// Everything up to the point where only seccomp and the exec are left. From here on the process has the rights
/// of its program, and the right to install a filter in reserve.
/// `announcement`: for the receiver of the filter's listener.
pub(crate) fn settle(plan: &Plan, announcement: Vec<u8>) -> Result<Program> {
    plan.scheduling.apply()?;
    plan.affinity.apply_final()?;
    // Once as root, who may pass where the user may not; once more as the user, who may see what root may not.
    let early = std::env::set_current_dir(&plan.cwd);
    if plan.user.uid != 0 || plan.user.gid != 0 {
        user::own_standard_streams(&plan.user);
    }
    plan.capabilities.apply_bounding()?;
    prctl::set_keep_capabilities(true).step(|| "keep capabilities".into())?;
    rlimits::apply(&plan.rlimits)?;
    user::apply(&plan.user, plan.may_set_groups)?;
    plan.capabilities.apply_with_reserve(plan.seccomp.is_some() && !plan.no_new_privileges)?;
    if early.is_err() {
        std::env::set_current_dir(&plan.cwd).map_err(|error| {
            let (words, reason) = (sys::errno_text(&error), diagnose::why_no_directory(&plan.cwd, &error));
            let cwd = &plan.cwd;
            Error::invalid(format!("chdir to cwd ({cwd:?}) set in config.json failed: {words}{reason}"))
        })?;
    }
    verify_cwd()?;
    let environment = with_home(&plan.environment, plan.user.uid);
    let path = look_up(&plan.arguments[0], &environment)?;
    let strings = |list: &[String]| -> Result<CStrings> {
        let list = list.iter().map(|text| sys::cstring(text.as_str())).collect::<std::io::Result<Vec<_>>>();
        Ok(CStrings::new(list.step(|| "arguments and environment".into())?))
    };
    Ok(Program {
        path: sys::cstring(path).step(|| "the program's path".into())?,
        arguments: strings(&plan.arguments)?,
        environment: strings(&environment)?,
        announcement,
    })
}

/// Returns only with the reason why it failed. After the filter is in force only calls that change this
/// thread's capabilities come before the exec, and with no_new_privileges none.
/// The hooks are those inside the container: they are what its filter lets them be, as the program is.
pub(crate) fn execute(plan: &Plan, program: &Program, hooks: Option<&dyn Fn() -> Result<()>>) -> Error {
    let settle_rights = || -> Result<()> {
        match &plan.seccomp {
            Some(filter) if !plan.no_new_privileges => {
                plan.capabilities.use_reserve()?;
                plan.install_filter(filter, program)?;
                plan.capabilities.apply()
            }
            filter => {
                plan.capabilities.apply()?;
                filter.as_ref().map_or(Ok(()), |filter| plan.install_filter(filter, program))
            }
        }
    };
    let last_steps = || -> Result<()> {
        plan.keep_to_ourselves()?;
        if hooks.is_none() {
            sys::signal::reset_all();
        }
        if plan.no_new_privileges {
            prctl::set_no_new_privileges().step(|| "set no_new_privs".into())?;
        }
        settle_rights()?;
        if let Some(hooks) = hooks {
            hooks()?;
            sys::signal::reset_all();
        }
        Ok(())
    };
    if let Err(error) = last_steps() {
        return error;
    }
    let source = files::execve(&program.path, &program.arguments, &program.environment);
    let path = program.path.to_string_lossy();
    let (words, reason) = (sys::errno_text(&source), diagnose::why_not(&path, &source));
    Error::NotExecuted(format!("exec {path}: {words}{reason}"))
}

/// A directory outside the root, entered through a leaked descriptor, has no path from it (CVE-2024-21626).
fn verify_cwd() -> Result<()> {
    let cwd = rustix::process::getcwd(Vec::new());
    match cwd {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Error::invalid(
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )),
    }
}

/// HOME from the container's passwd file where the environment has none. The file is the image's: it is read
/// as plain data, and only so much of it.
fn with_home(environment: &[String], uid: u32) -> Vec<String> {
    const MOST_BYTES: u64 = 1 << 20;
    let mut environment = environment.to_vec();
    if environment.iter().any(|pair| pair.starts_with("HOME=") && pair.len() > "HOME=".len()) {
        return environment;
    }
    environment.retain(|pair| pair != "HOME=");
    let mut passwd = String::new();
    if fs::metadata("/etc/passwd").is_ok_and(|meta| meta.is_file())
        && let Ok(file) = fs::File::open("/etc/passwd")
    {
        let _ = file.take(MOST_BYTES).read_to_string(&mut passwd);
    }
    environment.push(format!("HOME={}", home_of(&passwd, uid).unwrap_or("/")));
    environment
}

fn home_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = fields.nth(2)?;
        let home = fields.nth(2)?;
        (id.parse() == Ok(uid) && home.starts_with('/')).then_some(home)
    })
}

/// Find the program as a shell would; the words of each refusal are what engines turn into 126 and 127.
fn look_up(name: &str, environment: &[String]) -> Result<String> {
    let refuse = |text: &str| Error::invalid(format!("exec: {name:?}: {text}"));
    if name.contains('/') {
        return match executable(name) {
            Ok(true) => Ok(name.to_owned()),
            Ok(false) => Err(refuse(&format!("permission denied: {}", diagnose::why_denied(name)))),
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
                Err(refuse("is a directory: permission denied"))
            }
            Err(error) => {
                let reason = match error.raw_os_error() {
                    Some(libc::ENOENT) => {
                        ": the container has no such file: check the path, or install the program"
                    }
                    Some(libc::EACCES) => ": a directory on its path may not be entered by the user",
                    _ => "",
                };
                Err(refuse(&format!("stat {name}: {}{reason}", sys::errno_text(&error))))
            }
        };
    }
    let path = environment.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = None;
    for dir in path.split(':') {
        let candidate = format!("{}/{name}", if dir.is_empty() { "." } else { dir });
        match executable(&candidate) {
            Ok(true) => return Ok(candidate),
            Ok(false) => denied = denied.or(Some(candidate)),
            Err(_) => {}
        }
    }
    Err(refuse(&match denied {
        Some(file) => {
            format!(
                "executable file not found in $PATH: there is {file}, but {}",
                diagnose::why_denied(&file)
            )
        }
        None if path.is_empty() => {
            "executable file not found in $PATH: the environment has no PATH: set it, or give \
                                    the program's whole path"
                .into()
        }
        None => format!(
            "executable file not found in $PATH: the container has it in none of {path}: check the name, or install it"
        ),
    }))
}

fn executable(path: &str) -> std::io::Result<bool> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Err(std::io::Error::from_raw_os_error(libc::EISDIR));
    }
    let access = rustix::fs::Access::EXEC_OK;
    let flags = rustix::fs::AtFlags::EACCESS;
    Ok(meta.permissions().mode() & 0o111 != 0
        && rustix::fs::accessat(rustix::fs::CWD, path, access, flags).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_variable_holds() {
        let list = ["A=1", "B=2", "A=3", "C="].map(str::to_owned);
        assert_eq!(deduplicated(&list), ["A=3", "B=2", "C="]);
    }

    #[test]
    fn homes_come_from_well_formed_lines() {
        let passwd =
            "broken\nroot:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\nbad:x:5:5::relative:\n";
        assert_eq!(home_of(passwd, 0), Some("/root"));
        assert_eq!(home_of(passwd, 1000), Some("/home/u"));
        assert_eq!(home_of(passwd, 5), None);
        assert_eq!(home_of(passwd, 7), None);
    }

    #[test]
    fn refusals_use_the_words_engines_match() {
        let path = ["PATH=/usr/bin:/bin".to_owned()];
        assert!(look_up("sh", &path).is_ok());
        for (name, words) in [
            ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
            ("/no/such", "no such file or directory"),
            ("/etc/passwd", "permission denied"),
            ("/etc", "is a directory: permission denied"),
        ] {
            let error = look_up(name, &path).expect_err(name).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
