//! The endpoints of the Engine API that this engine does not have, so that asking for one is told from a typo.
//! An endpoint that gains a route may stay here: routes are looked at first.

use http::Method;

/// Method and path; `{...}` stands for one or more segments.
const ENDPOINTS: &[(&str, &str)] = &[
    ("GET", "/containers/{id}/changes"),
    ("GET", "/containers/{id}/export"),
    ("GET", "/containers/{id}/stats"),
    ("GET", "/containers/{id}/attach/ws"),
    ("GET", "/containers/{id}/archive"),
    ("HEAD", "/containers/{id}/archive"),
    ("PUT", "/containers/{id}/archive"),
    ("GET", "/containers/{id}/checkpoints"),
    ("POST", "/containers/{id}/checkpoints"),
    ("DELETE", "/containers/{id}/checkpoints/{id}"),
    ("POST", "/build"),
    ("POST", "/build/prune"),
    ("POST", "/build/cancel"),
    ("GET", "/images/{name}/attestations"),
    ("POST", "/images/{name}/push"),
    ("GET", "/images/search"),
    ("POST", "/images/prune"),
    ("POST", "/commit"),
    ("DELETE", "/networks/{id}"),
    ("POST", "/networks/create"),
    ("POST", "/networks/{id}/connect"),
    ("POST", "/networks/{id}/disconnect"),
    ("POST", "/networks/prune"),
    ("PUT", "/volumes/{name}"),
    ("GET", "/swarm"),
    ("POST", "/swarm/init"),
    ("POST", "/swarm/join"),
    ("POST", "/swarm/leave"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/unlock"),
    ("GET", "/nodes"),
    ("GET", "/nodes/{id}"),
    ("DELETE", "/nodes/{id}"),
    ("POST", "/nodes/{id}/update"),
    ("GET", "/services"),
    ("POST", "/services/create"),
    ("GET", "/services/{id}"),
    ("DELETE", "/services/{id}"),
    ("POST", "/services/{id}/update"),
    ("GET", "/services/{id}/logs"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{id}"),
    ("GET", "/tasks/{id}/logs"),
    ("GET", "/secrets"),
    ("POST", "/secrets/create"),
    ("GET", "/secrets/{id}"),
    ("DELETE", "/secrets/{id}"),
    ("POST", "/secrets/{id}/update"),
    ("GET", "/configs"),
    ("POST", "/configs/create"),
    ("GET", "/configs/{id}"),
    ("DELETE", "/configs/{id}"),
    ("POST", "/configs/{id}/update"),
    ("GET", "/plugins"),
    ("GET", "/plugins/privileges"),
    ("POST", "/plugins/pull"),
    ("GET", "/plugins/{name}/json"),
    ("DELETE", "/plugins/{name}"),
    ("POST", "/plugins/{name}/enable"),
    ("POST", "/plugins/{name}/disable"),
    ("POST", "/plugins/{name}/upgrade"),
    ("POST", "/plugins/create"),
    ("POST", "/plugins/{name}/push"),
    ("POST", "/plugins/{name}/set"),
    ("GET", "/system/df"),
    ("GET", "/distribution/{name}/json"),
    ("POST", "/session"),
    ("POST", "/grpc"),
    ("GET", "/images/json"),
    ("POST", "/images/create"),
    ("GET", "/images/{name}/json"),
    ("GET", "/images/{name}/history"),
    ("POST", "/images/{name}/tag"),
    ("DELETE", "/images/{name}"),
    ("GET", "/images/{name}/get"),
    ("GET", "/images/get"),
    ("POST", "/images/load"),
];

/// `POST /networks/create` when the request is one of them.
pub(super) fn endpoint(method: &Method, path: &str) -> Option<String> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    ENDPOINTS
        .iter()
        .find(|(wanted, pattern)| {
            *wanted == method.as_str() && matches(&pattern.split('/').skip(1).collect::<Vec<_>>(), &segments)
        })
        .map(|(method, pattern)| format!("{method} {pattern}"))
}

fn matches(pattern: &[&str], segments: &[&str]) -> bool {
    match pattern.split_first() {
        None => segments.is_empty(),
        Some((first, rest)) if first.starts_with('{') => {
            (1..=segments.len()).any(|taken| matches(rest, &segments[taken..]))
        }
        Some((first, rest)) => segments.first() == Some(first) && matches(rest, &segments[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_known_by_method_and_path() {
        let find = |method: &str, path: &str| endpoint(&method.parse().unwrap(), path);
        assert_eq!(find("POST", "/build"), Some("POST /build".into()));
        assert_eq!(find("POST", "/images/a/b/c/push"), Some("POST /images/{name}/push".into()));
        assert_eq!(find("GET", "/containers/x/stats"), Some("GET /containers/{id}/stats".into()));
        assert_eq!(find("GET", "/build"), None);
        assert_eq!(find("GET", "/nosuch"), None);
    }
}
