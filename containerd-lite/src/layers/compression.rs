//! Which compression a layer has, and the plain stream out of it.

use crate::error::{Error, Result};
use std::io::{BufRead, Read};

/// Largest zstd window, as a power of two: what the decoder may allocate (128 MiB, zstd's own default limit).
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
    /// The media type leaves it open, as docker's do: the first bytes tell.
    Detect,
}

fn of_media_type(media_type: &str) -> Result<Compression> {
    let (base, suffix) = media_type.split_once('+').map_or((media_type, ""), |(base, suffix)| (base, suffix));
    let compression = match base {
        "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Compression::Detect),
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar" => match suffix {
            "" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        },
        _ => None,
    };
    compression.ok_or_else(|| {
        // containerd's word and class for it.
        Error::step(
            format_args!("failed to get stream processor for {media_type}"),
            "no processor for media-type",
        )
    })
}

/// The uncompressed bytes of `blob`.
pub(super) fn decompress<'a>(
    media_type: &str,
    mut blob: impl BufRead + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>> {
    let mut compression = of_media_type(media_type)?;
    if compression == Compression::Detect {
        let start = blob.fill_buf().map_err(|error| Error::step("read layer", error))?;
        compression = if start.starts_with(&[0x1f, 0x8b, 0x08]) {
            Compression::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Compression::Zstd
        } else {
            Compression::None
        };
    }
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)
                .map_err(|error| Error::step("start zstd decoder", error))?;
            decoder
                .window_log_max(MAX_ZSTD_WINDOW_LOG)
                .map_err(|error| Error::step("start zstd decoder", error))?;
            Box::new(decoder)
        }
        _ => Box::new(blob),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn media_types() {
        for (media_type, want) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Compression::None)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Detect)),
            ("application/vnd.oci.image.layer.v1.tar+encrypted", None),
            ("application/vnd.oci.image.manifest.v1+json", None),
            ("", None),
        ] {
            assert_eq!(of_media_type(media_type).ok(), want, "{media_type}");
        }
    }

    #[test]
    fn every_form_gives_the_same_bytes() {
        let plain = b"some bytes".repeat(1000);
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        // Members one after the other are one stream.
        let two: Vec<u8> = [gzip(&plain[..100]), gzip(&plain[100..])].concat();
        let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
        for (media_type, bytes) in [
            ("application/vnd.oci.image.layer.v1.tar", &plain),
            ("application/vnd.oci.image.layer.v1.tar+gzip", &gzip(&plain)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", &two),
            ("application/vnd.oci.image.layer.v1.tar+zstd", &zstd),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", &two),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", &zstd),
            ("application/vnd.docker.image.rootfs.diff.tar", &plain),
        ] {
            let mut out = Vec::new();
            decompress(media_type, bytes.as_slice()).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, plain, "{media_type}");
        }
        let gzip = gzip(&plain);
        let cut = &gzip[..gzip.len() - 4];
        let mut out = Vec::new();
        let result =
            decompress("application/vnd.oci.image.layer.v1.tar+gzip", cut).unwrap().read_to_end(&mut out);
        assert!(result.is_err());
    }
}
