//! The command line as typed. Clap structs only; meaning is given in `commands`, values are read in `opts`.

pub(crate) mod container;
pub(crate) mod image;
pub(crate) mod system;

use crate::exit::Failure;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// Containers, with docker's commands.
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version,
    disable_version_flag = true,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "The engine is gantryd. Where none runs, 'gantry --standalone run IMAGE' starts one for this command.\n\
                  'gantry COMMAND --help' says more about a command."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Engine to talk to: unix:///PATH or tcp://HOST:PORT [default: $GANTRY_HOST, $DOCKER_HOST, the local gantryd]
    #[arg(short = 'H', long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Directory of config.json with credentials [default: $DOCKER_CONFIG, ~/.docker]
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// Start the daemons for this command and stop them after it, with their state in the user's runtime directory
    #[arg(long)]
    pub(crate) standalone: bool,
    /// Say more
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
    /// Accepted for docker's sake
    #[arg(short = 'l', long, hide = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Print the version and quit
    #[arg(short = 'v', long = "version", action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create and run a new container from an image
    #[command(disable_help_flag = true)]
    Run(Box<container::Run>),
    /// Execute a command in a running container
    Exec(container::Exec),
    /// List containers
    #[command(alias = "list")]
    Ps(container::Ps),
    /// List images
    Images(image::List),
    /// Download an image from a registry
    Pull(image::Pull),
    /// Create a new container
    #[command(disable_help_flag = true)]
    Create(Box<container::Create>),
    /// Start one or more stopped containers
    Start(container::Start),
    /// Stop one or more running containers
    Stop(container::Stop),
    /// Restart one or more containers
    Restart(container::Stop),
    /// Kill one or more running containers
    Kill(container::Kill),
    /// Remove one or more containers
    Rm(container::Remove),
    /// Fetch the logs of a container
    Logs(container::Logs),
    /// Attach local standard input, output, and error streams to a running container
    Attach(container::Attach),
    /// Block until one or more containers stop, then print their exit codes
    Wait(container::Names),
    /// Display the running processes of a container
    Top(container::Top),
    /// Return low-level information on objects
    Inspect(system::Inspect),
    /// Rename a container
    Rename(container::Rename),
    /// Pause all processes within one or more containers
    Pause(container::Names),
    /// Unpause all processes within one or more containers
    Unpause(container::Names),
    /// Update configuration of one or more containers
    Update(container::Update),
    /// List port mappings of a container
    Port(container::Port),
    /// Load images from a tar archive or standard input
    Load(image::Load),
    /// Save one or more images to a tar archive
    Save(image::Save),
    /// Import the contents from a tarball to create a filesystem image
    Import(image::Import),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(image::Tag),
    /// Remove one or more images
    Rmi(image::Remove),
    /// Show the history of an image
    History(image::History),
    /// Get real time events from the engine
    Events(system::Events),
    /// Display system-wide information
    Info(system::Format),
    /// Show the version information
    Version(system::Format),
    /// Authenticate to a registry
    Login(system::Login),
    /// Log out from a registry
    Logout(system::Logout),
    /// Manage containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(system::NetworkCommand),
    /// Manage volumes
    #[command(subcommand)]
    Volume(system::VolumeCommand),
    /// Manage the engine
    #[command(subcommand)]
    System(SystemCommand),
    /// Print a completion script
    Completion(system::Completion),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    /// Create and run a new container from an image
    #[command(disable_help_flag = true)]
    Run(Box<container::Run>),
    /// Execute a command in a running container
    Exec(container::Exec),
    /// List containers
    #[command(aliases = ["list", "ps"])]
    Ls(container::Ps),
    /// Create a new container
    #[command(disable_help_flag = true)]
    Create(Box<container::Create>),
    /// Start one or more stopped containers
    Start(container::Start),
    /// Stop one or more running containers
    Stop(container::Stop),
    /// Restart one or more containers
    Restart(container::Stop),
    /// Kill one or more running containers
    Kill(container::Kill),
    /// Remove one or more containers
    #[command(alias = "remove")]
    Rm(container::Remove),
    /// Fetch the logs of a container
    Logs(container::Logs),
    /// Attach local standard input, output, and error streams to a running container
    Attach(container::Attach),
    /// Block until one or more containers stop, then print their exit codes
    Wait(container::Names),
    /// Display the running processes of a container
    Top(container::Top),
    /// Display detailed information on one or more containers
    Inspect(container::Inspect),
    /// Rename a container
    Rename(container::Rename),
    /// Pause all processes within one or more containers
    Pause(container::Names),
    /// Unpause all processes within one or more containers
    Unpause(container::Names),
    /// Update configuration of one or more containers
    Update(container::Update),
    /// List port mappings of a container
    Port(container::Port),
    /// Remove all stopped containers
    Prune(system::Prune),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List images
    #[command(alias = "list")]
    Ls(image::List),
    /// Download an image from a registry
    Pull(image::Pull),
    /// Load images from a tar archive or standard input
    Load(image::Load),
    /// Save one or more images to a tar archive
    Save(image::Save),
    /// Import the contents from a tarball to create a filesystem image
    Import(image::Import),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(image::Tag),
    /// Remove one or more images
    #[command(alias = "remove")]
    Rm(image::Remove),
    /// Show the history of an image
    History(image::History),
    /// Display detailed information on one or more images
    Inspect(image::Inspect),
    /// Remove unused images
    Prune(image::Prune),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Get real time events from the engine
    Events(system::Events),
    /// Display system-wide information
    Info(system::Format),
}

