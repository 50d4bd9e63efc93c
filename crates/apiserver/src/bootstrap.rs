//! Objects that every cluster has, written when the server opens. Those that exist are left alone, except roles and
//! the API server's own addresses, which follow the program.

mod roles;

use std::sync::Arc;

use isopod_schema::Status;
use isopod_store::{Expect, Outcome, Write};
use serde_json::{Value, json};

use crate::config::OpenError;
use crate::context::commit;
use crate::server::ApiServer;
use crate::strategy::meta;
use crate::{addresses, codec, create, pki};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(crate) async fn run(server: &Arc<ApiServer>) -> Result<(), OpenError> {
    let failed = |status: Status| OpenError::Bootstrap(status.to_string());
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    all(server, NAMESPACES.map(namespace).to_vec()).await.map_err(failed)?;
    all(
        server,
        priority_classes().into_iter().chain([addresses::objects::default_range(server), service(server)]).collect(),
    )
    .await
    .map_err(failed)?;
    // Together, so that one commit makes many of them durable.
    let followed = roles::all()
        .into_iter()
        .chain(endpoints(server))
        .chain([authentication(server)])
        .map(|object| follow(server, object));
    futures::future::try_join_all(followed).await.map(|_| ()).map_err(failed)
}

async fn all(server: &Arc<ApiServer>, objects: Vec<Value>) -> Result<(), Status> {
    let writes = objects.into_iter().map(|object| create::ensure(server, object));
    futures::future::try_join_all(writes).await.map(|_| ())
}

/// Creates the object, or brings an existing one to this program's state unless its owner has forbidden that.
async fn follow(server: &Arc<ApiServer>, object: Value) -> Result<(), Status> {
    let context = crate::context::Context::internal(server, &object)?;
    let Some(entry) = server.store.get(&context.key(meta(&object, "name"))) else {
        return create::ensure(server, object).await;
    };
    let current = codec::decode(&entry.value)?;
    if current["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] == "false" {
        return Ok(());
    }
    let mut wanted = current.clone();
    // Rules of aggregated roles are their parts'; those that were made here are the ones to begin with.
    let aggregated = !object["aggregationRule"].is_null();
    let fields = object.as_object().into_iter().flatten().filter(|(name, _)| !(aggregated && *name == "rules"));
    for (name, value) in fields.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "apiVersion" | "kind")) {
        wanted[name] = value.clone();
    }
    if wanted == current {
        return Ok(());
    }
    let write = Write::put(entry.key.clone(), Expect::Revision(entry.mod_revision), codec::encode(&wanted));
    match commit(server, write).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Lost(_) => Err(Status::internal("another writer uses the store while the server opens")),
    }
}

fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "preemptionPolicy": "PreemptLowerPriority", "description": description,
        })
    };
    vec![
        class("system-node-critical", 2_000_001_000, "For pods that a node cannot do without; they are never moved."),
        class("system-cluster-critical", 2_000_000_000, "For pods that the cluster cannot do without."),
    ]
}

/// What extension API servers need to trust this one's clients.
fn authentication(server: &ApiServer) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": server.pki.ca.certificate_pem,
            "requestheader-client-ca-file": server.pki.front_proxy_ca.certificate_pem,
            "requestheader-allowed-names": json!([pki::FRONT_PROXY]).to_string(),
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
            "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
            "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        },
    })
}

fn service(server: &ApiServer) -> Value {
    let address = std::net::Ipv4Addr::from(u32::from(server.config.service_cidr.network()) + 1).to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": server.config.advertise.port()}],
        },
    })
}

/// Where the kubernetes Service leads.
fn endpoints(server: &ApiServer) -> Vec<Value> {
    let (address, port) = (server.config.advertise.ip().to_string(), server.config.advertise.port());
    let family = if server.config.advertise.is_ipv4() { "IPv4" } else { "IPv6" };
    let port = json!({"name": "https", "port": port, "protocol": "TCP"});
    vec![
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address}], "ports": [port]}],
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [port],
        }),
    ]
}
