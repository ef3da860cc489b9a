//! Container records: what a task is made from. Spec, options and extensions are opaque here.

use crate::db::schema::{CONTAINERS, touch_namespace};
use crate::db::{Db, Reader};
use crate::error::{Error, Result};
use crate::filters::{Filters, entry, text};
use crate::identifiers;
use proto::containerd::containers::Container;

fn missing(namespace: &str, id: &str) -> Error {
    Error::not_found(format_args!("container {id:?} in namespace {namespace:?}"))
}

pub(crate) fn get(db: &Db, namespace: &str, id: &str) -> Result<Container> {
    db.read(|tx| tx.get(CONTAINERS, namespace, id))?.ok_or_else(|| missing(namespace, id))
}

pub(crate) fn list(db: &Db, namespace: &str, filters: &[String]) -> Result<Vec<Container>> {
    let filters = Filters::parse(filters)?;
    let all = db.read(|tx| tx.list::<Container>(CONTAINERS, namespace, ""))?;
    let matching = |container: &Container| {
        filters.matches(&|path: &[&str]| match path {
            ["id"] => text(&container.id),
            ["runtime", "name"] => text(container.runtime.as_ref().map_or("", |runtime| &runtime.name)),
            ["image"] => text(&container.image),
            ["labels", rest @ ..] => entry(&container.labels, rest),
            _ => None,
        })
    };
    Ok(all.into_iter().map(|(_, container)| container).filter(matching).collect())
}

