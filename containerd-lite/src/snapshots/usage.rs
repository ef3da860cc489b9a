//! What a layer occupies: blocks on disk and inodes, a hard-linked file once.

use crate::error::{Context, Result};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn disk_usage(root: &Path) -> Result<(i64, i64)> {
    let mut seen = HashSet::new();
    let (mut bytes, mut inodes) = (0, 0);
    let mut count = |meta: &std::fs::Metadata| {
        if meta.nlink() < 2 || meta.is_dir() || seen.insert(meta.ino()) {
            bytes += meta.blocks() as i64 * 512;
            inodes += 1;
        }
    };
    count(&std::fs::symlink_metadata(root).step(|| format!("read {}", root.display()))?);
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A container may be at work in an active snapshot.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).step(|| format!("read {}", folder.display())),
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            count(&meta);
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok((bytes, inodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_link_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/a"), vec![1; 8192]).unwrap();
        let (before, inodes) = disk_usage(dir.path()).unwrap();
        std::fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        assert_eq!(disk_usage(dir.path()).unwrap(), (before, inodes));
        assert_eq!(inodes, 3);
    }
}
