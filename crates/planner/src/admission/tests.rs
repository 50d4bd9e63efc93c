//! What the tests of all deciders share: a cluster made of a list of objects, and a request in one line.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// Objects under `RESOURCE/[NAMESPACE/]NAME`.
#[derive(Default)]
pub(super) struct Cluster(BTreeMap<String, Arc<Value>>);

impl Cluster {
    pub(super) fn with(mut self, resource: &str, object: Value) -> Self {
        let (namespace, name) = (text(&object["metadata"], "namespace"), text(&object["metadata"], "name"));
        let key = format!("{resource}/{namespace}/{name}");
        self.0.insert(key, Arc::new(object));
        self
    }
}

impl Facts for Cluster {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.get(&format!("{resource}/{namespace}/{name}")).cloned()
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = if namespace.is_empty() { format!("{resource}/") } else { format!("{resource}/{namespace}/") };
        self.0.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, object)| Arc::clone(object)).collect()
    }
}

/// `OPERATION [GROUP:]RESOURCE[/SUBRESOURCE] [NAMESPACE/]NAME`, by somebody.
pub(super) fn request(line: &str) -> Request<'_> {
    let mut words = line.split_whitespace();
    let operation = match words.next() {
        Some("CREATE") => Operation::Create,
        Some("UPDATE") => Operation::Update,
        Some("CONNECT") => Operation::Connect,
        _ => Operation::Delete,
    };
    let path = words.next().unwrap_or_default();
    let (group, resource) = path.split_once(':').unwrap_or(("", path));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let name = words.next().unwrap_or_default();
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Request {
        operation,
        group,
        resource,
        subresource,
        namespace,
        name,
        old: None,
        user: "somebody",
        groups: &[],
        suffix: "abcde",
    }
}

#[test]
fn nothing_configured_changes_nothing() {
    for line in ["CREATE configmaps a/b", "UPDATE apps:deployments a/b", "DELETE pods a/b", "CREATE pods/binding a/b"] {
        let mut object = json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
        let before = object.clone();
        assert_eq!(mutate(&mut object, &request(line), &Cluster::default()), Ok(false), "{line}");
        assert_eq!(object, before, "{line}");
        assert_eq!(validate(&object, &request(line), &Cluster::default()), Ok(Vec::new()), "{line}");
    }
}
