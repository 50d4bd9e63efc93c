//! The words of Isopod: names, quantities, the parts of Kubernetes objects that decisions read, and our own kinds.
//!
//! Everybody uses this crate; it uses nobody. The Kubernetes types here are *views*: they hold the fields that
//! some decision reads and ignore the rest, so an object is never written back from one of them. Writes are JSON
//! documents or patches.

pub mod autoscaling;
pub mod batch;
pub mod cluster_config;
pub mod daemonset;
pub mod disruption;
pub mod instances;
pub mod lease;
pub mod meta;
pub mod names;
pub mod network;
pub mod node;
pub mod own;
pub mod pod;
pub mod probe;
pub mod quantity;
pub mod rbac;
pub mod scheduling;
pub mod selectors;
pub mod statefulset;
pub mod storage;
pub mod workload;

pub use meta::{Key, Object, ObjectMeta, OwnerReference};
pub use quantity::Quantity;

/// A list that Go writes as null when it has nothing in it.
pub(crate) fn absent_if_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn lists_that_are_null_are_empty() {
        let slice = json!({"endpoints": null, "ports": null});
        let slice: crate::network::EndpointSlice = serde_json::from_value(slice).unwrap();
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
        let endpoint: crate::network::Endpoint = serde_json::from_value(json!({"addresses": null})).unwrap();
        assert!(endpoint.addresses.is_empty());
        let status = json!({"currentMetrics": null, "desiredReplicas": 3});
        let status: crate::autoscaling::AutoscalerStatus = serde_json::from_value(status).unwrap();
        assert_eq!((status.current_metrics.len(), status.desired_replicas), (0, 3));
    }
}
