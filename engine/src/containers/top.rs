//! `GET /containers/{id}/top`: the host's `ps`, cut down to the container's processes.

use super::publish;
use super::state::{self, Request};
use crate::Ctx;
use crate::error::Error;
use crate::view::Container;
use proto::docker::container::TopResponse;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) async fn top(ctx: &Ctx, container: &Container, arguments: &str) -> Result<TopResponse, Error> {
    state::check(Request::Top, container.live(), &container.id, &container.name())?;
    let arguments = if arguments.is_empty() { "-ef" } else { arguments };
    check_arguments(arguments)?;
    let pids = ctx.containerd.pids(&container.id).await?;
    let work =
        tokio::process::Command::new("ps").args(arguments.split_whitespace()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, work)
        .await
        .map_err(|_| Error::internal("error running ps: no answer in time"))?
        .map_err(|error| Error::io("error running ps", &error))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::internal(format!("ps: {}", words.trim().lines().next().unwrap_or(""))));
    }
    let table = parse(&String::from_utf8_lossy(&output.stdout), &pids)?;
    publish(ctx, container, "top", &[]);
    Ok(table)
}

/// Columns renamed by the caller cannot be told from the pid column.
fn check_arguments(arguments: &str) -> Result<(), Error> {
    for word in arguments.split_whitespace() {
        let list = word.strip_prefix("-o").unwrap_or(word);
        for column in list.split(',') {
            if let Some((name, title)) = column.split_once('=')
                && name != "pid"
                && title.eq_ignore_ascii_case("pid")
            {
                return Err(Error::invalid(format!("specifying \"{name}={title}\" is not allowed")));
            }
        }
    }
    Ok(())
}

fn parse(text: &str, pids: &[u32]) -> Result<TopResponse, Error> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or("").split_whitespace().map(str::to_owned).collect();
    let pid_column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::internal("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() < titles.len()
            || !fields[pid_column].parse::<u32>().is_ok_and(|pid| pids.contains(&pid))
        {
            continue;
        }
        // The command is the last column and has spaces of its own.
        let (front, command) = fields.split_at(titles.len() - 1);
        let mut process: Vec<String> = front.iter().map(|field| (*field).to_owned()).collect();
        process.push(command.join(" "));
        processes.push(process);
    }
    Ok(TopResponse { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let text = "UID   PID  PPID CMD\nroot    1     0 init\nroot   42     1 sleep 300 x\n";
        let table = parse(text, &[42]).unwrap();
        assert_eq!(table.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(table.processes, [["root", "42", "1", "sleep 300 x"]]);
        assert!(parse("X Y\n", &[]).is_err());
        assert!(check_arguments("-o user=PID,cmd").is_err() && check_arguments("-o pid,cmd").is_ok());
    }
}
