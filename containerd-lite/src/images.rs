//! Image records: a name and the descriptor it stands for.

use crate::db::schema::{IMAGES, touch_namespace};
use crate::db::{Db, Reader};
use crate::error::{Error, Result};
use crate::filters::{Filters, entry, text};
use crate::{identifiers, leases};
use proto::containerd::images::Image;
use proto::containerd::types::Descriptor;
use proto::digest::Digest;

fn missing(name: &str) -> Error {
    Error::not_found(format_args!("image {name:?}"))
}

pub(crate) fn get(db: &Db, namespace: &str, name: &str) -> Result<Image> {
    db.read(|tx| tx.get(IMAGES, namespace, name))?.ok_or_else(|| missing(name))
}

pub(crate) fn list(db: &Db, namespace: &str, filters: &[String]) -> Result<Vec<Image>> {
    let filters = Filters::parse(filters)?;
    let all = db.read(|tx| tx.list::<Image>(IMAGES, namespace, ""))?;
    let none = Descriptor::default();
    let matching = |image: &Image| {
        let target = image.target.as_ref().unwrap_or(&none);
        filters.matches(&|path: &[&str]| match path {
            ["name"] => text(&image.name),
            ["target", "digest"] => text(&target.digest),
            ["target", "mediatype"] => text(&target.media_type),
            ["labels", rest @ ..] => entry(&image.labels, rest),
            ["annotations", rest @ ..] => entry(&target.annotations, rest),
            _ => None,
        })
    };
    Ok(all.into_iter().map(|(_, image)| image).filter(matching).collect())
}

fn check(image: &mut Image) -> Result<()> {
    if image.name.is_empty() {
        return Err(Error::invalid("Image.Name required"));
    }
    identifiers::check_labels(&mut image.labels).map_err(|error| error.context("image.Labels"))?;
    let target = image.target.as_ref().ok_or_else(|| Error::invalid("image.Target must be set"))?;
    if let Err(cause) = target.digest.parse::<Digest>() {
        return Err(Error::invalid(format_args!("Target.Digest {:?} invalid: {cause}", target.digest)));
    }
    if target.size <= 0 {
        return Err(Error::invalid("Target.Size must be greater than zero"));
    }
    if target.media_type.is_empty() {
        return Err(Error::invalid("Target.MediaType must be set"));
    }
    Ok(())
}

pub(crate) async fn create(
    db: &Db,
    namespace: &str,
    mut image: Image,
    lease: Option<String>,
) -> Result<Image> {
    check(&mut image)?;
    let now = crate::events::now();
    (image.created_at, image.updated_at) = (Some(now), Some(now));
    let namespace = namespace.to_owned();
    db.write(move |tx| {
        if tx.contains(IMAGES, &namespace, &image.name)? {
            return Err(Error::already_exists(format_args!("image {:?}", image.name)));
        }
        leases::hold(tx, &namespace, lease.as_deref(), "images", &image.name)?;
        touch_namespace(tx, &namespace)?;
        tx.put(IMAGES, &namespace, &image.name, &image)?;
        Ok(image.clone())
    })
    .await
}

pub(crate) async fn update(
    db: &Db,
    namespace: &str,
    wanted: Image,
    mask: Option<Vec<String>>,
    lease: Option<String>,
) -> Result<Image> {
    if wanted.name.is_empty() {
        return Err(Error::invalid("image name is required for update"));
    }
    let namespace = namespace.to_owned();
    let mask = mask.unwrap_or_default();
    db.write(move |tx| {
        let mut stored: Image =
            tx.get(IMAGES, &namespace, &wanted.name)?.ok_or_else(|| missing(&wanted.name))?;
        apply(&mut stored, &wanted, &mask)?;
        check(&mut stored)?;
        stored.updated_at = Some(crate::events::now());
        leases::hold(tx, &namespace, lease.as_deref(), "images", &stored.name)?;
        tx.put(IMAGES, &namespace, &stored.name, &stored)?;
        Ok(stored)
    })
    .await
}

fn apply(stored: &mut Image, wanted: &Image, mask: &[String]) -> Result<()> {
    if mask.is_empty() {
        stored.labels.clone_from(&wanted.labels);
        stored.target.clone_from(&wanted.target);
        return Ok(());
    }
    for path in mask {
        if identifiers::update_labels(path, &mut stored.labels, &wanted.labels) {
            continue;
        }
        let wanted_target = wanted.target.clone().unwrap_or_default();
        let target = stored.target.get_or_insert_default();
        if let Some(key) = path.strip_prefix("annotations.") {
            let value = wanted_target.annotations.get(key).cloned().unwrap_or_default();
            target.annotations.insert(key.to_owned(), value);
            continue;
        }
        match path.as_str() {
            // The annotations belong to their own path.
            "target" => {
                let annotations = std::mem::take(&mut target.annotations);
                *target = wanted_target;
                target.annotations = annotations;
            }
            "annotations" => target.annotations = wanted_target.annotations,
            _ => {
                return Err(Error::invalid(format_args!(
                    "cannot update {path:?} field on image {:?}",
                    stored.name
                )));
            }
        }
    }
    Ok(())
}

pub(crate) async fn delete(db: &Db, namespace: &str, name: &str, target: Option<Descriptor>) -> Result<()> {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    db.write(move |tx| {
        let stored: Image = tx.get(IMAGES, &namespace, &name)?.ok_or_else(|| missing(&name))?;
        let digest = stored.target.as_ref().map_or("", |target| &target.digest);
        if let Some(wanted) = &target
            && wanted.digest != digest
        {
            return Err(Error::not_found(format_args!(
                "image {name:?} has target {digest}, not {}",
                wanted.digest
            )));
        }
        tx.remove(IMAGES, &namespace, &name)?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_must_have() {
        let good = Image {
            name: "docker.io/library/redis:latest".into(),
            target: Some(Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                digest: format!("sha256:{}", "0".repeat(64)),
                size: 1,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(check(&mut good.clone()).is_ok());
        let cases: [fn(&mut Image); 5] = [
            |i| i.name.clear(),
            |i| i.target = None,
            |i| i.target.as_mut().unwrap().digest = "sha256:../../x".into(),
            |i| i.target.as_mut().unwrap().size = 0,
            |i| i.target.as_mut().unwrap().media_type.clear(),
        ];
        for change in cases {
            let mut image = good.clone();
            change(&mut image);
            assert!(check(&mut image).unwrap_err().to_string().ends_with("invalid argument"));
        }
    }
}
