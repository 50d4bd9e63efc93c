//! Leases as decisions read them: by them, nodes and hosts say that they live.

use jiff::Timestamp;
use serde::Deserialize;

use crate::meta::{ObjectMeta, object};

/// Namespace of the leases of nodes and hosts.
pub const NODE_LEASES: &str = "kube-node-lease";

/// A lease.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lease {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: LeaseSpec,
}
object!(Lease, "coordination.k8s.io", "v1", "Lease", "leases", true);

/// `spec` of a lease.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// Who holds it.
    pub holder_identity: String,
    /// When the holder last said so, by the holder's clock.
    pub renew_time: Option<Timestamp>,
}
