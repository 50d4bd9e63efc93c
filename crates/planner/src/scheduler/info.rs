//! A pod as other pods' placement depends on it: what it uses, and whom it wants near or away. Made once per pod.

use std::collections::BTreeMap;

use isopod_types::pod::Pod;
use isopod_types::scheduling::{PodAffinity, PodAffinityTerm, TopologySpreadConstraint};
use isopod_types::workload::{LabelRequirement, LabelSelector};
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::ports::{self, HostPort};
use super::resources::{self, Resources};

/// Labels of a pod, node or namespace.
pub type Labels = BTreeMap<String, String>;

/// Which pods a rule is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    labels: Option<LabelSelector>,
    /// UID of the controller; then labels do not matter.
    owner: String,
}

/// A selector narrowed to pods that share, or do not share, the values of some labels.
fn narrowed(
    selector: Option<&LabelSelector>,
    own: &Labels,
    shared: &[String],
    unshared: &[String],
) -> Option<LabelSelector> {
    let mut selector = selector?.clone();
    for (keys, operator) in [(shared, "In"), (unshared, "NotIn")] {
        let known = keys.iter().filter_map(|key| Some((key, own.get(key)?)));
        let requirements = known.map(|(key, value)| LabelRequirement {
            key: key.clone(),
            operator: operator.into(),
            values: vec![value.clone()],
        });
        selector.match_expressions.extend(requirements);
    }
    Some(selector)
}

impl Selection {
    /// The pods that an affinity term of a pod with this namespace and these labels is about.
    pub fn of_term(term: &PodAffinityTerm, namespace: &str, own: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let labels = narrowed(term.label_selector.as_ref(), own, &term.match_label_keys, &term.mismatch_label_keys);
        Self { namespaces, namespace_selector: term.namespace_selector.clone(), labels, owner: String::new() }
    }

    /// The pods that a spread constraint of a pod with this namespace and these labels counts.
    pub fn of_spread(constraint: &TopologySpreadConstraint, namespace: &str, own: &Labels) -> Self {
        let labels = narrowed(constraint.label_selector.as_ref(), own, &constraint.match_label_keys, &[]);
        Self { namespaces: vec![namespace.to_owned()], namespace_selector: None, labels, owner: String::new() }
    }

    /// The pods of one controller.
    pub fn of_owner(namespace: &str, uid: &str) -> Self {
        Self { namespaces: vec![namespace.to_owned()], namespace_selector: None, labels: None, owner: uid.to_owned() }
    }

    /// Whether the rule is about a pod; `namespaces` are the labels of all namespaces.
    pub fn holds(&self, info: &PodInfo, namespaces: &BTreeMap<String, Labels>) -> bool {
        if !self.owner.is_empty() {
            return self.owner == info.owner;
        }
        let none = Labels::new();
        let selected =
            |selector: &LabelSelector| selector.matches(namespaces.get(&info.key.namespace).unwrap_or(&none));
        let namespace =
            self.namespaces.contains(&info.key.namespace) || self.namespace_selector.as_ref().is_some_and(selected);
        namespace && self.labels.as_ref().is_some_and(|labels| labels.matches(&info.labels))
    }

    /// Whether it depends on labels of namespaces.
    pub fn reads_namespaces(&self) -> bool {
        self.namespace_selector.is_some()
    }
}

/// What a pod says about being near others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It must be near them.
    MustBeNear,
    /// It must not be near them.
    MustBeAway,
    /// It likes to be near them, by a weight; a negative one: away.
    Likes(i64),
}

/// One rule of a pod about others.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What it says.
    pub wish: Wish,
    /// About whom.
    pub selection: Selection,
    /// Node label whose equal values are one place.
    pub topology_key: String,
}

/// A pod as other pods' placement depends on it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: Key,
    /// UID.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// UID of its controller, or empty.
    pub owner: String,
    /// Rank.
    pub priority: i64,
    /// What it asks for.
    pub requested: Resources,
    /// CPU thousandths and memory bytes it counts with when nodes are compared.
    pub scored: (i64, i64),
    /// Ports of the node.
    pub ports: Vec<HostPort>,
    /// Its rules about others.
    pub terms: Vec<Term>,
    /// Claims it uses, by name.
    pub claims: Vec<String>,
    /// Whether it is ending.
    pub is_deleting: bool,
    /// When it started.
    pub started: Option<Timestamp>,
}

