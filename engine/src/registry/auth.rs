//! What opens a registry: basic credentials, or a bearer token fetched where its challenge says.

use super::{MAX_ANSWER, read, transport};
use crate::error::Error;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use proto::docker::image::AuthConfig;
use std::collections::BTreeMap;
use tokio::sync::Mutex;

/// Credentials of one repository and the header they were last turned into.
pub(super) struct Authorization {
    credentials: Option<(String, String)>,
    identity_token: Option<String>,
    repository: String,
    current: Mutex<Option<String>>,
}

/// One `WWW-Authenticate` value.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Authorization {
    pub(super) fn new(given: Option<AuthConfig>, repository: &str) -> Authorization {
        let given = given.unwrap_or_default();
        let mut credentials = (!given.username.is_empty()).then_some((given.username, given.password));
        if credentials.is_none()
            && let Ok(decoded) = STANDARD.decode(&given.auth)
            && let Some((user, password)) = String::from_utf8_lossy(&decoded).split_once(':')
        {
            credentials = Some((user.to_owned(), password.to_owned()));
        }
        let token = |text: String| (!text.is_empty()).then_some(text);
        let current = token(given.registrytoken).map(|token| format!("Bearer {token}"));
        Authorization {
            credentials,
            identity_token: token(given.identitytoken),
            repository: repository.to_owned(),
            current: Mutex::new(current),
        }
    }

    /// The header that worked last.
    pub(super) async fn header(&self) -> Option<String> {
        self.current.lock().await.clone()
    }

    /// The header that answers one of `challenges`.
    pub(super) async fn answer(&self, challenges: &[String]) -> Result<String, Error> {
        let challenges: Vec<Challenge> = challenges.iter().filter_map(|text| parse(text)).collect();
        let find = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let header = if let Some(challenge) = find("bearer") {
            format!("Bearer {}", self.fetch_token(challenge).await?)
        } else if find("basic").is_some() {
            match &self.credentials {
                Some((user, password)) => basic(user, password),
                None => return Err(Error::internal("no basic auth credentials")),
            }
        } else {
            return Err(Error::internal("unauthorized: the registry names no way in that is known"));
        };
        *self.current.lock().await = Some(header.clone());
        Ok(header)
    }

    async fn fetch_token(&self, challenge: &Challenge) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let parameter = |name: &str| challenge.parameters.get(name).map_or("", String::as_str);
        let realm = parameter("realm");
        // Logging in opens no repository: a token without a scope says whether the credentials are good.
        let default_scope = match self.repository.as_str() {
            "" => String::new(),
            repository => format!("repository:{repository}:pull"),
        };
        let scope = Some(parameter("scope")).filter(|scope| !scope.is_empty()).unwrap_or(&default_scope);
        let mut query = vec![("service", parameter("service")), ("scope", scope)];
        if let Some((user, _)) = &self.credentials {
            query.push(("account", user));
        }
        let query: Vec<String> =
            query.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", encode(v))).collect();
        let separator = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{separator}{}", query.join("&"));
        let uri: Uri =
            url.parse().map_err(|_| Error::internal(format!("token service {realm:?} is no address")))?;
        let mut request = Request::get(&uri);
        match (&self.identity_token, &self.credentials) {
            (Some(token), _) => {
                request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"))
            }
            (None, Some((user, password))) => {
                request = request.header(http::header::AUTHORIZATION, basic(user, password));
            }
            (None, None) => {}
        }
        let request = request.body(Bytes::new()).map_err(|e| Error::internal(e.to_string()))?;
        let response = transport::send(&uri, request)
            .await
            .map_err(|e| Error::internal(format!("token service {realm}: {e}")))?;
        let status = response.status();
        let body = read(response, MAX_ANSWER).await?;
        if status != StatusCode::OK {
            return Err(Error::internal(format!(
                "unauthorized: incorrect username or password ({realm}: {status})"
            )));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| Error::internal(format!("token service {realm}: {e}")))?;
        match [answer.token, answer.access_token].into_iter().find(|token| !token.is_empty()) {
            Some(token) => Ok(token),
            None => Err(Error::internal(format!("token service {realm}: no token in the answer"))),
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Query escaping of everything but the unreserved characters (RFC 3986).
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// `Scheme name="value",name=value`; quoted values may hold commas.
fn parse(text: &str) -> Option<Challenge> {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut parameters = BTreeMap::new();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(name, value.trim().to_owned());
        rest = after;
    }
    (!scheme.is_empty()).then(|| Challenge { scheme: scheme.to_ascii_lowercase(), parameters })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text =
            r#"Bearer realm="https://a.example/token?x=1",service="reg", scope="repository:a/b:pull,push""#;
        let challenge = parse(text).unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameters["realm"], "https://a.example/token?x=1");
        assert_eq!(challenge.parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(parse("Basic realm=x").unwrap().parameters["realm"], "x");
        assert_eq!(parse(""), None);
    }

    #[tokio::test]
    async fn basic_needs_credentials() {
        let none = Authorization::new(None, "a");
        let challenge = ["Basic realm=\"r\"".to_owned()];
        assert_eq!(none.answer(&challenge).await.unwrap_err().to_string(), "no basic auth credentials");
        let given = AuthConfig { auth: STANDARD.encode("me:pw"), ..AuthConfig::default() };
        let some = Authorization::new(Some(given), "a");
        assert_eq!(some.answer(&challenge).await.unwrap(), format!("Basic {}", STANDARD.encode("me:pw")));
    }
}
