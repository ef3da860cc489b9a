//! `POST /containers/{id}/rename`.

use super::record::Record;
use super::{publish, save};
use crate::error::Error;
use crate::view::Container;
use crate::{Ctx, names};

pub(crate) async fn rename(ctx: &Ctx, container: &Container, new: &str) -> Result<(), Error> {
    if new.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    let new = new.strip_prefix('/').unwrap_or(new);
    if !names::is_valid(new) {
        return Err(Error::invalid(format!(
            "Error when allocating new name: Invalid container name (/{new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    let _operation = container.operation.lock().await;
    let record = container.record();
    let old = record.name.clone();
    if old == new {
        return Err(Error::invalid("Renaming a container with the same name as its current name"));
    }
    ctx.view.reserve(new, &container.id).map_err(|error| error.context("Error when allocating new name"))?;
    let record = Record { name: new.to_owned(), ..(*record).clone() };
    if let Err(error) = save(ctx, container, record).await {
        ctx.view.release(new, &container.id);
        return Err(error);
    }
    ctx.view.release(&old, &container.id);
    publish(ctx, container, "rename", &[("oldName", format!("/{old}"))]);
    Ok(())
}
