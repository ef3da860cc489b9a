//! `--mount k=v,...`, `--tmpfs DST[:OPTS]` and `-v [SRC:]DST[:OPTS]`.

use proto::docker::container::{BindOptions, Mount, TmpfsOptions, VolumeDriver, VolumeOptions};

/// One `--mount`.
pub(crate) fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), value.trim()),
            None => match field.trim().to_ascii_lowercase().as_str() {
                word @ ("readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive") => {
                    (word.to_owned(), "true")
                }
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            },
        };
        set(&mut mount, &key, value)?;
    }
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let foreign = |given: bool, name: &str, kind: &str| {
        if given && mount.kind != kind {
            return Err(format!("cannot mix '{name}-*' options with mount type '{}'", mount.kind));
        }
        Ok(())
    };
    foreign(mount.bind_options.is_some(), "bind", "bind")?;
    foreign(mount.volume_options.is_some(), "volume", "volume")?;
    foreign(mount.tmpfs_options.is_some(), "tmpfs", "tmpfs")?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: &str) -> Result<(), String> {
    let truth = || match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("invalid value for {key}: {value}")),
    };
    match key {
        "type" => mount.kind = value.to_ascii_lowercase(),
        "source" | "src" => {
            // A relative path is this machine's, so it is made absolute here.
            mount.source = if value == "." || value.starts_with("./") || value.starts_with("../") {
                absolute(value)?
            } else {
                value.to_owned()
            };
        }
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "readonly" | "ro" => mount.read_only = truth()?,
        "consistency" => mount.consistency = value.to_owned(),
        "bind-propagation" => bind(mount).propagation = value.to_owned(),
        "bind-nonrecursive" => bind(mount).non_recursive = truth()?,
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => return Err(format!("invalid value for {key}: {value}")),
        },
        "volume-nocopy" => volume(mount).no_copy = truth()?,
        "volume-subpath" => volume(mount).subpath = value.to_owned(),
        "volume-label" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            volume(mount).labels.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        }
        "volume-driver" => {
            volume(mount).driver_config.get_or_insert_with(VolumeDriver::default).name = value.to_owned()
        }
        "tmpfs-size" => {
            mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default).size_bytes =
                super::size::parse(value)?;
        }
        "tmpfs-mode" => {
            let mode =
                u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
            mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default).mode = mode;
        }
        _ => return Err(format!("unexpected key '{key}' in '{key}={value}'")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_with(BindOptions::default)
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_with(VolumeOptions::default)
}

/// What one `-v` is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Volume {
    /// For HostConfig.Binds.
    Bind(String),
    /// A destination alone: an anonymous volume.
    Anonymous(String),
}

/// One `-v`; a relative source is made absolute, the rest is the engine's to judge.
pub(crate) fn volume_flag(text: &str) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [] | [""] => Err("invalid empty volume spec".to_owned()),
        [destination] => Ok(Volume::Anonymous((*destination).to_owned())),
        [source, rest @ ..] if rest.len() <= 2 => {
            let source = match *source {
                "" => return Err(format!("invalid volume specification: '{text}'")),
                s if s == "." || s == ".." || s.starts_with("./") || s.starts_with("../") => absolute(s)?,
                s if s.starts_with("~/") => {
                    return Err(format!("invalid volume specification: '{text}': ~ is the shell's"));
                }
                s => s.to_owned(),
            };
            Ok(Volume::Bind(format!("{source}:{}", rest.join(":"))))
        }
        _ => Err(format!("invalid volume specification: '{text}'")),
    }
}

fn absolute(path: &str) -> Result<String, String> {
    let joined = std::env::current_dir().map_err(|e| format!("current directory: {e}"))?.join(path);
    // Lexically: the file may not exist, and a symbolic link is to be followed by the mount, not here.
    let mut parts: Vec<std::path::Component<'_>> = Vec::new();
    for component in joined.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if parts.len() > 1 => drop(parts.pop()),
            std::path::Component::ParentDir => {}
            component => parts.push(component),
        }
    }
    let path: std::path::PathBuf = parts.into_iter().collect();
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((mount.source.as_str(), mount.target.as_str(), mount.read_only), ("/a", "/b", true));
        assert_eq!(mount.bind_options.unwrap().propagation, "rslave");
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        assert_eq!(mount.tmpfs_options.as_ref().unwrap().mode, 0o1777);
        for bad in [
            "",
            "type=bind",
            "dst=/a,x",
            "dst=/a,nosuch=1",
            "type=bind,dst=/a,tmpfs-size=1m",
            "dst=/a,ro=maybe",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes() {
        assert_eq!(volume_flag("/a:/b:ro"), Ok(Volume::Bind("/a:/b:ro".into())));
        assert_eq!(volume_flag("name:/b"), Ok(Volume::Bind("name:/b".into())));
        assert_eq!(volume_flag("/data"), Ok(Volume::Anonymous("/data".into())));
        let Volume::Bind(relative) = volume_flag("./x/../y:/b").unwrap() else { panic!() };
        assert!(relative.starts_with('/') && relative.ends_with("/y:/b"), "{relative}");
        for bad in ["", ":/b", "a:b:c:d", "~/x:/y"] {
            assert!(volume_flag(bad).is_err(), "{bad}");
        }
    }
}
