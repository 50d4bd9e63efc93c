//! Leases: how the control plane learns that this host and its worker nodes are alive. One for the host stands for all its
//! Fargate nodes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::agent::Context;

/// Time between renewals, as the kubelet has it.
const RENEWAL: Duration = Duration::from_secs(10);
/// Seconds for which a lease is good.
const DURATION_SECONDS: i64 = 40;

const COLLECTION: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// Renews the leases until told to stop, and at once when a node has come up.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        for holder in std::iter::once(context.host.clone()).chain(context.nodes_up()) {
            if let Err(error) = renew(&context, &holder).await {
                tracing::warn!(holder, %error, "a lease was not renewed");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.node_came_up.notified() => {}
            () = tokio::time::sleep(RENEWAL) => {}
        }
    }
}

fn spec(holder: &str, now: Timestamp) -> Value {
    json!({"holderIdentity": holder, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": format!("{now:.6}")})
}

async fn renew(context: &Context, holder: &str) -> Result<(), kube::Error> {
    let spec = spec(holder, Timestamp::now());
    let patched = context.api.patch(&format!("{COLLECTION}/{holder}"), &json!({"spec": spec})).await?;
    if patched.is_none() {
        let mut metadata = json!({"name": holder});
        if let Some((kind, uid)) = context.lease_owner(holder) {
            let api_version = if kind == "Node" { "v1" } else { isopod_types::names::OWN_API_VERSION };
            metadata["ownerReferences"] =
                json!([{"apiVersion": api_version, "kind": kind, "name": holder, "uid": uid}]);
        }
        let lease =
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
        context.api.create(COLLECTION, &lease).await?;
    }
    Ok(())
}
