//! `docker rmi` and prune: names first; when the last is gone the image goes, unless a container was made of it.

use super::{DANGLING, Record, records, resolve};
use crate::Ctx;
use crate::error::Error;
use proto::docker::Strings;
use proto::docker::filter::Filters;
use proto::docker::image::{DeleteResponse, PruneReport};
use proto::reference::Reference;

/// Removes by name, digest or ID; every refusal comes before the first change.
pub(crate) async fn remove(ctx: &Ctx, name: &str, force: bool) -> Result<Vec<DeleteResponse>, Error> {
    let image = resolve(ctx, name).await?;
    let all: Vec<Record> =
        records(ctx).await?.into_iter().filter(|record| record.image.id == image.id).collect();
    let wanted = Reference::parse_familiar(name).ok().map(Reference::with_default_tag);
    let by_name = wanted.filter(|wanted| all.iter().any(|record| record.reference.as_ref() == Some(wanted)));
    let going: Vec<&Record> = match &by_name {
        Some(wanted) => all.iter().filter(|record| record.reference.as_ref() == Some(wanted)).collect(),
        None => all.iter().collect(),
    };
    let short = super::progress::short(image.id.as_str()).to_owned();
    let repositories: std::collections::BTreeSet<String> =
        going.iter().filter_map(|record| record.reference.as_ref().map(Reference::familiar_name)).collect();
    if by_name.is_none() && repositories.len() > 1 && !force {
        let text = format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        );
        return Err(Error::conflict(text));
    }
    let last = going.len() == all.len();
    if last {
        check_unused(ctx, image.id.as_str(), &short, by_name.as_ref().map(|_| name), force)?;
    }
    let mut done = Vec::new();
    for record in &going {
        ctx.containerd.delete_image(&record.name).await?;
        if let Some(reference) = &record.reference {
            untagged(ctx, &mut done, image.id.as_str(), reference.familiar());
        }
    }
    if last {
        if in_use(ctx, image.id.as_str()).next().is_some() {
            // Forced away under a container: the content stays as long as the container names it.
            let name = format!("{DANGLING}{}", image.target.digest);
            ctx.containerd.put_image(&name, image.target.clone(), Strings::new()).await?;
        } else {
            let id = image.id.to_string();
            done.push(DeleteResponse { deleted: id.clone(), ..DeleteResponse::default() });
            for chain_id in super::chain_ids(&image.diff_ids).iter().rev() {
                done.push(DeleteResponse { deleted: chain_id.clone(), ..DeleteResponse::default() });
            }
            ctx.events.publish("image", "delete", &id, Strings::from([("name".to_owned(), id.clone())]));
        }
    }
    Ok(done)
}

fn untagged(ctx: &Ctx, done: &mut Vec<DeleteResponse>, id: &str, name: String) {
    ctx.events.publish("image", "untag", id, Strings::from([("name".to_owned(), id.to_owned())]));
    done.push(DeleteResponse { untagged: name, ..DeleteResponse::default() });
}

/// Containers made of the image: ID and whether they run.
fn in_use<'a>(ctx: &'a Ctx, id: &'a str) -> impl Iterator<Item = (String, bool)> + use<'a> {
    ctx.view.all().into_iter().filter_map(move |container| {
        (container.record().image_id == id).then(|| (container.id.clone(), container.live().is_up()))
    })
}

fn check_unused(ctx: &Ctx, id: &str, short: &str, by_name: Option<&str>, force: bool) -> Result<(), Error> {
    for (container, running) in in_use(ctx, id) {
        let container = &container[..12];
        let text = match (by_name, running) {
            (Some(name), _) if !force => format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - container {container} is using \
                 its referenced image {short}"
            ),
            (None, true) => format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container \
                 {container}"
            ),
            (None, false) if !force => format!(
                "conflict: unable to delete {short} (must be forced) - image is being used by stopped container \
                 {container}"
            ),
            _ => continue,
        };
        return Err(Error::conflict(text));
    }
    Ok(())
}

pub(crate) const PRUNE_KEYS: &[&str] = &["dangling", "label", "label!", "until"];

/// Removes images that no container uses: those without a name, or all of them with `dangling=false`.
pub(crate) async fn prune(ctx: &Ctx, filters: &Filters) -> Result<PruneReport, Error> {
    let mut wanted = filters.clone();
    if !wanted.contains("dangling") || wanted.boolean("dangling")? == Some(false) {
        wanted = filters.without("dangling");
        if !filters.contains("dangling") {
            wanted.add("dangling", "true");
        }
    }
    let mut report = PruneReport::default();
    for row in super::list::list(ctx, &wanted, false).await? {
        if in_use(ctx, &row.id).next().is_some() {
            continue;
        }
        match remove(ctx, &row.id, true).await {
            Ok(removed) => {
                report.images_deleted.get_or_insert_default().extend(removed);
                report.space_reclaimed += row.size.max(0) as u64;
            }
            Err(error) => tracing::warn!(image = %row.id, %error, "prune goes on without it"),
        }
    }
    ctx.events.publish(
        "image",
        "prune",
        "",
        Strings::from([("reclaimed".to_owned(), report.space_reclaimed.to_string())]),
    );
    Ok(report)
}
