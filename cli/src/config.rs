//! docker's config.json: who this user is to a registry.

use crate::exit::{Failure, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proto::docker::image::AuthConfig;
use proto::reference::Reference;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The Hub's key in config.json, older than every other name it has.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// config.json, with every member that is not understood kept as it is.
pub(crate) struct Config {
    path: PathBuf,
    document: Map<String, Value>,
}

impl Config {
    pub(crate) fn load(dir: Option<PathBuf>) -> Result<Config> {
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let dir = dir.or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from)).or_else(home);
        let path = dir.unwrap_or_else(|| PathBuf::from(".docker")).join("config.json");
        let document = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Failure::new(1, format!("Error loading config file: {}: {e}", path.display()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(Failure::new(1, format!("{}: {error}", path.display()))),
        };
        Ok(Config { path, document })
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> Option<PathBuf> {
        self.path.parent().map(PathBuf::from)
    }

    /// A format the user has set: `psFormat`, `imagesFormat`.
    pub(crate) fn format(&self, key: &str) -> Option<String> {
        self.document.get(key)?.as_str().map(str::to_owned).filter(|text| !text.is_empty())
    }

    /// The value of X-Registry-Auth for the registry of `image`.
    pub(crate) fn registry_auth(&self, image: &str) -> String {
        let server = Reference::parse_familiar(image).ok().map(|reference| key(reference.domain()));
        let auth = server.and_then(|server| self.credentials(&server)).unwrap_or_default();
        URL_SAFE.encode(serde_json::to_vec(&auth).unwrap_or_default())
    }

    fn credentials(&self, server: &str) -> Option<AuthConfig> {
        let entry = self.document.get("auths")?.get(server)?;
        let mut auth: AuthConfig = serde_json::from_value(entry.clone()).ok()?;
        if let Ok(decoded) = STANDARD.decode(&auth.auth)
            && let Some((user, password)) = String::from_utf8_lossy(&decoded).split_once(':')
        {
            auth.username = user.to_owned();
            auth.password = password.trim_end_matches('\0').to_owned();
            auth.auth.clear();
        }
        auth.serveraddress = server.to_owned();
        Some(auth)
    }

    pub(crate) fn log_in(&mut self, auth: &AuthConfig) -> Result<()> {
        let entry = if auth.identitytoken.is_empty() {
            serde_json::json!({"auth": STANDARD.encode(format!("{}:{}", auth.username, auth.password))})
        } else {
            serde_json::json!({
                "auth": STANDARD.encode(format!("{}:", auth.username)),
                "identitytoken": auth.identitytoken,
            })
        };
        let auths = self.document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(auth.serveraddress.clone(), entry);
        }
        self.save()
    }

    /// False when nobody was logged in there.
    pub(crate) fn log_out(&mut self, server: &str) -> Result<bool> {
        let auths = self.document.get_mut("auths").and_then(Value::as_object_mut);
        let removed = auths.is_some_and(|auths| auths.remove(server).is_some());
        if removed {
            self.save()?;
        }
        Ok(removed)
    }

    /// Written beside, for its owner alone, and renamed.
    fn save(&self) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let step = |e: std::io::Error| Failure::new(1, format!("write {}: {e}", self.path.display()));
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir).map_err(step)?;
        }
        let beside = self.path.with_extension(format!("json.{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(step)?;
        let text = serde_json::to_string_pretty(&self.document)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(step)?;
        std::fs::rename(&beside, &self.path).map_err(step)
    }
}

/// A registry's key in config.json.
pub(crate) fn key(server: &str) -> String {
    match server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/') {
        "" | "docker.io" | "index.docker.io" | "index.docker.io/v1" | "registry-1.docker.io" => {
            HUB_KEY.to_owned()
        }
        server => server.to_owned(),
    }
}
