//! Verbs on containers that hold no stream of theirs but the log.

use super::{Context, attach, bad_flag, confirmed, create as build, for_each};
use crate::args::container::{Create, Kill, Logs, Names, Port, Remove, Rename, Stop, Top, Update};
use crate::args::system::Prune;
use crate::client::{Query, copy_output, escape_path, read_json};
use crate::exit::{Failure, Result};
use crate::opts::{duration, filter, restart, size};
use crate::output::table::align;
use crate::output::units;
use http_body_util::BodyExt;
use proto::docker::container::{
    Inspect, PruneReport, Resources, TopResponse, UpdateRequest, UpdateResponse, WaitResponse,
};

fn path(name: &str, verb: &str) -> String {
    format!("/containers/{}/{verb}", escape_path(name))
}

pub(crate) async fn create(ctx: &Context, args: Create) -> Result<u8> {
    let wanted = build::request(&args, false)?;
    println!("{}", attach::created(ctx, &args, &wanted).await?);
    Ok(0)
}

pub(crate) async fn stop(ctx: &Context, args: Stop, verb: &str) -> Result<u8> {
    for_each(&args.containers, |name| {
        let query = Query::default()
            .add_some("signal", args.signal.as_deref())
            .add_some("t", args.timeout.map(|seconds| seconds.to_string()));
        async move {
            ctx.client.post(&path(&name, verb), query).await?;
            println!("{name}");
            Ok(())
        }
    })
    .await
}

pub(crate) async fn kill(ctx: &Context, args: Kill) -> Result<u8> {
    for_each(&args.containers, |name| {
        let query = Query::default().add("signal", args.signal.as_deref().unwrap_or("KILL"));
        async move {
            ctx.client.post(&path(&name, "kill"), query).await?;
            println!("{name}");
            Ok(())
        }
    })
    .await
}

/// pause and unpause.
pub(crate) async fn each(ctx: &Context, args: Names, verb: &str) -> Result<u8> {
    for_each(&args.containers, |name| async move {
        ctx.client.post(&path(&name, verb), Query::default()).await?;
        println!("{name}");
        Ok(())
    })
    .await
}

pub(crate) async fn remove(ctx: &Context, args: Remove) -> Result<u8> {
    for_each(&args.containers, |name| {
        let query = Query::default().add_if(args.force, "force", "1").add_if(args.link, "link", "1").add_if(
            args.volumes,
            "v",
            "1",
        );
        async move {
            let gone = ctx.client.delete(&format!("/containers/{}", escape_path(&name)), query).await;
            match gone {
                // Forced, what is not there is as wanted.
                Err(failure) if args.force && failure.message.contains("No such container") => {
                    eprintln!("{}", failure.message);
                    Ok(())
                }
                result => {
                    result?;
                    println!("{name}");
                    Ok(())
                }
            }
        }
    })
    .await
}

pub(crate) async fn logs(ctx: &Context, args: Logs) -> Result<u8> {
    let container: Inspect = ctx.client.get(&path(&args.container, "json"), Query::default()).await?;
    let point = |name: &str, text: &Option<String>| {
        let point = text.as_deref().map(duration::point).transpose();
        point.map_err(|reason| Failure::new(1, format!("invalid value for \"{name}\": {reason}")))
    };
    let query = Query::default()
        .add("stdout", "1")
        .add("stderr", "1")
        .add("tail", &args.tail)
        .add_if(args.follow, "follow", "1")
        .add_if(args.timestamps, "timestamps", "1")
        .add_if(args.details, "details", "1")
        .add_some("since", point("since", &args.since)?)
        .add_some("until", point("until", &args.until)?);
    let path = path(&args.container, "logs");
    let response = ctx
        .client
        .request(http::Method::GET, &path, query, Default::default(), crate::client::Payload::None)
        .await?;
    let (reader, mut writer) = tokio::io::duplex(256 << 10);
    let mut body = response.into_body();
    let feed = async move {
        use tokio::io::AsyncWriteExt;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data()
                && writer.write_all(&data).await.is_err()
            {
                break;
            }
        }
        Ok::<_, Failure>(())
    };
    let (copied, fed) = tokio::join!(copy_output(reader, !container.config.tty), feed);
    fed?;
    match copied {
        // `gantry logs x | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        result => {
            result?;
            Ok(0)
        }
    }
}