fn terms_of(pod: &Pod) -> Vec<Term> {
    let Some(affinity) = &pod.spec.affinity else { return Vec::new() };
    let meta = &pod.metadata;
    let term = |wish: Wish, term: &PodAffinityTerm| Term {
        wish,
        selection: Selection::of_term(term, &meta.namespace, &meta.labels),
        topology_key: term.topology_key.clone(),
    };
    let of = |rules: &PodAffinity, must: Wish, sign: i64| -> Vec<Term> {
        let required = rules.required.iter().map(|rule| term(must, rule));
        let preferred =
            rules.preferred.iter().map(|rule| term(Wish::Likes(sign * rule.weight), &rule.pod_affinity_term));
        required.chain(preferred).collect()
    };
    let near = affinity.pod_affinity.iter().flat_map(|rules| of(rules, Wish::MustBeNear, 1));
    let away = affinity.pod_anti_affinity.iter().flat_map(|rules| of(rules, Wish::MustBeAway, -1));
    near.chain(away).collect()
}

/// The claims a pod uses, by name; those of its ephemeral volumes too.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let claim = |volume: &isopod_types::pod::Volume| {
        if volume.other.contains_key("ephemeral") {
            return Some(format!("{}-{}", pod.metadata.name, volume.name));
        }
        Some(volume.other.get("persistentVolumeClaim")?["claimName"].as_str()?.to_owned())
    };
    pod.spec.volumes.iter().filter_map(claim).collect()
}

impl PodInfo {
    /// From the pod.
    pub fn of(pod: &Pod) -> Self {
        let counted = resources::counted(pod);
        Self {
            key: pod.key(),
            uid: pod.metadata.uid.clone(),
            labels: pod.metadata.labels.clone(),
            owner: pod.metadata.controller().map(|owner| owner.uid.clone()).unwrap_or_default(),
            priority: pod.spec.priority.unwrap_or(0),
            requested: resources::requested(&counted),
            scored: resources::scored(&counted),
            ports: ports::wanted(&pod.spec),
            terms: terms_of(pod),
            claims: claims_of(pod),
            is_deleting: pod.metadata.is_deleting(),
            started: pod.status.start_time,
        }
    }

    /// Whether placement of others may differ between this and another state of the same pod.
    pub fn differs(&self, other: &Self) -> bool {
        self.uid != other.uid
            || self.labels != other.labels
            || self.is_deleting != other.is_deleting
            || self.requested != other.requested
            || self.owner != other.owner
            || self.started != other.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(namespace: &str, labels: Value) -> PodInfo {
        let pod = json!({"metadata": {"name": "p", "namespace": namespace, "labels": labels}});
        PodInfo::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn terms_select_pods_by_namespace_and_labels() {
        let own: Labels = [("app".to_owned(), "a".to_owned()), ("v".to_owned(), "1".to_owned())].into();
        let team = |name: &str| Labels::from([("team".to_owned(), name.to_owned())]);
        let namespaces = BTreeMap::from([("x".to_owned(), team("red")), ("y".to_owned(), team("blue"))]);
        let app = json!({"matchLabels": {"app": "a"}});
        for (term, namespace, labels, expected) in [
            (json!({"labelSelector": app}), "x", json!({"app": "a"}), true),
            (json!({"labelSelector": app}), "y", json!({"app": "a"}), false),
            (json!({"labelSelector": app, "namespaces": ["y"]}), "y", json!({"app": "a"}), true),
            (json!({"labelSelector": app, "namespaces": ["y"]}), "x", json!({"app": "a"}), false),
            (json!({"labelSelector": app, "namespaceSelector": {}}), "y", json!({"app": "a"}), true),
            (
                json!({"labelSelector": app, "namespaceSelector": {"matchLabels": {"team": "blue"}}}),
                "y",
                json!({"app": "a"}),
                true,
            ),
            (
                json!({"labelSelector": app, "namespaceSelector": {"matchLabels": {"team": "blue"}}}),
                "x",
                json!({"app": "a"}),
                false,
            ),
            (json!({"namespaceSelector": {}}), "x", json!({"app": "a"}), false),
            (json!({"labelSelector": {}}), "x", json!({}), true),
            (json!({"labelSelector": app, "matchLabelKeys": ["v", "w"]}), "x", json!({"app": "a", "v": "1"}), true),
            (json!({"labelSelector": app, "matchLabelKeys": ["v"]}), "x", json!({"app": "a", "v": "2"}), false),
            (json!({"labelSelector": app, "mismatchLabelKeys": ["v"]}), "x", json!({"app": "a", "v": "1"}), false),
        ] {
            let rule: PodAffinityTerm = serde_json::from_value(term.clone()).unwrap();
            let selection = Selection::of_term(&rule, "x", &own);
            assert_eq!(
                selection.holds(&pod(namespace, labels.clone()), &namespaces),
                expected,
                "{term} {namespace} {labels}"
            );
        }
    }

    #[test]
    fn claims_are_those_of_volumes() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "b", "ephemeral": {}}, {"name": "c", "emptyDir": {}},
        ]}}))
        .unwrap();
        assert_eq!(claims_of(&pod), ["data", "p-b"]);
    }
}
