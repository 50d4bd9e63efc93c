//! The agent's requests to the Kubernetes API.

use std::sync::{Arc, Mutex};

use futures::future::try_join_all;
use http::{Method, Request};
use isopod_planner::Reason;
use isopod_planner::environment::Sources;
use isopod_planner::events::{Recorder, Recording, Source};
use isopod_planner::volumes::{References, decode_base64};
use isopod_types::node::{Secret, Service};
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use jiff::Timestamp;
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::tokens::{Issued, Tokens};

/// The agent's own client.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    recorder: Arc<Mutex<Recorder>>,
    /// Name of this host, for events.
    host: String,
}

fn code(error: &kube::Error) -> u16 {
    if let kube::Error::Api(status) = error { status.code } else { 0 }
}

fn pod_path(key: &Key) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name)
}

impl Api {
    pub(crate) fn new(client: Client, host: String) -> Self {
        Self { client, recorder: Arc::default(), host }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    async fn send(&self, method: Method, uri: &str, content_type: &str, body: &Value) -> Result<Value, kube::Error> {
        let request = Request::builder().method(method).uri(uri).header("content-type", content_type);
        let request = request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// An object; none when there is none of that name.
    pub(crate) async fn find<T: DeserializeOwned>(&self, uri: &str) -> Result<Option<T>, kube::Error> {
        self.get(uri).await
    }

    async fn get<T: DeserializeOwned>(&self, uri: &str) -> Result<Option<T>, kube::Error> {
        let request = Request::builder().uri(uri).body(Vec::new()).map_err(kube::Error::HttpError)?;
        match self.client.request(request).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if code(&error) == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Merges a patch into an object or a subresource of it. None: it is gone.
    pub(crate) async fn patch(&self, uri: &str, patch: &Value) -> Result<Option<Value>, kube::Error> {
        match self.send(Method::PATCH, uri, "application/merge-patch+json", patch).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if code(&error) == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an object, or leaves the one that is there.
    pub(crate) async fn create(&self, collection: &str, object: &Value) -> Result<(), kube::Error> {
        match self.send(Method::POST, collection, "application/json", object).await {
            Err(error) if code(&error) != 409 => Err(error),
            _ => Ok(()),
        }
    }

    /// Merges a patch into a pod's status, list by list, if it is still this pod. None: it is gone.
    pub(crate) async fn pod_status(&self, pod: &Pod, status: &Value) -> Result<Option<Value>, kube::Error> {
        let mut patch = status.clone();
        patch["metadata"] = json!({"uid": pod.metadata.uid});
        let uri = format!("{}/status", pod_path(&pod.key()));
        match self.send(Method::PATCH, &uri, "application/strategic-merge-patch+json", &patch).await {
            Ok(pod) => Ok(Some(pod)),
            // It is gone, or another pod has the name by now.
            Err(error) if [404, 409].contains(&code(&error)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a pod for good.
    pub(crate) async fn delete_pod(&self, pod: &Pod) -> Result<(), kube::Error> {
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}});
        match self.send(Method::DELETE, &pod_path(&pod.key()), "application/json", &options).await {
            Err(error) if ![404, 409].contains(&code(&error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Everything that the pod's containers and volumes refer to.
    pub(crate) async fn sources(&self, pod: &Pod, tokens: &Tokens) -> Result<Sources, kube::Error> {
        let References { config_maps, secrets, tokens: wanted } = References::of(pod);
        let namespace = &pod.metadata.namespace;
        let config_maps = config_maps.into_iter().map(|name| async {
            let found = self.get(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await?;
            Ok::<_, kube::Error>((name, found))
        });
        let secrets = secrets.into_iter().map(|name| async {
            let found = self.secret(namespace, &name).await?;
            Ok::<_, kube::Error>((name, found))
        });
        let (config_maps, secrets, tokens, services) = tokio::try_join!(
            try_join_all(config_maps),
            try_join_all(secrets),
            tokens.get(self, pod, wanted),
            self.services(namespace)
        )?;
        Ok(Sources {
            config_maps: config_maps.into_iter().collect(),
            secrets: secrets.into_iter().collect(),
            tokens,
            services,
        })
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, kube::Error> {
        self.get::<Secret>(&format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await
    }

    /// Asks for a token of the pod's service account.
    pub(crate) async fn token(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<Issued, kube::Error> {
        let (namespace, account) = (&pod.metadata.namespace, &pod.spec.service_account_name);
        let audiences: Vec<&str> = Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect();
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid});
        let spec = json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound});
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let uri = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.send(Method::POST, &uri, "application/json", &body).await?;
        let token = answer["status"]["token"].as_str().unwrap_or_default().to_owned();
        Ok(Issued { token, seconds: answer["spec"]["expirationSeconds"].as_i64().unwrap_or(seconds) })
    }

    async fn services(&self, namespace: &str) -> Result<Vec<Service>, kube::Error> {
        #[derive(serde::Deserialize)]
        struct List {
            items: Vec<Service>,
        }
        let list = self.get::<List>(&format!("/api/v1/namespaces/{namespace}/services")).await?;
        let mut services = list.map(|list| list.items).unwrap_or_default();
        if namespace != "default" {
            services.extend(self.get::<Service>("/api/v1/namespaces/default/services/kubernetes").await?);
        }
        Ok(services)
    }

    /// `.dockerconfigjson` documents of the pod's pull secrets; secrets that are not there are left out, as upstream does.
    pub(crate) async fn docker_configs(&self, pod: &Pod) -> Result<Vec<Vec<u8>>, kube::Error> {
        let mut found = Vec::new();
        for reference in &pod.spec.image_pull_secrets {
            let secret = self.secret(&pod.metadata.namespace, &reference.name).await?;
            let document = secret.and_then(|secret| secret.data.get(".dockerconfigjson").cloned());
            found.extend(document.and_then(|text| decode_base64(&text)));
        }
        Ok(found)
    }

    /// Tells the user something about a pod, or about one of its containers. Losing an event stops nothing.
    pub(crate) async fn event(&self, pod: &Pod, container: Option<&str>, reason: &Reason) {
        let meta = &pod.metadata;
        let mut about = json!({
            "apiVersion": "v1", "kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid,
        });
        if let Some(container) = container {
            let is_initial = pod.spec.init_containers.iter().any(|other| other.name == container);
            let list = match (is_initial, pod.spec.is_ephemeral(container)) {
                (true, _) => "initContainers",
                (_, true) => "ephemeralContainers",
                _ => "containers",
            };
            about["fieldPath"] = json!(format!("spec.{list}{{{container}}}"));
        }
        let host = if pod.spec.node_name.is_empty() { &self.host } else { &pod.spec.node_name };
        self.record(&about, host, reason).await;
    }

    /// Tells the user something about a node.
    pub(crate) async fn node_event(&self, name: &str, uid: &str, reason: &Reason) {
        self.record(&json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}), name, reason).await;
    }

    async fn record(&self, about: &Value, host: &str, reason: &Reason) {
        let source = Source { component: "kubelet".into(), host: host.to_owned() };
        let recording = match self.recorder.lock() {
            Ok(mut recorder) => recorder.record(about, &source, reason, Timestamp::now()),
            Err(_) => return,
        };
        let Some(recording) = recording else { return };
        let result = match &recording {
            Recording::Create { namespace, event } => {
                self.create(&format!("/api/v1/namespaces/{namespace}/events"), event).await
            }
            Recording::Count { namespace, name, patch } => {
                self.patch(&format!("/api/v1/namespaces/{namespace}/events/{name}"), patch).await.map(drop)
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, reason = reason.reason, "event not recorded");
        }
    }
}
