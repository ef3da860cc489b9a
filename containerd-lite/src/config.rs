//! Flags and config.toml: containerd's names, flags win.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const DEFAULT_FILE: &str = "/etc/containerd-lite/config.toml";
const DEFAULT_ROOT: &str = "/var/lib/containerd-lite";
const DEFAULT_STATE: &str = "/run/containerd-lite";
/// Bytes a socket's path may have (sun_path, with its final NUL); `.ttrpc` is appended to the address.
const MAX_SOCKET_PATH: usize = 107 - ".ttrpc".len();

/// A container manager that speaks containerd's gRPC API.
///
/// It keeps images, snapshots and container records under --root, starts one shim per container, and
/// reconnects to the shims when it is started again: containers keep running while it is down.
/// Talk to it with `ctr -a /run/containerd-lite/containerd.sock`, or give the socket to gantryd.
#[derive(Debug, Parser)]
#[command(name = "containerd-lite", version, disable_version_flag = true)]
pub struct Options {
    /// Configuration file (TOML; `containerd-lite config default` prints one). Absent is fine unless given here
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What must survive a reboot: content, snapshots, metadata [default: /var/lib/containerd-lite]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What ends with a reboot: bundles of running containers [default: /run/containerd-lite]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Unix socket to listen on; events from shims are taken at this path + ".ttrpc"
    /// [default: /run/containerd-lite/containerd.sock]
    #[arg(short, long, global = true, value_name = "SOCKET")]
    address: Option<PathBuf>,
    /// When shims that run become a binary that was put in the place of theirs: at SIGHUP to this daemon (on-request),
    /// when it starts as well (on-start), or never [default: on-request]
    #[arg(long, global = true, value_name = "WHEN", hide_possible_values = true)]
    shim_upgrade: Option<ShimUpgrade>,
    /// trace, debug, info, warn or error [default: info]
    #[arg(short, long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Print the version
    #[arg(short, short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    subcommand: Option<Subcommands>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Show the configuration
    Config {
        #[command(subcommand)]
        which: Which,
    },
}

#[derive(Debug, Subcommand)]
enum Which {
    /// Print the default configuration file
    Default,
    /// Print the configuration in force: file and flags together
    Dump,
}

/// What to do instead of serving.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    ConfigDefault,
    ConfigDump,
}

impl Options {
    pub fn command(&self) -> Option<Command> {
        match &self.subcommand {
            None => None,
            Some(Subcommands::Config { which: Which::Default }) => Some(Command::ConfigDefault),
            Some(Subcommands::Config { which: Which::Dump }) => Some(Command::ConfigDump),
        }
    }
}

/// The file. Sections it does not know are containerd's for parts that are not here; they are ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    version: u32,
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) shim_upgrade: ShimUpgrade,
    pub(crate) grpc: Grpc,
    debug: Debug,
}

/// When shims that run become the binary that is at their path by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ShimUpgrade {
    OnStart,
    /// Nothing changes under a container because a daemon was started anew.
    #[default]
    OnRequest,
    Never,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grpc {
    pub(crate) address: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Debug {
    level: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            version: 3,
            root: DEFAULT_ROOT.into(),
            state: DEFAULT_STATE.into(),
            shim_upgrade: ShimUpgrade::default(),
            grpc: Grpc::default(),
            debug: Debug::default(),
        }
    }
}

impl Default for Grpc {
    fn default() -> Grpc {
        Grpc { address: Path::new(DEFAULT_STATE).join("containerd.sock"), uid: 0, gid: 0 }
    }
}

impl Default for Debug {
    fn default() -> Debug {
        Debug { level: "info".to_owned() }
    }
}

impl Config {
    /// Reads the file, lays the flags over it and checks the whole.
    pub(crate) fn load(options: &Options) -> Result<Config> {
        let mut config = read_file(options.config.as_deref())?;
        if let Some(root) = &options.root {
            config.root.clone_from(root);
        }
        if let Some(state) = &options.state {
            config.state.clone_from(state);
            if options.address.is_none() && config.grpc.address == Grpc::default().address {
                config.grpc.address = state.join("containerd.sock");
            }
        }
        if let Some(address) = &options.address {
            config.grpc.address.clone_from(address);
        }
        if let Some(when) = options.shim_upgrade {
            config.shim_upgrade = when;
        }
        if let Some(level) = &options.log_level {
            config.debug.level.clone_from(level);
        }
        config.check()?;
        Ok(config)
    }

