//! Verbs on the engine, its networks and volumes, and on this program.

use super::{Context, bad_flag, for_each};
use crate::args::system::{
    Completion, Events, Format as FormatArgs, List, Login, Logout, NetworkCommand, VolumeCommand,
    VolumeCreate,
};
use crate::client::{Query, each_document, escape_path};
use crate::config::{self, Config};
use crate::exit::{Failure, Result};
use crate::opts::{duration, env, filter};
use crate::output::table::{Listing, Row};
use crate::output::template::Format;
use crate::output::units;
use clap::CommandFactory;
use proto::docker::image::{AuthConfig, AuthResponse};
use proto::docker::system::{Info, Version};
use serde_json::{Value, json};

pub(crate) fn completion(args: &Completion) -> u8 {
    clap_complete::generate(args.shell, &mut crate::args::Cli::command(), "gantry", &mut std::io::stdout());
    0
}

/// Where an object of each kind is asked for, in docker's order.
const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

/// Prints what was found as a list or through the template, then complains of what was not.
pub(crate) async fn inspect(
    ctx: &Context,
    names: &[String],
    kind: Option<&str>,
    format: Option<&str>,
    size: bool,
) -> Result<u8> {
    if let Some(kind) = kind.filter(|kind| !KINDS.contains(kind)) {
        return Err(Failure::new(1, format!("\"{kind}\" is not a valid value for --type")));
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match find(ctx, name, kind, size).await? {
            Some(object) => found.push(object),
            None => missing.push(name),
        }
    }
    match format {
        None => println!("{}", serde_json::to_string_pretty(&found).map(|text| indent(&text))?),
        Some("json") => println!("{}", Value::Array(found)),
        Some(template) => {
            let format = Format::parse(template)?;
            for object in &found {
                println!("{}", format.render(object)?);
            }
        }
    }
    for name in &missing {
        match kind {
            Some(kind) => eprintln!("Error: No such {kind}: {name}"),
            None => eprintln!("Error: No such object: {name}"),
        }
    }
    Ok(u8::from(!missing.is_empty()))
}

/// docker indents by four.
fn indent(text: &str) -> String {
    let deeper = |line: &str| {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        format!("{}{}", " ".repeat(spaces), line)
    };
    text.lines().map(deeper).collect::<Vec<_>>().join("\n")
}

async fn find(ctx: &Context, name: &str, kind: Option<&str>, size: bool) -> Result<Option<Value>> {
    for candidate in KINDS.into_iter().filter(|candidate| kind.is_none_or(|kind| kind == *candidate)) {
        let escaped = escape_path(name);
        let path = match candidate {
            "container" => format!("/containers/{escaped}/json"),
            "image" => format!("/images/{escaped}/json"),
            "network" => format!("/networks/{escaped}"),
            _ => format!("/volumes/{escaped}"),
        };
        let query = Query::default().add_if(size && candidate == "container", "size", "1");
        if let Some(object) = ctx.client.find(&path, query).await? {
            return Ok(Some(object));
        }
    }
    Ok(None)
}

pub(crate) async fn events(ctx: &Context, args: Events) -> Result<u8> {
    let point = |text: &Option<String>| text.as_deref().map(duration::point).transpose().map_err(bad_flag);
    let query = Query::default()
        .add_some("since", point(&args.since)?)
        .add_some("until", point(&args.until)?)
        .add_some("filters", filter::parse(&args.filter).map_err(bad_flag)?);
    let format = match args.format.as_deref() {
        None | Some("json") => None,
        Some(template) => Some(Format::parse(template)?),
    };
    let path = "/events";
    let payload = crate::client::Payload::None;
    let response = ctx.client.request(http::Method::GET, path, query, Default::default(), payload).await?;
    each_document(response, |event| {
        match &format {
            Some(format) => println!("{}", format.render(&event)?),
            None if args.format.is_some() => println!("{event}"),
            None => println!("{}", event_line(&event)),
        }
        Ok(())
    })
    .await?;
    Ok(0)
}

/// `2026-11-24T02:04:34.667180771Z container start ID (image=busybox, name=web)`.
fn event_line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes: Vec<String> = event["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    let when = units::rfc3339(event["timeNano"].as_i64().unwrap_or_default());
    let mut line =
        format!("{when} {} {} {}", text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]));
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

