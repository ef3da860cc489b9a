//! Commands on the engine, its networks and volumes, and on this program.

use clap::{ArgAction, Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Format {
    /// Format output using a Go template, or json
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Format output using a Go template, or json
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short = 's', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) size: bool,
    /// Only inspect objects of the given type: container, image, network, volume
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    #[arg(value_name = "NAME|ID", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Format output: json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Username
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password; --password-stdin does not show it to other users of the machine
    #[arg(short, long, value_name = "PASSWORD")]
    pub(crate) password: Option<String>,
    /// Take the password from stdin
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) password_stdin: bool,
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Provide filter values (e.g. until=<timestamp>)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// bash, zsh, fish, elvish or powershell
    pub(crate) shell: clap_complete::Shell,
}

/// A listing of networks or volumes.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Provide filter values (e.g. driver=bridge)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Do not truncate the output
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) no_trunc: bool,
    /// Only display IDs or names
    #[arg(short = 'q', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectNames {
    /// Format output using a Go template, or json
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List networks
    #[command(alias = "list")]
    Ls(List),
    /// Display detailed information on one or more networks
    Inspect(InspectNames),
}

#[derive(Debug, Args)]
pub(crate) struct VolumeCreate {
    /// Set metadata for a volume
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    #[arg(value_name = "VOLUME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeRemove {
    /// Force the removal of one or more volumes
    #[arg(short = 'f', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) force: bool,
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List volumes
    #[command(alias = "list")]
    Ls(List),
    /// Create a volume
    Create(VolumeCreate),
    /// Display detailed information on one or more volumes
    Inspect(InspectNames),
    /// Remove one or more volumes
    #[command(alias = "remove")]
    Rm(VolumeRemove),
}
