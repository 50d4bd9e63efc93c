//! Which pods have which labels, kept from changes alone, so that a selector need not look at every pod of a namespace.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::pod::Pod;
use isopod_types::workload::LabelSelector;
use isopod_types::{Key, Object};

use crate::cache::{Cache, Change, Changed};

/// Namespace, key and value of a label.
type Label = (String, String, String);

/// Keys of pods by label.
#[derive(Debug, Default)]
pub(crate) struct Labelled(BTreeMap<Label, BTreeSet<Key>>);

fn labels(pod: &Pod) -> impl Iterator<Item = Label> + '_ {
    let namespace = &pod.metadata.namespace;
    pod.metadata.labels.iter().map(move |(key, value)| (namespace.clone(), key.clone(), value.clone()))
}

impl Labelled {
    /// Takes a change in.
    pub(crate) fn observe(&mut self, changed: &Changed) {
        let Changed::Pod(Change { before, after }) = changed else { return };
        let of = |pod: &Pod| pod.metadata.labels.clone();
        if before.as_ref().map(of) == after.as_ref().map(of) {
            return;
        }
        for (label, pod) in before.iter().flat_map(|pod| labels(pod).map(move |label| (label, pod))) {
            if let Some(keys) = self.0.get_mut(&label) {
                keys.remove(&pod.key());
                if keys.is_empty() {
                    self.0.remove(&label);
                }
            }
        }
        for (label, pod) in after.iter().flat_map(|pod| labels(pod).map(move |label| (label, pod))) {
            self.0.entry(label).or_default().insert(pod.key());
        }
    }

    /// The pods of a namespace that a selector selects.
    pub(crate) fn select<'a>(&self, cache: &'a Cache, namespace: &'a str, selector: &LabelSelector) -> Vec<&'a Pod> {
        let wanted = selector.match_labels.iter();
        let sets = wanted.map(|(key, value)| self.0.get(&(namespace.to_owned(), key.clone(), value.clone())));
        let smallest = sets.min_by_key(|keys| keys.map_or(0, BTreeSet::len));
        let is_selected = |pod: &&Pod| selector.matches(&pod.metadata.labels);
        match smallest {
            Some(keys) => {
                keys.into_iter().flatten().filter_map(|key| cache.pods.get(key)).filter(is_selected).collect()
            }
            None => cache.pods.of_namespace(namespace).filter(is_selected).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_found_by_their_labels() {
        let (mut cache, mut labelled) = (Cache::default(), Labelled::default());
        let mut put = |cache: &mut Cache, name: &str, revision: &str, labels: serde_json::Value| {
            let pod = json!({"metadata": {"name": name, "namespace": "x", "uid": name, "resourceVersion": revision, "labels": labels}});
            labelled.observe(&cache.put("Pod", &pod).unwrap());
        };
        put(&mut cache, "p", "1", json!({"app": "a", "tier": "1"}));
        put(&mut cache, "q", "2", json!({"app": "a"}));
        put(&mut cache, "r", "3", json!({"app": "b"}));
        put(&mut cache, "r", "4", json!({"app": "c"}));
        for (selector, expected) in [
            (json!({"matchLabels": {"app": "a"}}), vec!["p", "q"]),
            (json!({"matchLabels": {"app": "a", "tier": "1"}}), vec!["p"]),
            (json!({"matchLabels": {"app": "b"}}), vec![]),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["c"]}]}), vec!["r"]),
            (json!({}), vec!["p", "q", "r"]),
        ] {
            let selector_view: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            let found = labelled.select(&cache, "x", &selector_view);
            let names: Vec<&str> = found.iter().map(|pod| pod.metadata.name.as_str()).collect();
            assert_eq!(names, expected, "{selector}");
        }
    }
}
