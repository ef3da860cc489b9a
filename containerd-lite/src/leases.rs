//! Leases: what a client is working on and what must not be collected meanwhile.

use crate::db::schema::{LEASES, RESOURCES, touch_namespace};
use crate::db::{Db, Reader, WriteTx};
use crate::error::{Error, Result};
use crate::filters::{Filters, entry, text};
use crate::identifiers;
use base64::Engine as _;
use proto::containerd::leases::{Lease, Resource};
use proto::digest::Digest;

/// Longest lease id, in bytes.
const MAX_ID_LEN: usize = 1024;

fn missing(id: &str) -> Error {
    Error::not_found(format_args!("lease {id:?}"))
}

fn resource_key(lease: &str, kind: &str, id: &str) -> String {
    format!("{lease}\0{kind}\0{id}")
}

pub(crate) async fn create(db: &Db, namespace: &str, id: String, mut lease: Lease) -> Result<Lease> {
    lease.id = if id.is_empty() { random_id() } else { id };
    check_id(&lease.id)?;
    identifiers::check_labels(&mut lease.labels)?;
    lease.created_at = Some(crate::events::now());
    let namespace = namespace.to_owned();
    db.write(move |tx| {
        if tx.contains(LEASES, &namespace, &lease.id)? {
            return Err(Error::already_exists(format_args!("lease {:?}", lease.id)));
        }
        touch_namespace(tx, &namespace)?;
        tx.put(LEASES, &namespace, &lease.id, &lease)?;
        Ok(lease.clone())
    })
    .await
}

/// Clients choose ids that are no identifiers in the strict sense, such as `600833492-qNK-`.
fn check_id(id: &str) -> Result<()> {
    if id.len() > MAX_ID_LEN || id.contains('\0') {
        return Err(Error::invalid(format_args!("lease id {id:?}")));
    }
    Ok(())
}

/// Time and three random bytes, as containerd's clients choose them.
fn random_id() -> String {
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let random: [u8; 3] = rand::random();
    let random = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
    format!("{nanos}-{random}")
}

pub(crate) fn list(db: &Db, namespace: &str, filters: &[String]) -> Result<Vec<Lease>> {
    let filters = Filters::parse(filters)?;
    let all = db.read(|tx| tx.list::<Lease>(LEASES, namespace, ""))?;
    let matching = |lease: &Lease| {
        filters.matches(&|path: &[&str]| match path {
            ["id"] => text(&lease.id),
            ["labels", rest @ ..] => entry(&lease.labels, rest),
            _ => None,
        })
    };
    Ok(all.into_iter().map(|(_, lease)| lease).filter(matching).collect())
}

pub(crate) async fn delete(db: &Db, namespace: &str, id: &str) -> Result<()> {
    let (namespace, id) = (namespace.to_owned(), id.to_owned());
    db.write(move |tx| {
        if !tx.contains(LEASES, &namespace, &id)? {
            return Err(missing(&id));
        }
        remove(tx, &namespace, &id)
    })
    .await
}

/// Removes a lease and all it holds, in the caller's transaction.
pub(crate) fn remove(tx: &WriteTx, namespace: &str, id: &str) -> Result<()> {
    let mut keys = Vec::new();
    tx.scan(RESOURCES, namespace, &format!("{id}\0"), &mut |key, _| {
        keys.push(key.to_owned());
        Ok(())
    })?;
    for key in keys {
        tx.remove(RESOURCES, namespace, &key)?;
    }
    tx.remove(LEASES, namespace, id)?;
    Ok(())
}

/// Adds a resource to the lease that the call named, if it named one.
pub(crate) fn hold(tx: &WriteTx, namespace: &str, lease: Option<&str>, kind: &str, id: &str) -> Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    if !tx.contains(LEASES, namespace, lease)? {
        return Err(missing(lease));
    }
    let key = resource_key(lease, kind, id);
    if tx.contains(RESOURCES, namespace, &key)? { Ok(()) } else { tx.put(RESOURCES, namespace, &key, &()) }
}

fn check_resource(resource: Option<Resource>) -> Result<Resource> {
    let resource = resource.ok_or_else(|| Error::invalid("resource is missing"))?;
    let kind = resource.r#type.as_str();
    if resource.id.is_empty() || resource.id.contains('\0') {
        return Err(Error::invalid(format_args!("resource id {:?}", resource.id)));
    }
    match kind.split_once('/') {
        None if kind == "content" => {
            if let Err(cause) = resource.id.parse::<Digest>() {
                return Err(Error::invalid(format_args!("content digest {:?}: {cause}", resource.id)));
            }
            Ok(resource)
        }
        None if kind == "ingests" || kind == "images" => Ok(resource),
        Some(("snapshots", snapshotter)) if !snapshotter.is_empty() && !snapshotter.contains(['/', '\0']) => {
            Ok(resource)
        }
        _ => Err(Error::unimplemented(format_args!("resource type {kind} not supported yet"))),
    }
}

pub(crate) async fn add_resource(
    db: &Db,
    namespace: &str,
    lease: &str,
    resource: Option<Resource>,
) -> Result<()> {
    let resource = check_resource(resource)?;
    let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
    db.write(move |tx| hold(tx, &namespace, Some(&lease), &resource.r#type, &resource.id)).await
}

pub(crate) async fn delete_resource(
    db: &Db,
    namespace: &str,
    lease: &str,
    resource: Option<Resource>,
) -> Result<()> {
    let resource = check_resource(resource)?;
    let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
    db.write(move |tx| {
        if !tx.contains(LEASES, &namespace, &lease)? {
            return Err(missing(&lease));
        }
        tx.remove(RESOURCES, &namespace, &resource_key(&lease, &resource.r#type, &resource.id))?;
        Ok(())
    })
    .await
}

pub(crate) fn resources(db: &Db, namespace: &str, lease: &str) -> Result<Vec<Resource>> {
    db.read(|tx| {
        if !tx.contains(LEASES, namespace, lease)? {
            return Err(missing(lease));
        }
        held(tx, namespace, lease)
    })
}

/// What a lease holds.
pub(crate) fn held(tx: &impl Reader, namespace: &str, lease: &str) -> Result<Vec<Resource>> {
    let mut resources = Vec::new();
    let prefix = format!("{lease}\0");
    tx.scan(RESOURCES, namespace, &prefix, &mut |key, _| {
        if let Some((kind, id)) = key[prefix.len()..].split_once('\0') {
            resources.push(Resource { id: id.to_owned(), r#type: kind.to_owned() });
        }
        Ok(())
    })?;
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_kinds() {
        let resource = |kind: &str, id: &str| Some(Resource { id: id.into(), r#type: kind.into() });
        let digest = format!("sha256:{}", "0".repeat(64));
        for (kind, id) in
            [("content", digest.as_str()), ("ingests", "r"), ("images", "a:b"), ("snapshots/overlayfs", "k")]
        {
            assert!(check_resource(resource(kind, id)).is_ok(), "{kind}");
        }
        for (kind, id) in
            [("content", "x"), ("snapshots", "k"), ("snapshots/", "k"), ("task", "t"), ("ingests", "")]
        {
            assert!(check_resource(resource(kind, id)).is_err(), "{kind} {id}");
        }
    }
}