fn check(container: &mut Container) -> Result<()> {
    identifiers::validate(&container.id).map_err(|error| error.context("container.ID"))?;
    if container.extensions.contains_key("") {
        return Err(Error::invalid("container.Extension keys must not be zero-length"));
    }
    identifiers::check_labels(&mut container.labels).map_err(|error| error.context("containers.Labels"))?;
    if container.runtime.as_ref().is_none_or(|runtime| runtime.name.is_empty()) {
        return Err(Error::invalid("container.Runtime.Name must be set"));
    }
    if container.spec.is_none() {
        return Err(Error::invalid("container.Spec must be set"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(Error::invalid("container.Snapshotter must be set if container.SnapshotKey is set"));
    }
    Ok(())
}

pub(crate) async fn create(db: &Db, namespace: &str, mut container: Container) -> Result<Container> {
    check(&mut container).map_err(|error| error.context("create container failed validation"))?;
    let now = crate::events::now();
    (container.created_at, container.updated_at) = (Some(now), Some(now));
    let namespace = namespace.to_owned();
    db.write(move |tx| {
        if tx.contains(CONTAINERS, &namespace, &container.id)? {
            return Err(Error::already_exists(format_args!("container {:?}", container.id)));
        }
        touch_namespace(tx, &namespace)?;
        tx.put(CONTAINERS, &namespace, &container.id, &container)?;
        Ok(container.clone())
    })
    .await
}

pub(crate) async fn update(
    db: &Db,
    namespace: &str,
    wanted: Container,
    mask: Option<Vec<String>>,
) -> Result<Container> {
    if wanted.id.is_empty() {
        return Err(Error::invalid("must specify a container id"));
    }
    let namespace = namespace.to_owned();
    let mask = mask.unwrap_or_default();
    db.write(move |tx| {
        let mut stored: Container =
            tx.get(CONTAINERS, &namespace, &wanted.id)?.ok_or_else(|| missing(&namespace, &wanted.id))?;
        apply(&mut stored, &wanted, &mask)?;
        check(&mut stored).map_err(|error| error.context("update failed validation"))?;
        stored.updated_at = Some(crate::events::now());
        tx.put(CONTAINERS, &namespace, &stored.id, &stored)?;
        Ok(stored)
    })
    .await
}

/// Copies what the mask names. Without a mask: everything that may change. What a running task was made with
/// stays: the runtime always, the snapshotter unless the key is replaced with it.
fn apply(stored: &mut Container, wanted: &Container, mask: &[String]) -> Result<()> {
    const ALL: [&str; 5] = ["labels", "spec", "extensions", "image", "snapshotkey"];
    let immutable = |field| Error::invalid(format_args!("container.{field} field is immutable"));
    if mask.is_empty() {
        if wanted.snapshotter != stored.snapshotter {
            return Err(immutable("Snapshotter"));
        }
        let name = |c: &Container| c.runtime.as_ref().map(|r| r.name.clone()).unwrap_or_default();
        if name(wanted) != name(stored) {
            return Err(immutable("Runtime.Name"));
        }
    }
    let all: Vec<String>;
    let mask = if mask.is_empty() {
        all = ALL.iter().map(|path| (*path).to_owned()).collect();
        &all
    } else {
        mask
    };
    for path in mask {
        if identifiers::update_labels(path, &mut stored.labels, &wanted.labels) {
            continue;
        }
        if let Some(key) = path.strip_prefix("extensions.") {
            match wanted.extensions.get(key) {
                Some(value) => stored.extensions.insert(key.to_owned(), value.clone()),
                None => stored.extensions.remove(key),
            };
            continue;
        }
        match path.as_str() {
            "spec" => stored.spec.clone_from(&wanted.spec),
            "extensions" => stored.extensions.clone_from(&wanted.extensions),
            "image" => stored.image.clone_from(&wanted.image),
            "snapshotkey" => {
                if !wanted.snapshotter.is_empty() {
                    stored.snapshotter.clone_from(&wanted.snapshotter);
                }
                stored.snapshot_key.clone_from(&wanted.snapshot_key);
            }
            _ => return Err(Error::invalid(format_args!("cannot update {path:?} field on {:?}", stored.id))),
        }
    }
    Ok(())
}

pub(crate) async fn delete(db: &Db, namespace: &str, id: &str) -> Result<()> {
    let (namespace, id) = (namespace.to_owned(), id.to_owned());
    db.write(move |tx| {
        if !tx.contains(CONTAINERS, &namespace, &id)? {
            return Err(Error::not_found(format_args!("container {id:?}")));
        }
        tx.remove(CONTAINERS, &namespace, &id)?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::any::{Any, SPEC, document};
    use proto::containerd::containers::container::Runtime;

    fn container() -> Container {
        Container {
            id: "web1".into(),
            image: "redis".into(),
            runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
            spec: Some(document(SPEC, b"{}".to_vec())),
            snapshotter: "overlayfs".into(),
            snapshot_key: "web1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_a_record_must_have() {
        assert!(check(&mut container()).is_ok());
        type Case = (fn(&mut Container), &'static str);
        let cases: [Case; 5] = [
            (|c| c.id = "../x".into(), "container.ID: "),
            (|c| c.runtime = None, "container.Runtime.Name must be set"),
            (|c| c.spec = None, "container.Spec must be set"),
            (|c| c.snapshotter.clear(), "container.Snapshotter must be set"),
            (|c| drop(c.extensions.insert(String::new(), Any::default())), "container.Extension keys"),
        ];
        for (change, text) in cases {
            let mut container = container();
            change(&mut container);
            let error = check(&mut container).unwrap_err().to_string();
            assert!(error.starts_with(text) && error.ends_with(": invalid argument"), "{error}");
        }
    }

    #[test]
    fn masks() {
        let mut wanted = container();
        wanted.image = "other".into();
        wanted.labels.insert("a".into(), "1".into());
        wanted.extensions.insert("k".into(), Any::default());
        let run = |mask: &[&str]| {
            let mut stored = container();
            let mask: Vec<String> = mask.iter().map(|path| (*path).to_owned()).collect();
            apply(&mut stored, &wanted, &mask).map(|()| stored)
        };
        assert_eq!(run(&[]).unwrap(), wanted);
        let only = run(&["labels.a"]).unwrap();
        assert_eq!((only.image.as_str(), only.labels.len(), only.extensions.len()), ("redis", 1, 0));
        assert_eq!(run(&["extensions.k"]).unwrap().extensions.len(), 1);
        assert!(run(&["runtime.name"]).is_err());
        let mut moved = wanted.clone();
        moved.runtime.as_mut().unwrap().name = "other.v1".into();
        assert!(apply(&mut container(), &moved, &[]).is_err());
    }
}
