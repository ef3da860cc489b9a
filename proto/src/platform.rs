//! Platforms: `os[/architecture[/variant]]` with the field's usual aliases normalised.

use std::fmt;

/// What may stand alone, without the operating system.
const KNOWN_ARCHITECTURES: [&str; 20] = [
    "386", "aarch64", "amd64", "arm", "arm64", "armel", "armhf", "i386", "loong64", "mips", "mips64",
    "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm", "x86-64", "x86_64",
];

/// An operating system and a processor, normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

impl Platform {
    /// This machine's platform.
    pub fn host() -> Platform {
        let (architecture, variant) = normalise_architecture(std::env::consts::ARCH, "");
        Platform { os: "linux".into(), architecture, variant }
    }

    /// Parses `os`, `os/arch`, `os/arch/variant`, or an architecture alone.
    pub fn parse(text: &str) -> Result<Platform, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if parts.len() > 3 {
            return Err(format!("\"{text}\": cannot parse platform specifier: invalid argument"));
        }
        if let Some(part) = parts.iter().find(|part| !valid(part)) {
            return Err(format!(
                "\"{part}\" is an invalid component of \"{text}\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
            ));
        }
        let host = Platform::host();
        let lower: Vec<String> = parts.iter().map(|p| p.to_ascii_lowercase()).collect();
        Ok(match lower.as_slice() {
            [os] if os == "linux" || os == "windows" || os == "darwin" || os == "freebsd" => {
                Platform { os: os.clone(), ..host }
            }
            [architecture] if !KNOWN_ARCHITECTURES.contains(&architecture.as_str()) => {
                return Err(format!(
                    "\"{text}\": unknown operating system or architecture: invalid argument"
                ));
            }
            [architecture] => {
                let (architecture, variant) = normalise_architecture(architecture, "");
                Platform { os: host.os, architecture, variant }
            }
            [os, rest @ ..] => {
                let (architecture, variant) =
                    normalise_architecture(&rest[0], rest.get(1).map_or("", String::as_str));
                Platform { os: os.clone(), architecture, variant }
            }
            [] => host,
        })
    }

    /// True when an image for `offered` runs on this platform.
    pub fn matches(&self, os: &str, architecture: &str, variant: &str) -> bool {
        let (architecture, variant) = normalise_architecture(architecture, variant);
        self.os == os && self.architecture == architecture && (self.variant == variant || variant.is_empty())
    }
}

fn normalise_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (a, v) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("i386" | "386", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("powerpc64", v) => ("ppc64le", v),
        (a, v) => (a, v),
    };
    (a.to_owned(), v.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_one_platform() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("LINUX/ARM", "linux/arm/v7"),
            ("aarch64", "linux/arm64"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), expected);
        }
        for bad in ["", "/", "a/b/c/d", "linux/a b"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }
}
