//! Namespaces: labels on a name, and the rule that only an empty one can go.

use crate::db::schema::{BLOBS, CONTAINERS, IMAGES, LEASES, NAMESPACES, SNAPSHOTS};
use crate::db::{Db, Reader, Table};
use crate::error::{Error, Result};
use crate::identifiers;
use proto::containerd::namespaces::Namespace;

fn missing(name: &str) -> Error {
    Error::not_found(format_args!("namespace {name:?}"))
}

fn empty(name: &str) -> Namespace {
    Namespace { name: name.to_owned(), ..Default::default() }
}

/// A namespace that has nothing yet is one without labels, as it is to containerd: clients ask before they begin.
pub(crate) fn get(db: &Db, name: &str) -> Result<Namespace> {
    identifiers::validate(name)?;
    Ok(db.read(|tx| tx.get(NAMESPACES, "", name))?.unwrap_or_else(|| empty(name)))
}

pub(crate) fn list(db: &Db) -> Result<Vec<Namespace>> {
    Ok(db.read(|tx| tx.list(NAMESPACES, "", ""))?.into_iter().map(|(_, namespace)| namespace).collect())
}

pub(crate) async fn create(db: &Db, mut namespace: Namespace) -> Result<Namespace> {
    identifiers::validate(&namespace.name)?;
    identifiers::check_labels(&mut namespace.labels)?;
    db.write(move |tx| {
        if tx.contains(NAMESPACES, "", &namespace.name)? {
            return Err(Error::already_exists(format_args!("namespace {:?}", namespace.name)));
        }
        tx.put(NAMESPACES, "", &namespace.name, &namespace)?;
        Ok(namespace.clone())
    })
    .await
}

pub(crate) async fn update(db: &Db, wanted: Namespace, mask: Vec<String>) -> Result<Namespace> {
    identifiers::validate(&wanted.name)?;
    let mask = if mask.is_empty() { vec!["labels".to_owned()] } else { mask };
    db.write(move |tx| {
        let mut stored: Namespace =
            tx.get(NAMESPACES, "", &wanted.name)?.unwrap_or_else(|| empty(&wanted.name));
        for path in &mask {
            if !identifiers::update_labels(path, &mut stored.labels, &wanted.labels) {
                return Err(Error::invalid(format_args!("cannot update {path} field")));
            }
        }
        identifiers::check_labels(&mut stored.labels)?;
        tx.put(NAMESPACES, "", &stored.name, &stored)?;
        Ok(stored)
    })
    .await
}

pub(crate) async fn delete(db: &Db, name: String) -> Result<()> {
    identifiers::validate(&name)?;
    db.write(move |tx| {
        if !tx.contains(NAMESPACES, "", &name)? {
            return Err(missing(&name));
        }
        let kinds: [(Table, &str); 5] = [
            (IMAGES, "images"),
            (BLOBS, "blobs"),
            (CONTAINERS, "containers"),
            (SNAPSHOTS, "snapshots on \"overlayfs\" snapshotter"),
            (LEASES, "leases"),
        ];
        let mut left = Vec::new();
        for (table, what) in kinds {
            let mut any = false;
            tx.scan(table, &name, "", &mut |_, _| {
                any = true;
                Ok(())
            })?;
            if any {
                left.push(what);
            }
        }
        if !left.is_empty() {
            let left = left.join(", ");
            return Err(Error::precondition(format_args!(
                "namespace {name:?} must be empty, but it still has {left}"
            )));
        }
        tx.remove(NAMESPACES, "", &name)?;
        Ok(())
    })
    .await
}
