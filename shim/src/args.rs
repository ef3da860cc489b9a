//! The command line, as containerd writes it: Go flags (one or two dashes, `-flag value` or `-flag=value`), then an
//! action.

use crate::io::logger::Await;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Usage: containerd-shim-gantry-v2 -namespace NS -id ID -address SOCKET [-bundle DIR] [-debug] start|delete|adopt

The parent of one container. A containerd starts it; `ctr run --runtime io.containerd.gantry.v2 ...` makes it do so.

  start     make the socket, detach, and print its address; the current directory is the bundle
  delete    end what is left of the container and print a DeleteResponse; the current directory is the bundle
  adopt     start in the place of a shim that was killed, from what it left in the bundle, the current directory
  -info     print a RuntimeInfo of the runtime (standard input: its options)
  -v        print the version
  -check-state         say whether this binary understands a running shim's state (standard input)
  -await N LOG PROGRAM ...  become this program once descriptor N has something or ends; complain in LOG
  -await-byte N ...    the same, where it may not end
  -write-log           write a log from its queue (standard input: its state); a running shim starts it
  -compress LOG N      gzip the rotated files of a log, of which N are kept; a running shim starts it

SIGUSR2 to a running shim: the binary that is now at its path takes over, in the same process.

  -namespace NS        containerd's namespace of the container
  -id ID               the container's id
  -address SOCKET      containerd's gRPC socket; events go to $TTRPC_ADDRESS
  -bundle DIR          the bundle, for delete
  -publish-binary P, -socket S, -debug-socket S, -debug    accepted
";

/// What the daemon tells every shim.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) bundle: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Help,
    Version,
    Info,
    Start(Args),
    Delete(Args),
    Adopt(Args),
    /// Say whether the state on standard input could be taken over.
    CheckState,
    /// Go on in a process that an earlier binary has left, with its state in this descriptor.
    Resume(i32),
    /// Become a command once a client's logging program is ready.
    Await(Await),
    /// Write a log, of which standard input tells.
    WriteLog,
    /// Compress the rotated files of this log, of which so many are kept.
    Compress(PathBuf, u32),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ArgsError {
    #[error("unknown flag {0:?}; -h lists the flags")]
    Flag(String),
    #[error("flag {0} needs a value")]
    Value(String),
    #[error("{0} cannot be empty: a containerd gives it")]
    Missing(&'static str),
    #[error("{0:?} is no container id or namespace: letters, digits, and . _ - between them")]
    Identifier(String),
    #[error("{0:?} is no action: start, delete or adopt")]
    Action(String),
    #[error("{0:?} is no descriptor")]
    Descriptor(String),
    #[error("an argument is not UTF-8")]
    Encoding,
}

/// Reads a command line without the program's name.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Action, ArgsError> {
    let mut args = Args::default();
    let mut action = None;
    let mut info = false;
    let mut state = None;
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_str().ok_or(ArgsError::Encoding)?;
        let Some(flag) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')) else {
            action = Some(text.to_owned());
            break;
        };
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (flag, None),
        };
        match name {
            "h" | "help" => return Ok(Action::Help),
            "v" | "version" => return Ok(Action::Version),
            "info" => info = true,
            "check-state" => return Ok(Action::CheckState),
            "write-log" => return Ok(Action::WriteLog),
            "await" | "await-byte" => {
                let number = rest.next().and_then(|number| number.to_str()?.parse().ok());
                let (Some(descriptor), Some(log)) = (number, rest.next()) else {
                    return Err(ArgsError::Value(text.to_owned()));
                };
                let by_byte = name == "await-byte";
                return Ok(Action::Await(Await { descriptor, by_byte, log, command: rest.collect() }));
            }
            "compress" => {
                let log = rest.next().map(PathBuf::from);
                let count = rest.next().and_then(|count| count.to_str()?.parse().ok());
                let (Some(log), Some(count)) = (log, count) else {
                    return Err(ArgsError::Value(text.to_owned()));
                };
                return Ok(Action::Compress(log, count));
            }
            "state" => {
                let value = inline.or_else(|| rest.next()).unwrap_or_default();
                let number = value.to_str().and_then(|text| text.parse().ok());
                state = Some(number.ok_or_else(|| ArgsError::Descriptor(value.display().to_string()))?);
            }
            "debug" => {}
            "namespace" | "id" | "address" | "bundle" | "publish-binary" | "socket" | "debug-socket" => {
                let value =
                    inline.or_else(|| rest.next()).ok_or_else(|| ArgsError::Value(text.to_owned()))?;
                store(&mut args, name, &value)?;
            }
            _ => return Err(ArgsError::Flag(text.to_owned())),
        }
    }
    if info {
        return Ok(Action::Info);
    }
    for (value, name) in [(&args.namespace, "namespace"), (&args.id, "id")] {
        if value.is_empty() {
            return Err(ArgsError::Missing(name));
        }
        if !is_identifier(value) {
            return Err(ArgsError::Identifier(value.clone()));
        }
    }
    match action.as_deref() {
        Some("start") => Ok(state.map_or(Action::Start(args), Action::Resume)),
        Some("adopt") => Ok(state.map_or(Action::Adopt(args), Action::Resume)),
        Some("delete") => Ok(Action::Delete(args)),
        other => Err(ArgsError::Action(other.unwrap_or_default().to_owned())),
    }
}

fn store(args: &mut Args, name: &str, value: &OsStr) -> Result<(), ArgsError> {
    let text = || value.to_str().map(str::to_owned).ok_or(ArgsError::Encoding);
    match name {
        "namespace" => args.namespace = text()?,
        "id" => args.id = text()?,
        "address" => args.address = text()?,
        "bundle" => args.bundle = Some(PathBuf::from(value)),
        _ => {}
    }
    Ok(())
}

/// containerd's identifier rule; such a text is also safe as a file name.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() <= 76
        && text
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Action, ArgsError> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn containerd_s_own_command_lines() {
        let expected = Args {
            namespace: "default".into(),
            id: "web-1".into(),
            address: "/run/c.sock".into(),
            bundle: None,
        };
        let line =
            "-namespace default -address /run/c.sock -publish-binary /usr/bin/containerd -id web-1 start";
        assert_eq!(parse_words(line), Ok(Action::Start(expected.clone())));
        let line = "--namespace=default --id=web-1 -address /run/c.sock -bundle /b -debug delete";
        assert_eq!(parse_words(line), Ok(Action::Delete(Args { bundle: Some("/b".into()), ..expected })));
    }

    #[test]
    fn wrong_command_lines_say_what_is_wrong() {
        assert_eq!(parse_words("-id a start"), Err(ArgsError::Missing("namespace")));
        assert_eq!(parse_words("-namespace n -id ../a start"), Err(ArgsError::Identifier("../a".into())));
        assert_eq!(parse_words("-namespace n -id a stop"), Err(ArgsError::Action("stop".into())));
        assert_eq!(parse_words("-wrong"), Err(ArgsError::Flag("-wrong".into())));
        assert_eq!(parse_words("-id"), Err(ArgsError::Value("-id".into())));
        assert_eq!(parse_words("-compress /l x"), Err(ArgsError::Value("-compress".into())));
    }
}