/// Prints a document through a template or as JSON; false where neither was asked for.
fn print_formatted(document: &Value, format: Option<&str>) -> Result<bool> {
    match format {
        None => return Ok(false),
        Some("json") => println!("{document}"),
        Some(template) => println!("{}", Format::parse(template)?.render(document)?),
    }
    Ok(true)
}

pub(crate) async fn version(ctx: &Context, args: FormatArgs) -> Result<u8> {
    let server: Version = ctx.client.get("/version", Query::default()).await?;
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": ctx.client.version().to_string(),
        "Os": std::env::consts::OS,
        "Arch": server.arch,
    });
    let document = json!({"Client": client, "Server": serde_json::to_value(&server)?});
    if print_formatted(&document, args.format.as_deref())? {
        return Ok(0);
    }
    println!("Client: Gantry");
    println!(" Version:           {}", env!("CARGO_PKG_VERSION"));
    println!(" API version:       {}", ctx.client.version());
    println!(" OS/Arch:           {}/{}\n", std::env::consts::OS, server.arch);
    println!("Server: {}", server.platform.name);
    for component in &server.components {
        println!(" {}:\n  Version:          {}", component.name, component.version);
        for (key, value) in component.details.iter().flatten().filter(|(_, value)| !value.is_empty()) {
            println!("  {:<18}{value}", format!("{key}:"));
        }
    }
    Ok(0)
}

pub(crate) async fn info(ctx: &Context, args: FormatArgs) -> Result<u8> {
    let info: Info = ctx.client.get("/info", Query::default()).await?;
    if print_formatted(&serde_json::to_value(&info)?, args.format.as_deref())? {
        return Ok(0);
    }
    println!("Server:");
    println!(" Containers: {}", info.containers);
    println!("  Running: {}\n  Paused: {}", info.containers_running, info.containers_paused);
    println!("  Stopped: {}\n Images: {}", info.containers_stopped, info.images);
    for (name, value) in [
        ("Server Version", &info.server_version),
        ("Storage Driver", &info.driver),
        ("Logging Driver", &info.logging_driver),
        ("Cgroup Driver", &info.cgroup_driver),
        ("Cgroup Version", &info.cgroup_version),
        ("Default Runtime", &info.default_runtime),
        ("Kernel Version", &info.kernel_version),
        ("Operating System", &info.operating_system),
        ("OSType", &info.os_type),
        ("Architecture", &info.architecture),
        ("Name", &info.name),
        ("ID", &info.id),
        ("Root Dir", &info.docker_root_dir),
    ] {
        println!(" {name}: {value}");
    }
    println!(" CPUs: {}\n Total Memory: {}", info.n_cpu, units::size(info.mem_total));
    println!(" Live Restore Enabled: {}", info.live_restore_enabled);
    for warning in info.warnings.iter().flatten() {
        eprintln!("{warning}");
    }
    Ok(0)
}

pub(crate) async fn login(ctx: &Context, args: Login) -> Result<u8> {
    let server = config::key(args.server.as_deref().unwrap_or_default());
    let ask = |prompt: &str| -> Result<String> {
        eprint!("{prompt}: ");
        let mut text = String::new();
        std::io::stdin().read_line(&mut text)?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    };
    let username = match &args.username {
        Some(name) => name.clone(),
        None if args.password_stdin => {
            return Err(Failure::new(1, "Must provide --username with --password-stdin"));
        }
        None => ask("Username")?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(_), true) => {
            return Err(Failure::new(1, "--password and --password-stdin are mutually exclusive"));
        }
        (Some(password), false) => password.clone(),
        (None, true) => {
            let text = std::io::read_to_string(std::io::stdin())?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => return Err(Failure::new(1, "Error: no password: give it with --password-stdin")),
    };
    let mut auth = AuthConfig { username, password, serveraddress: server, ..AuthConfig::default() };
    let answer: AuthResponse = ctx.client.post_json("/auth", Query::default(), &auth).await?;
    auth.identitytoken = answer.identity_token;
    let mut config = Config::load(ctx.config.dir())?;
    config.log_in(&auth)?;
    println!("{}", if answer.status.is_empty() { "Login Succeeded" } else { &answer.status });
    Ok(0)
}

pub(crate) fn logout(mut config: Config, args: &Logout) -> Result<u8> {
    let server = config::key(args.server.as_deref().unwrap_or_default());
    if config.log_out(&server)? {
        println!("Removing login credentials for {server}");
    } else {
        println!("Not logged in to {server}");
    }
    Ok(0)
}

