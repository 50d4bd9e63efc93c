//! Defaults of Services and network policies that depend on other fields.

use serde_json::{Value, json};

use super::{Object, put, text};

const CLIENT_IP_TIMEOUT_SECONDS: i64 = 10_800;

/// Defaults of `Service.spec`. Addresses are allocated elsewhere.
pub(super) fn spec(object: &mut Object) {
    put(object, "type", "ClusterIP");
    put(object, "sessionAffinity", "None");
    affinity(object);
    for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            self::port(port);
        }
    }
    policies(object);
}

fn affinity(object: &mut Object) {
    if text(object, "sessionAffinity") == "None" {
        object.shift_remove("sessionAffinityConfig");
    } else if text(object, "sessionAffinity") == "ClientIP" {
        put(object, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT_SECONDS}}));
    }
}

fn port(port: &mut Object) {
    put(port, "protocol", "TCP");
    let unset = matches!(port.get("targetPort"), None | Some(Value::Null)) || text_or_zero_is_unset(port);
    if let (true, Some(number)) = (unset, port.get("port").cloned()) {
        port.insert("targetPort".into(), number);
    }
}

/// Go's zero `IntOrString`: number 0 or empty text.
fn text_or_zero_is_unset(port: &Object) -> bool {
    port.get("targetPort").is_some_and(|target| target == &json!(0) || target == &json!(""))
}

fn policies(object: &mut Object) {
    let ty = text(object, "type").to_owned();
    if ty != "ExternalName" {
        put(object, "internalTrafficPolicy", "Cluster");
    }
    let has_external = object.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if ty == "NodePort" || ty == "LoadBalancer" || (ty == "ClusterIP" && has_external) {
        put(object, "externalTrafficPolicy", "Cluster");
    }
    if ty == "LoadBalancer" {
        put(object, "allocateLoadBalancerNodePorts", true);
    }
}

/// Ingress always, Egress when there are egress rules.
pub(super) fn network_policy(object: &mut Object) {
    if !object.contains_key("policyTypes") {
        let egress = object.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        object.insert("policyTypes".into(), types);
    }
}
