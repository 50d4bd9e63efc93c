//! Which pods are on which node, kept from changes alone.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::{Key, Object};

use crate::cache::{Change, Changed};

/// Keys of pods by node.
#[derive(Debug, Default)]
pub(crate) struct Placed(BTreeMap<String, BTreeSet<Key>>);

impl Placed {
    /// The pods of a node.
    pub(crate) fn on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.0.get(node).into_iter().flatten()
    }

    /// Takes a change in.
    pub(crate) fn observe(&mut self, changed: &Changed) {
        let Changed::Pod(Change { before, after }) = changed else { return };
        let node = |pod: &isopod_types::pod::Pod| pod.spec.node_name.clone();
        if before.as_ref().map(node) == after.as_ref().map(node) {
            return;
        }
        if let Some(pod) = before
            && let Some(keys) = self.0.get_mut(&pod.spec.node_name)
        {
            keys.remove(&pod.key());
            if keys.is_empty() {
                self.0.remove(&pod.spec.node_name);
            }
        }
        if let Some(pod) = after.as_ref().filter(|pod| !pod.spec.node_name.is_empty()) {
            self.0.entry(pod.spec.node_name.clone()).or_default().insert(pod.key());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use serde_json::json;

    #[test]
    fn pods_are_found_by_their_node() {
        let (mut cache, mut placed) = (Cache::default(), Placed::default());
        let pod = |revision: &str, node: &str| json!({"metadata": {"name": "p", "namespace": "x", "uid": "u", "resourceVersion": revision}, "spec": {"nodeName": node}});
        let mut step = |revision: &str, node: &str, expected: [usize; 2]| {
            placed.observe(&cache.put("Pod", &pod(revision, node)).unwrap());
            assert_eq!([placed.on("a").count(), placed.on("b").count()], expected);
        };
        step("1", "", [0, 0]);
        step("2", "a", [1, 0]);
        step("3", "b", [0, 1]);
        placed.observe(&cache.remove("Pod", &Key::new("x", "p")).unwrap());
        assert!(placed.0.is_empty());
    }
}