fn strings(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

fn print_listing(
    args: &List,
    default: &str,
    headers: &[(&str, &str)],
    quiet: &str,
    rows: Vec<Row>,
) -> Result<()> {
    let quiet = (args.quiet && args.format.is_none()).then_some(quiet);
    print!("{}", Listing { default, headers, format: args.format.as_deref(), quiet }.render(rows)?);
    Ok(())
}

fn labels(object: &Value) -> (String, Value) {
    let map = object["Labels"].as_object().cloned().unwrap_or_default();
    let all: Vec<String> =
        map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    (all.join(","), Value::Object(map))
}

pub(crate) async fn network(ctx: &Context, command: NetworkCommand) -> Result<u8> {
    let args = match command {
        NetworkCommand::Inspect(args) => {
            return inspect(ctx, &args.names, Some("network"), args.format.as_deref(), false).await;
        }
        NetworkCommand::Ls(args) => args,
    };
    let query = Query::default().add_some("filters", filter::parse(&args.filter).map_err(bad_flag)?);
    let mut list: Vec<Value> = ctx.client.get("/networks", query).await?;
    list.sort_by_key(|network| strings(network, "Name"));
    let rows = list
        .iter()
        .map(|network| {
            let id = strings(network, "Id");
            let id = if args.no_trunc { id } else { id.chars().take(12).collect() };
            let (labels, label_map) = labels(network);
            Row::from_iter([
                ("ID".to_owned(), id.into()),
                ("Name".to_owned(), strings(network, "Name").into()),
                ("Driver".to_owned(), strings(network, "Driver").into()),
                ("Scope".to_owned(), strings(network, "Scope").into()),
                ("Internal".to_owned(), network["Internal"].to_string().into()),
                ("CreatedAt".to_owned(), strings(network, "Created").into()),
                ("Labels".to_owned(), labels.into()),
                ("LabelMap".to_owned(), label_map),
            ])
        })
        .collect();
    let headers = [
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Internal", "INTERNAL"),
        ("CreatedAt", "CREATED AT"),
        ("Labels", "LABELS"),
    ];
    print_listing(&args, "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", &headers, "ID", rows)?;
    Ok(0)
}

pub(crate) async fn volume(ctx: &Context, command: VolumeCommand) -> Result<u8> {
    match command {
        VolumeCommand::Inspect(args) => {
            inspect(ctx, &args.names, Some("volume"), args.format.as_deref(), false).await
        }
        VolumeCommand::Ls(args) => list_volumes(ctx, args).await,
        VolumeCommand::Create(args) => create_volume(ctx, args).await,
        VolumeCommand::Rm(args) => {
            for_each(&args.names, |name| {
                let query = Query::default().add_if(args.force, "force", "1");
                async move {
                    ctx.client.delete(&format!("/volumes/{}", escape_path(&name)), query).await?;
                    println!("{name}");
                    Ok(())
                }
            })
            .await
        }
    }
}

async fn list_volumes(ctx: &Context, args: List) -> Result<u8> {
    let query = Query::default().add_some("filters", filter::parse(&args.filter).map_err(bad_flag)?);
    let answer: Value = ctx.client.get("/volumes", query).await?;
    let list = answer["Volumes"].as_array().cloned().unwrap_or_default();
    let rows = list
        .iter()
        .map(|volume| {
            let (labels, label_map) = labels(volume);
            Row::from_iter([
                ("Name".to_owned(), strings(volume, "Name").into()),
                ("Driver".to_owned(), strings(volume, "Driver").into()),
                ("Scope".to_owned(), strings(volume, "Scope").into()),
                ("Mountpoint".to_owned(), strings(volume, "Mountpoint").into()),
                ("Labels".to_owned(), labels.into()),
                ("LabelMap".to_owned(), label_map),
            ])
        })
        .collect();
    let headers = [
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
    ];
    print_listing(&args, "{{.Driver}}\t{{.Name}}", &headers, "Name", rows)?;
    Ok(0)
}

async fn create_volume(ctx: &Context, args: VolumeCreate) -> Result<u8> {
    let labels = env::labels(&[], &args.label).map_err(bad_flag)?;
    let request = json!({"Name": args.name.unwrap_or_default(), "Driver": "local", "Labels": labels});
    let volume: Value = ctx.client.post_json("/volumes/create", Query::default(), &request).await?;
    println!("{}", strings(&volume, "Name"));
    Ok(0)
}
