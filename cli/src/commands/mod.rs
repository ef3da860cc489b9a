//! The verbs: flags and a client in; a table, a stream or an exit code out.

mod attach;
mod container;
mod create;
mod image;
mod list;
mod system;

use crate::args::{Cli, Command, ContainerCommand, Global, ImageCommand, SystemCommand};
use crate::client::{Client, Host};
use crate::config::Config;
use crate::exit::{Failure, Result};
use crate::standalone::Standalone;

/// The engine when nothing else is said.
const DEFAULT_HOST: &str = "unix:///run/gantry/gantry.sock";

/// What every verb works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) config: Config,
}

/// Carries out a command line; the value is the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let command = match cli.command {
        Command::Completion(args) => return Ok(system::completion(&args)),
        Command::Logout(args) => return system::logout(Config::load(cli.global.config)?, &args),
        command => command,
    };
    let starts = matches!(
        command,
        Command::Run(_)
            | Command::Create(_)
            | Command::Container(ContainerCommand::Run(_) | ContainerCommand::Create(_))
    );
    let result = with_engine(cli.global, command).await;
    // Whatever keeps a container from being started has a code of its own.
    result.map_err(|failure| if starts && failure.code == 1 { failure.of_run() } else { failure })
}

async fn with_engine(global: Global, command: Command) -> Result<u8> {
    let config = Config::load(global.config.clone())?;
    if !global.standalone {
        let client = Client::connect(host(&global)?).await?;
        return dispatch(&Context { client, config }, command).await;
    }
    let standalone = Standalone::start().await?;
    let result = match Client::connect(standalone.host()).await {
        Ok(client) => dispatch(&Context { client, config }, command).await,
        Err(failure) => Err(failure),
    };
    standalone.finish().await;
    result
}

fn host(global: &Global) -> Result<Host> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let given = global.host.clone().or_else(|| variable("GANTRY_HOST")).or_else(|| variable("DOCKER_HOST"));
    Host::parse(given.as_deref().unwrap_or(DEFAULT_HOST))
}

async fn dispatch(ctx: &Context, command: Command) -> Result<u8> {
    match command {
        Command::Run(args) | Command::Container(ContainerCommand::Run(args)) => attach::run(ctx, *args).await,
        Command::Exec(args) | Command::Container(ContainerCommand::Exec(args)) => {
            attach::exec(ctx, args).await
        }
        Command::Ps(args) | Command::Container(ContainerCommand::Ls(args)) => {
            list::containers(ctx, args).await
        }
        Command::Images(args) | Command::Image(ImageCommand::Ls(args)) => list::images(ctx, args).await,
        Command::Pull(args) | Command::Image(ImageCommand::Pull(args)) => image::pull(ctx, args).await,
        Command::Create(args) | Command::Container(ContainerCommand::Create(args)) => {
            container::create(ctx, *args).await
        }
        Command::Start(args) | Command::Container(ContainerCommand::Start(args)) => {
            attach::start(ctx, args).await
        }
        Command::Stop(args) | Command::Container(ContainerCommand::Stop(args)) => {
            container::stop(ctx, args, "stop").await
        }
        Command::Restart(args) | Command::Container(ContainerCommand::Restart(args)) => {
            container::stop(ctx, args, "restart").await
        }
        Command::Kill(args) | Command::Container(ContainerCommand::Kill(args)) => {
            container::kill(ctx, args).await
        }
        Command::Rm(args) | Command::Container(ContainerCommand::Rm(args)) => {
            container::remove(ctx, args).await
        }
        Command::Logs(args) | Command::Container(ContainerCommand::Logs(args)) => {
            container::logs(ctx, args).await
        }
        Command::Attach(args) | Command::Container(ContainerCommand::Attach(args)) => {
            attach::attach(ctx, args).await
        }
        Command::Wait(args) | Command::Container(ContainerCommand::Wait(args)) => {
            container::wait(ctx, args).await
        }
        Command::Top(args) | Command::Container(ContainerCommand::Top(args)) => {
            container::top(ctx, args).await
        }
        Command::Rename(args) | Command::Container(ContainerCommand::Rename(args)) => {
            container::rename(ctx, args).await
        }
        Command::Pause(args) | Command::Container(ContainerCommand::Pause(args)) => {
            container::each(ctx, args, "pause").await
        }
        Command::Unpause(args) | Command::Container(ContainerCommand::Unpause(args)) => {
            container::each(ctx, args, "unpause").await
        }
        Command::Update(args) | Command::Container(ContainerCommand::Update(args)) => {
            container::update(ctx, args).await
        }
        Command::Port(args) | Command::Container(ContainerCommand::Port(args)) => {
            container::port(ctx, args).await
        }
        Command::Container(ContainerCommand::Inspect(args)) => {
            system::inspect(ctx, &args.names, Some("container"), args.format.as_deref(), args.size).await
        }
        Command::Container(ContainerCommand::Prune(args)) => container::prune(ctx, args).await,
        Command::Load(args) | Command::Image(ImageCommand::Load(args)) => image::load(ctx, args).await,
        Command::Save(args) | Command::Image(ImageCommand::Save(args)) => image::save(ctx, args).await,
        Command::Import(args) | Command::Image(ImageCommand::Import(args)) => image::import(ctx, args).await,
        Command::Tag(args) | Command::Image(ImageCommand::Tag(args)) => image::tag(ctx, args).await,
        Command::Rmi(args) | Command::Image(ImageCommand::Rm(args)) => image::remove(ctx, args).await,
        Command::History(args) | Command::Image(ImageCommand::History(args)) => {
            list::history(ctx, args).await
        }
        Command::Image(ImageCommand::Inspect(args)) => {
            system::inspect(ctx, &args.names, Some("image"), args.format.as_deref(), false).await
        }
        Command::Image(ImageCommand::Prune(args)) => image::prune(ctx, args).await,
        Command::Inspect(args) => {
            system::inspect(ctx, &args.names, args.kind.as_deref(), args.format.as_deref(), args.size).await
        }
        Command::Events(args) | Command::System(SystemCommand::Events(args)) => {
            system::events(ctx, args).await
        }
        Command::Info(args) | Command::System(SystemCommand::Info(args)) => system::info(ctx, args).await,
        Command::Version(args) => system::version(ctx, args).await,
        Command::Login(args) => system::login(ctx, args).await,
        Command::Network(command) => system::network(ctx, command).await,
        Command::Volume(command) => system::volume(ctx, command).await,
        Command::Logout(_) | Command::Completion(_) => {
            Err(Failure::new(1, "handled before the engine was asked"))
        }
    }
}

/// Does `each` for every name, printing failures and going on; 1 if there was one.
async fn for_each<F>(names: &[String], mut each: impl FnMut(String) -> F) -> Result<u8>
where
    F: Future<Output = Result<()>>,
{
    let mut code = 0;
    for name in names {
        if let Err(failure) = each(name.clone()).await {
            eprintln!("{}", failure.message);
            code = 1;
        }
    }
    Ok(code)
}

/// A bad value of a flag, before anything was asked of the engine.
fn bad_flag(message: String) -> Failure {
    // docker's own words about a flag's value stand without the program's name.
    match message.starts_with("invalid argument ") {
        true => Failure::new(125, message),
        false => Failure::new(125, format!("gantry: {message}")),
    }
}

/// Asks before what cannot be undone.
fn confirmed(force: bool, question: &str) -> Result<bool> {
    if force {
        return Ok(true);
    }
    eprint!("WARNING! {question}\nAre you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
