//! Names: a name that stood for another image leaves that one dangling, as docker has it.

use super::{DANGLING, resolve};
use crate::Ctx;
use crate::error::Error;
use proto::containerd::types::Descriptor;
use proto::docker::Strings;
use proto::reference::Reference;

/// `docker tag SOURCE REPO:TAG`.
pub(crate) async fn tag(ctx: &Ctx, source: &str, repository: &str, tag: &str) -> Result<(), Error> {
    let mut reference = Reference::parse_familiar(repository).map_err(|e| Error::invalid(e.to_string()))?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    if !tag.is_empty() {
        reference = reference.with_tag(tag).map_err(|e| Error::invalid(e.to_string()))?;
    }
    if reference.path() == "library/sha256" {
        return Err(Error::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
    }
    let reference = reference.with_default_tag();
    let image = resolve(ctx, source).await?;
    name(ctx, &reference.to_string(), image.target.clone(), Strings::new()).await?;
    let dangling = format!("{DANGLING}{}", image.target.digest);
    if ctx.containerd.get_image(&dangling).await?.is_some() {
        ctx.containerd.delete_image(&dangling).await?;
    }
    let attributes = Strings::from([("name".to_owned(), reference.familiar())]);
    ctx.events.publish("image", "tag", &image.id.to_string(), attributes);
    Ok(())
}

/// Makes `name` stand for `target`. What it stood for keeps a nameless record, first.
pub(crate) async fn name(ctx: &Ctx, name: &str, target: Descriptor, labels: Strings) -> Result<(), Error> {
    let old = ctx.containerd.get_image(name).await?.and_then(|image| image.target);
    if let Some(old) = old.filter(|old| old.digest != target.digest) {
        let records = ctx.containerd.list_images().await?;
        let named_otherwise = records
            .iter()
            .any(|r| r.name != name && r.target.as_ref().is_some_and(|t| t.digest == old.digest));
        if !named_otherwise {
            ctx.containerd.put_image(&format!("{DANGLING}{}", old.digest), old, Strings::new()).await?;
        }
    }
    ctx.containerd.put_image(name, target, labels).await?;
    Ok(())
}