pub(crate) async fn wait(ctx: &Context, args: Names) -> Result<u8> {
    for_each(&args.containers, |name| async move {
        let answer: WaitResponse =
            read_json(ctx.client.post(&path(&name, "wait"), Query::default()).await?).await?;
        println!("{}", answer.status_code);
        Ok(())
    })
    .await
}

pub(crate) async fn top(ctx: &Context, args: Top) -> Result<u8> {
    let options = (!args.ps_options.is_empty()).then(|| args.ps_options.join(" "));
    let query = Query::default().add_some("ps_args", options);
    let top: TopResponse = ctx.client.get(&path(&args.container, "top"), query).await?;
    let lines: Vec<String> =
        std::iter::once(&top.titles).chain(&top.processes).map(|row| row.join("\t")).collect();
    print!("{}", align(&lines, 20));
    Ok(0)
}

pub(crate) async fn rename(ctx: &Context, args: Rename) -> Result<u8> {
    ctx.client.post(&path(&args.container, "rename"), Query::default().add("name", &args.name)).await?;
    Ok(0)
}

pub(crate) async fn update(ctx: &Context, args: Update) -> Result<u8> {
    let bytes = |text: &Option<String>| text.as_deref().map_or(Ok(0), size::parse).map_err(bad_flag);
    let swap = args.memory_swap.as_deref().map_or(Ok(0), size::parse_or_unlimited).map_err(bad_flag)?;
    let resources = Resources {
        memory: bytes(&args.memory)?,
        memory_reservation: bytes(&args.memory_reservation)?,
        memory_swap: swap,
        nano_cpus: build::nano_cpus(args.cpus.as_deref()).map_err(bad_flag)?,
        cpu_shares: args.cpu_shares.unwrap_or(0),
        cpu_period: args.cpu_period.unwrap_or(0),
        cpu_quota: args.cpu_quota.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        pids_limit: args.pids_limit,
        ..Resources::default()
    };
    let restart_policy = args.restart.as_deref().map(restart::parse).transpose().map_err(bad_flag)?;
    let request = UpdateRequest { resources, restart_policy: restart_policy.unwrap_or_default() };
    for_each(&args.containers, |name| {
        let request = request.clone();
        async move {
            let answer: UpdateResponse =
                ctx.client.post_json(&path(&name, "update"), Query::default(), &request).await?;
            answer.warnings.iter().flatten().for_each(|warning| eprintln!("WARNING: {warning}"));
            println!("{name}");
            Ok(())
        }
    })
    .await
}

pub(crate) async fn port(ctx: &Context, args: Port) -> Result<u8> {
    let container: Inspect = ctx.client.get(&path(&args.container, "json"), Query::default()).await?;
    let wanted = args.port.map(|port| if port.contains('/') { port } else { format!("{port}/tcp") });
    let mut found = false;
    for (port, bindings) in &container.network_settings.ports {
        if wanted.as_ref().is_some_and(|wanted| wanted != port) {
            continue;
        }
        for binding in bindings.iter().flatten() {
            found = true;
            let address = format!("{}:{}", binding.host_ip, binding.host_port);
            if wanted.is_some() { println!("{address}") } else { println!("{port} -> {address}") }
        }
    }
    match wanted {
        Some(port) if !found => {
            Err(Failure::new(1, format!("no public port '{port}' published for {}", args.container)))
        }
        _ => Ok(0),
    }
}

pub(crate) async fn prune(ctx: &Context, args: Prune) -> Result<u8> {
    if !confirmed(args.force, "This will remove all stopped containers.")? {
        return Ok(0);
    }
    let query = Query::default().add_some("filters", filter::parse(&args.filter).map_err(bad_flag)?);
    let report: PruneReport = read_json(ctx.client.post("/containers/prune", query).await?).await?;
    let deleted = report.containers_deleted.unwrap_or_default();
    if !deleted.is_empty() {
        println!("Deleted Containers:\n{}\n", deleted.join("\n"));
    }
    println!("Total reclaimed space: {}", units::size(report.space_reclaimed as i64));
    Ok(0)
}
