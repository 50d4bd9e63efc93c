//! Links of a proxied server, as they lead back through the proxy. Pure.

/// Where the links of a server are below this one.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    /// Path of the proxy, without a slash at the end.
    pub(super) path: String,
    /// How the server may name itself in links: by its own address, or as its client called it.
    pub(super) hosts: [String; 2],
}

impl Prefix {
    /// A link to the proxied server becomes a link through the proxy. Relative links and links elsewhere stay.
    pub(super) fn rewrite(&self, link: &str) -> String {
        let own = |rest: &str| {
            let (host, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
            self.hosts.iter().any(|own| own == host && !own.is_empty()).then(|| path.to_owned())
        };
        let lower = link.get(..8).unwrap_or(link).to_ascii_lowercase();
        let path = if lower.starts_with("http://") {
            own(&link[7..])
        } else if lower.starts_with("https://") {
            own(&link[8..])
        } else if let Some(rest) = link.strip_prefix("//") {
            own(rest)
        } else {
            Some(link.to_owned())
        };
        match path {
            Some(path) if path.starts_with('/') && !self.is_inside(&path) => format!("{}{path}", self.path),
            Some(path) if path.starts_with('/') => path,
            _ => link.to_owned(),
        }
    }

    fn is_inside(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_back() {
        let prefix = Prefix { path: "/p/proxy".into(), hosts: ["10.0.0.1:8080".into(), "localhost:8001".into()] };
        let table = [
            ("/", "/p/proxy/"),
            ("/a/b?c=/d", "/p/proxy/a/b?c=/d"),
            ("a/b", "a/b"),
            ("../x", "../x"),
            ("#top", "#top"),
            ("", ""),
            ("/p/proxy/a", "/p/proxy/a"),
            ("/p/proxyother", "/p/proxy/p/proxyother"),
            ("http://10.0.0.1:8080/a", "/p/proxy/a"),
            ("HTTPS://localhost:8001/a?b#c", "/p/proxy/a?b#c"),
            ("//10.0.0.1:8080/a", "/p/proxy/a"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://elsewhere/a", "http://elsewhere/a"),
            ("//elsewhere/a", "//elsewhere/a"),
            ("mailto:a@b", "mailto:a@b"),
            ("data:é", "data:é"),
        ];
        for (link, expected) in table {
            assert_eq!(prefix.rewrite(link), expected, "{link}");
        }
    }
}