/// Reads a command line; help and version texts are refusals with code 0.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, Failure> {
    let matches = Cli::command().try_get_matches_from(arguments).map_err(|error| refusal(&error))?;
    Cli::from_arg_matches(&matches).map_err(|error| refusal(&error))
}

/// docker's code and words for a command line that makes no sense.
fn refusal(error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Not through a Failure: this is what was asked for, and belongs on standard output.
            let _ = error.print();
            Failure::silent(0)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Failure::silent(0)
        }
        ErrorKind::UnknownArgument => {
            let argument = context(ContextKind::InvalidArg);
            if argument.starts_with('-') {
                Failure::new(125, format!("unknown flag: {argument}")).hint(usage(error))
            } else {
                Failure::new(1, format!("gantry: {}", arguments_wanted(&usage(error)))).hint(usage(error))
            }
        }
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand);
            Failure::new(1, format!("gantry: unknown command: gantry {name}"))
                .hint("Run 'gantry --help' for more information")
        }
        ErrorKind::MissingRequiredArgument => {
            Failure::new(1, format!("gantry: {}", arguments_wanted(&usage(error)))).hint(usage(error))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let (argument, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
            let long = argument.split(['[', ' ', '=']).next().unwrap_or_default();
            let (call, kind) = match error.kind() {
                ErrorKind::InvalidValue => ("ParseBool", "invalid syntax"),
                _ => ("ParseInt", number_fault(&value)),
            };
            let names = with_short(&Cli::command(), long);
            Failure::new(
                125,
                format!("invalid argument {value:?} for \"{names}\" flag: strconv.{call}: parsing {value:?}: {kind}"),
            )
            .hint(usage(error))
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Failure::new(125, first.trim_start_matches("error: ").to_owned()).hint(usage(error))
        }
    }
}

fn number_fault(value: &str) -> &'static str {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number { "value out of range" } else { "invalid syntax" }
}

/// `-m, --memory` of `--memory`, as docker names a flag.
fn with_short(command: &clap::Command, long: &str) -> String {
    let name = long.trim_start_matches('-');
    let own = command.get_arguments().find(|argument| argument.get_long() == Some(name));
    match own.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, {long}"),
        None => command
            .get_subcommands()
            .map(|sub| with_short(sub, long))
            .find(|found| found != long)
            .unwrap_or_else(|| long.to_owned()),
    }
}

/// docker's sentence about the number of arguments, from the usage line.
fn arguments_wanted(usage: &str) -> String {
    let line = usage.lines().find_map(|line| line.split_once("Usage: ")).map_or(usage, |(_, line)| line);
    let is_name = |word: &&str| !word.starts_with(['<', '[', '-']);
    let command: Vec<&str> = line.split_whitespace().take_while(is_name).collect();
    // A flag's value in the line is no argument.
    let mut needed = 0;
    let mut before = "";
    for word in line.split_whitespace() {
        needed += usize::from(word.starts_with('<') && !before.starts_with("--"));
        before = word;
    }
    let least = if line.trim_end().ends_with("...") { "at least " } else { "" };
    let command = command.join(" ");
    match needed {
        0 if least.is_empty() => format!("'{command}' accepts no arguments"),
        1 => format!("'{command}' requires {least}1 argument"),
        needed => format!("'{command}' requires {least}{needed} arguments"),
    }
}

fn usage(error: &clap::Error) -> String {
    match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => "Run 'gantry --help' for more information".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Cli, Failure> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn clap_finds_no_fault_in_the_definitions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_end_at_the_image() {
        let Command::Run(run) = words("gantry run -it --rm -e A=1 busybox sh -c -x --rm").unwrap().command
        else {
            panic!("a run")
        };
        assert!(run.create.interactive && run.create.tty && run.create.rm && !run.detach);
        assert_eq!(run.create.image, "busybox");
        assert_eq!(run.create.command, ["sh", "-c", "-x", "--rm"]);
    }

    #[test]
    fn the_short_h_of_run_is_the_host_name() {
        let Command::Run(run) = words("gantry run -h web x").unwrap().command else { panic!("a run") };
        assert_eq!(run.create.hostname.as_deref(), Some("web"));
        assert_eq!(words("gantry run --help").unwrap_err().code, 0);
    }

    #[test]
    fn booleans_take_values_as_in_docker() {
        let Command::Run(run) = words("gantry run --rm=false -t=true --sig-proxy=false x").unwrap().command
        else {
            panic!("a run")
        };
        assert!(!run.create.rm && run.create.tty && !run.sig_proxy);
    }

    #[test]
    fn wrong_lines_end_with_docker_s_codes() {
        assert_eq!(words("gantry run --nosuch x").unwrap_err().code, 125);
        assert_eq!(words("gantry ps --nosuch").unwrap_err().code, 125);
        assert_eq!(words("gantry run").unwrap_err().code, 1);
        assert_eq!(words("gantry nosuch").unwrap_err().code, 1);
        assert_eq!(words("gantry ps extra").unwrap_err().code, 1);
    }
}
