//! Content digests: `algorithm:hex`, sha256 only here (OCI image-spec, descriptor.md).

use std::{fmt, str::FromStr};

/// A checked `sha256:<64 lower-case hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

const PREFIX: &str = "sha256:";

impl Digest {
    /// From the 32 bytes of a finished SHA-256.
    pub fn from_sha256(bytes: &[u8; 32]) -> Digest {
        use fmt::Write;
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in bytes {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Digest(text)
    }

    /// The whole digest, algorithm included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex part: 64 characters, safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }
}

/// Why a text is no digest.
#[derive(Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The algorithm before the colon is not sha256.
    Unsupported,
    /// No colon, a wrong length or a character other than lower-case hex.
    Format,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseError::Unsupported => "unsupported digest algorithm",
            ParseError::Format => "invalid checksum digest format",
        })
    }
}

impl std::error::Error for ParseError {}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Digest, ParseError> {
        let (algorithm, hex) = text.split_once(':').ok_or(ParseError::Format)?;
        if algorithm != "sha256" {
            return Err(ParseError::Unsupported);
        }
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(ParseError::Format);
        }
        Ok(Digest(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_and_64_lower_hex_digits() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().hex(), "0a".repeat(32));
        assert_eq!(Digest::from_sha256(&[10; 32]).as_str(), good);
        for bad in ["", "sha256", "sha256:", "sha256:../../etc", &good.to_uppercase(), &good[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert_eq!(format!("sha512:{}", "0".repeat(128)).parse::<Digest>(), Err(ParseError::Unsupported));
    }
}
