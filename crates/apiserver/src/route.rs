//! What a request asks for, read off its method, path and query (facts, section 1.2). Pure.

use http::Method;
use isopod_schema::names;
use isopod_schema::selector::FieldSelector;

use crate::authz::Attributes;
use crate::query::{Query, decode_path};

/// A request, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// API verb for resources; the lower-case method for other paths.
    pub(crate) verb: String,
    /// It is below `/api/VERSION/` or `/apis/GROUP/VERSION/`.
    pub(crate) is_resource: bool,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The path as it came.
    pub(crate) path: String,
    /// What the field selector of a collection demands to be equal: field and value.
    pub(crate) fields: Vec<(String, String)>,
}

impl RequestInfo {
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode_path).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Self { verb: method.as_str().to_lowercase(), path: path.into(), ..Self::default() },
        };
        let (legacy_watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let mut info = Self::place(rest);
        info.is_resource = true;
        (info.group, info.version, info.path) = (group.into(), version.into(), path.into());
        let watch = legacy_watch || query.flag("watch");
        info.verb = info.verb_of(method, watch).to_owned();
        info.narrow(query);
        info
    }

    fn place(rest: &[&str]) -> Self {
        let (namespace, rest) = match rest {
            // The namespace itself and its subresources.
            ["namespaces", name] | ["namespaces", name, "status" | "finalize"] => (*name, rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let at = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        Self { namespace: namespace.into(), resource: at(0), name: at(1), subresource: at(2), ..Self::default() }
    }

    fn verb_of(&self, method: &Method, watch: bool) -> &'static str {
        match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD if watch && self.subresource.is_empty() => "watch",
            Method::GET | Method::HEAD if self.name.is_empty() => "list",
            Method::GET | Method::HEAD => "get",
            _ => "",
        }
    }

    /// A collection request is authorised as what its field selector leaves of it; for one name, as a request for that.
    fn narrow(&mut self, query: &Query) {
        if !self.name.is_empty() || !matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            return;
        }
        let Some(Ok(selector)) = query.get("fieldSelector").map(FieldSelector::parse) else { return };
        let equal = selector.terms.into_iter().filter(|term| term.equal);
        self.fields = equal.map(|term| (term.key, term.value)).collect();
        let name = self.fields.iter().find(|(field, _)| field == "metadata.name").map(|(_, name)| name.clone());
        self.name = name.filter(|name| names::path_segment(name).is_empty()).unwrap_or_default();
    }

    /// What permission this request needs, with another verb if need be.
    pub(crate) fn attributes(&self, verb: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: self.group.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: self.path.clone(),
            fields: self.fields.clone(),
        }
    }

    /// It changes something.
    pub(crate) fn is_mutating(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put")
    }

    /// It may last as long as its client likes.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || self.is_resource
                && matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_apart() {
        // method, URL, verb, group/version, namespace, resource, name
        let table = [
            ("GET", "/api/v1/pods", "list /v1  pods "),
            ("GET", "/api/v1/namespaces/n/pods?watch=true", "watch /v1 n pods "),
            ("GET", "/api/v1/watch/namespaces/n/pods", "watch /v1 n pods "),
            ("GET", "/api/v1/namespaces/n/pods/p?watch=0", "get /v1 n pods p"),
            ("POST", "/apis/apps/v1/namespaces/n/deployments", "create apps/v1 n deployments "),
            ("PUT", "/apis/apps/v1/namespaces/n/deployments/d/scale", "update apps/v1 n deployments/scale d"),
            ("DELETE", "/apis/apps/v1/namespaces/n/deployments", "deletecollection apps/v1 n deployments "),
            ("GET", "/api/v1/namespaces/n", "get /v1 n namespaces n"),
            ("PUT", "/api/v1/namespaces/n/finalize", "update /v1 n namespaces/finalize n"),
            ("GET", "/api/v1/namespaces", "list /v1  namespaces "),
            ("PATCH", "/api/v1/nodes/a%2Fb/status", "patch /v1  nodes/status a/b"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list /v1  pods x"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn%2Cmetadata.name%3Dx", "list /v1  pods x"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dx", "list /v1  pods "),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da%2Fb", "list /v1  pods "),
            ("GET", "/api/v1/namespaces/n/pods/p/log?watch=1", "get /v1 n pods/log p"),
            ("GET", "/api/v1", "get /   "),
            ("GET", "/readyz", "get /   "),
        ];
        for (method, url, expected) in table {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query));
            let found = format!(
                "{} {}/{} {} {} {}",
                info.verb,
                info.group,
                info.version,
                info.namespace,
                info.attributes("").full_resource(),
                info.name
            );
            assert_eq!(found, expected, "{method} {url}");
        }
    }
}
