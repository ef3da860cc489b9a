use std::process::Command;

use super::print;
use crate::args::{Global, ListFormat};
use crate::container::{Container, Request};
use crate::error::{Error, Result, Step};
use crate::rootless::require_rights;

pub(super) fn ps(global: &Global, id: &str, format: ListFormat, options: &[String]) -> Result<i32> {
    require_rights(global.rootless)?;
    let container = Container::load(&global.root, id)?;
    container.status().allows(Request::Processes)?;
    let processes = container.cgroup().processes()?;
    if format == ListFormat::Json {
        let text = serde_json::to_string(&processes).map_err(|error| Error::invalid(error.to_string()))?;
        return print(&(text + "\n"));
    }
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let output = Command::new("ps").args(options).output().step(|| "run ps".into())?;
    if !output.status.success() {
        return Err(Error::invalid(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end())));
    }
    print(&filter(&String::from_utf8_lossy(&output.stdout), &processes)?)
}

/// The title, and the lines whose pid is one of the container's.
fn filter(text: &str, processes: &[i32]) -> Result<String> {
    let title = text.lines().next().unwrap_or_default();
    let column = title
        .split_whitespace()
        .position(|word| word == "PID")
        .ok_or_else(|| Error::invalid("couldn't find PID field in ps output"))?;
    let ours = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| processes.contains(&pid))
    };
    let lines = std::iter::once(title).chain(text.lines().skip(1).filter(ours));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_are_left() {
        let text = "UID PID CMD\nroot 1 init\nroot 42 sleep 1\n";
        assert_eq!(filter(text, &[42]).expect("has a PID column"), "UID PID CMD\nroot 42 sleep 1\n");
        assert!(filter("UID CMD\n", &[1]).is_err());
    }
}