    fn check(&mut self) -> Result<()> {
        if !(1..=4).contains(&self.version) {
            bail!("config version {} is not known, 1 to 4 are", self.version);
        }
        if let Some(path) = self.grpc.address.to_str().and_then(|text| text.strip_prefix("unix://")) {
            self.grpc.address = path.into();
        }
        for (name, path) in
            [("root", &mut self.root), ("state", &mut self.state), ("address", &mut self.grpc.address)]
        {
            // Shims are started in other directories and are given these paths.
            *path = std::path::absolute(&*path).with_context(|| format!("{name} {:?}", path.display()))?;
            if path.to_str().is_none() {
                bail!("{name} {} is not UTF-8", path.display());
            }
        }
        if self.root == self.state {
            bail!("root and state must be two directories, both are {}", self.root.display());
        }
        if self.address().len() > MAX_SOCKET_PATH {
            bail!(
                "address {} is longer than the {MAX_SOCKET_PATH} bytes a socket path may have",
                self.address()
            );
        }
        self.level()?;
        Ok(())
    }

    pub(crate) fn level(&self) -> Result<tracing::Level> {
        self.debug.level.parse().map_err(|_| {
            anyhow::anyhow!("log level {:?} is none of trace, debug, info, warn, error", self.debug.level)
        })
    }

    pub(crate) fn address(&self) -> &str {
        self.grpc.address.to_str().unwrap_or_default()
    }

    /// Where shims forward their events.
    pub(crate) fn ttrpc_address(&self) -> String {
        format!("{}.ttrpc", self.address())
    }

    pub(crate) fn debug(&self) -> bool {
        self.level().is_ok_and(|level| level >= tracing::Level::DEBUG)
    }

    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain tables of text and numbers")
    }
}

fn read_file(given: Option<&Path>) -> Result<Config> {
    let path = given.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if given.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Config::default());
        }
        Err(error) => return Err(error).with_context(|| format!("read config {}", path.display())),
    };
    toml::from_str(&text).with_context(|| format!("config {}", path.display()))
}

/// What `config default` prints.
pub fn default_config() -> String {
    Config::default().to_toml()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, flags: &[&str]) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        let argv = ["containerd-lite", "--config", path.to_str().unwrap()];
        Config::load(&Options::try_parse_from(argv.iter().chain(flags)).unwrap())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_defaults() {
        let file = "version = 2\nroot = '/r'\n[grpc]\naddress = '/a.sock'\n[plugins.x]\ny = 1\n";
        let config = load(file, &["--state", "/s"]).unwrap();
        assert_eq!((config.root, config.state), ("/r".into(), "/s".into()));
        assert_eq!(config.grpc.address, Path::new("/a.sock"));
        let config = load(file, &["--root", "/x", "-a", "unix:///b.sock"]).unwrap();
        assert_eq!(config.root, Path::new("/x"));
        assert_eq!(config.ttrpc_address(), "/b.sock.ttrpc");
        let config = load("", &["--state", "/s"]).unwrap();
        assert_eq!(config.address(), "/s/containerd.sock");
        assert_eq!(config.shim_upgrade, ShimUpgrade::OnRequest);
        let file = "shim_upgrade = 'on-start'\n";
        assert_eq!(load(file, &[]).unwrap().shim_upgrade, ShimUpgrade::OnStart);
        assert_eq!(load(file, &["--shim-upgrade", "never"]).unwrap().shim_upgrade, ShimUpgrade::Never);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let long = format!("/{}", "x".repeat(110));
        for (file, flags) in [
            ("root = 3", vec![]),
            ("version = 9", vec![]),
            ("", vec!["--root", "/x", "--state", "/x"]),
            ("", vec!["-l", "loud"]),
            ("shim_upgrade = 'always'", vec![]),
            ("", vec!["-a", &long]),
            ("[grpc", vec![]),
        ] {
            assert!(load(file, &flags).is_err(), "{file} {flags:?}");
        }
    }

    #[test]
    fn the_default_file_reads_back() {
        let config: Config = toml::from_str(&default_config()).unwrap();
        assert_eq!(config.root, Path::new(DEFAULT_ROOT));
    }
}
