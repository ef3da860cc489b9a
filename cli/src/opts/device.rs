//! `--device HOST[:CONTAINER[:RWM]]`.

use proto::docker::container::DeviceMapping;

pub(crate) fn parse(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |mode: &str| !mode.is_empty() && mode.chars().all(|c| "rwm".contains(c));
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if is_mode(mode) => (*host, *container, *mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !container.starts_with('/') || !host.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let device = parse("/dev/null:/dev/x:rw").unwrap();
        assert_eq!((device.path_in_container.as_str(), device.cgroup_permissions.as_str()), ("/dev/x", "rw"));
        assert_eq!(parse("/dev/null:r").unwrap().path_in_container, "/dev/null");
        for bad in ["", "null", "/dev/a:/dev/b:x", "/a:/b:r:w"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
