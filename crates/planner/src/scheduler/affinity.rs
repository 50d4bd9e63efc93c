//! Node selectors and node affinity: whether a pod may and wants to be on a node. Knows nothing of other pods.
//!
//! Source: `k8s.io/component-helpers/scheduling/corev1/nodeaffinity`.

use isopod_types::ObjectMeta;
use isopod_types::pod::PodSpec;
use isopod_types::scheduling::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// The only field of a node that `matchFields` may name.
pub const NODE_NAME_FIELD: &str = "metadata.name";

/// Whether a value (of a label or field; none when it is absent) meets a requirement.
fn meets(value: Option<&str>, requirement: &NodeSelectorRequirement) -> bool {
    let stated = || requirement.values.iter().any(|wanted| Some(wanted.as_str()) == value);
    match requirement.operator.as_str() {
        "In" => value.is_some() && stated(),
        "NotIn" => !stated(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(value, requirement).is_some_and(|(value, bound)| value > bound),
        "Lt" => compare(value, requirement).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Value and bound of a comparison; none unless both are whole numbers.
fn compare(value: Option<&str>, requirement: &NodeSelectorRequirement) -> Option<(i64, i64)> {
    let [bound] = requirement.values.as_slice() else { return None };
    Some((value?.parse().ok()?, bound.parse().ok()?))
}

/// Whether a node meets all requirements of a term. A term without any meets nobody.
pub fn term_matches(term: &NodeSelectorTerm, node: &ObjectMeta) -> bool {
    let field = |key: &str| (key == NODE_NAME_FIELD).then_some(node.name.as_str());
    let fields = term.match_fields.iter().all(|requirement| meets(field(&requirement.key), requirement));
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let labels = term.match_expressions.iter().all(|requirement| meets(label(&requirement.key), requirement));
    !(term.match_fields.is_empty() && term.match_expressions.is_empty()) && fields && labels
}

/// Whether a node matches one of the selector's alternatives. A selector without any matches nobody.
pub fn selector_matches(selector: &NodeSelector, node: &ObjectMeta) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether a node has the labels of the pod's `nodeSelector` and matches its required node affinity.
pub fn node_allowed(spec: &PodSpec, node: &ObjectMeta) -> bool {
    let selected = spec.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    selected && required(spec).is_none_or(|selector| selector_matches(selector, node))
}

fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    spec.affinity.as_ref()?.node_affinity.as_ref()?.required.as_ref()
}

/// How much a pod wants a node: the sum of the weights of its wishes that the node meets. An empty wish is met by nobody.
pub fn preference(spec: &PodSpec, node: &ObjectMeta) -> i64 {
    let wishes = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let wishes = wishes.map_or(&[][..], |affinity| &affinity.preferred);
    wishes.iter().filter(|wish| term_matches(&wish.preference, node)).map(|wish| wish.weight).sum()
}

/// The names of the nodes that `matchFields` narrows the choice to, when every alternative names some.
pub fn named_nodes(spec: &PodSpec) -> Option<Vec<&str>> {
    let terms = &required(spec)?.node_selector_terms;
    let by_name = |field: &&NodeSelectorRequirement| field.key == NODE_NAME_FIELD && field.operator == "In";
    let fields: Option<Vec<_>> = terms.iter().map(|term| term.match_fields.iter().find(by_name)).collect();
    let names = fields?.into_iter().flat_map(|field| field.values.iter().map(String::as_str));
    (!terms.is_empty()).then(|| names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> ObjectMeta {
        serde_json::from_value(json!({"name": "n1", "labels": {"zone": "a", "cores": "8", "empty": ""}})).unwrap()
    }

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn required_terms(terms: Value) -> PodSpec {
        let required = json!({"nodeSelectorTerms": terms});
        spec(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}))
    }

    #[test]
    fn operators() {
        for (key, operator, values, expected) in [
            ("zone", "In", json!(["a", "b"]), true),
            ("zone", "In", json!(["b"]), false),
            ("none", "In", json!(["a"]), false),
            ("zone", "NotIn", json!(["b"]), true),
            ("zone", "NotIn", json!(["a"]), false),
            ("none", "NotIn", json!(["a"]), true),
            ("empty", "Exists", json!([]), true),
            ("none", "Exists", json!([]), false),
            ("none", "DoesNotExist", json!([]), true),
            ("zone", "DoesNotExist", json!([]), false),
            ("cores", "Gt", json!(["7"]), true),
            ("cores", "Gt", json!(["8"]), false),
            ("cores", "Lt", json!(["9"]), true),
            ("cores", "Lt", json!(["8"]), false),
            ("zone", "Gt", json!(["1"]), false),
            ("cores", "Gt", json!(["x"]), false),
            ("none", "Lt", json!(["9"]), false),
            ("cores", "Like", json!(["8"]), false),
        ] {
            let requirement = json!({"key": key, "operator": operator, "values": values});
            let spec = required_terms(json!([{"matchExpressions": [requirement]}]));
            assert_eq!(node_allowed(&spec, &node()), expected, "{key} {operator} {values}");
        }
    }

    #[test]
    fn terms_are_alternatives_of_requirements() {
        let zone = |value: &str| json!({"key": "zone", "operator": "In", "values": [value]});
        let name = |value: &str| json!({"key": "metadata.name", "operator": "In", "values": [value]});
        for (terms, expected) in [
            (json!([]), false),
            (json!([{}]), false),
            (json!([{}, {"matchExpressions": [zone("a")]}]), true),
            (json!([{"matchExpressions": [zone("b")]}, {"matchExpressions": [zone("a")]}]), true),
            (json!([{"matchExpressions": [zone("a"), zone("b")]}]), false),
            (json!([{"matchFields": [name("n1")]}]), true),
            (json!([{"matchFields": [name("n2")]}]), false),
            (json!([{"matchFields": [name("n1")], "matchExpressions": [zone("b")]}]), false),
            (json!([{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["n1"]}]}]), false),
        ] {
            assert_eq!(node_allowed(&required_terms(terms.clone()), &node()), expected, "{terms}");
        }
    }

    #[test]
    fn the_selector_holds_too() {
        assert!(node_allowed(&spec(json!({})), &node()));
        assert!(node_allowed(&spec(json!({"nodeSelector": {"zone": "a"}})), &node()));
        assert!(!node_allowed(&spec(json!({"nodeSelector": {"zone": "a", "disk": "ssd"}})), &node()));
    }

    #[test]
    fn wishes_add_up() {
        let wish = |weight: i64, zone: &str| json!({"weight": weight, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}});
        let wishes = json!([wish(5, "a"), wish(7, "b"), wish(11, "a"), {"weight": 3, "preference": {}}]);
        let spec =
            spec(json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": wishes}}}));
        assert_eq!(preference(&spec, &node()), 16);
    }

    #[test]
    fn names_narrow_the_choice_only_when_all_terms_have_them() {
        let name =
            |value: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [value]}]});
        let other = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
        assert_eq!(named_nodes(&required_terms(json!([name("a"), name("b")]))), Some(vec!["a", "b"]));
        assert_eq!(named_nodes(&required_terms(json!([name("a"), other]))), None);
        assert_eq!(named_nodes(&spec(json!({}))), None);
    }
}
