//! A served API server on loopback with a kubeconfig beside it, and kubectl to ask it with.

use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use isopod_apiserver::{ApiServer, Config, UserInfo};
use isopod_store::Limits;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::client::Kubectl;
use crate::node::FakeNode;

pub struct Site {
    /// The kubectl that asks.
    pub client: Kubectl,
    pub server: Arc<ApiServer>,
    pub address: String,
    pub directory: TempDir,
    /// Serves until the site is dropped.
    _serving: Serving,
}

struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Site {
    /// A site for each kubectl that is there.
    pub async fn for_each_kubectl() -> Vec<Self> {
        let mut sites = Vec::new();
        for client in Kubectl::all() {
            sites.push(Self { client, ..Self::open().await });
        }
        sites
    }

    /// A site; what it is asked with, if anything, is the installed kubectl.
    pub async fn open() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// The same with a file in its state directory.
    pub async fn with_file(name: &str, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        std::fs::write(directory.path().join("state").join(name), text).unwrap();
        Self::open_in(directory, Limits::default()).await
    }

    /// The same with a store that gives up earlier.
    pub async fn with_limits(store_limits: Limits) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), store_limits).await
    }

    async fn open_in(directory: TempDir, store_limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let advertise = listener.local_addr().unwrap();
        let state_directory = Some(directory.path().join("state"));
        let config = Config { state_directory, advertise, store_limits, ..Config::default() };
        let server = ApiServer::open(config).await.unwrap();
        server.connect_kubelets(Arc::new(FakeNode));
        let address = format!("https://{advertise}");
        std::fs::write(directory.path().join("kubeconfig"), server.admin_kubeconfig(&address, "test")).unwrap();
        let serving = Arc::clone(&server);
        let serving = tokio::spawn(async move {
            serving.serve(vec![listener], std::future::pending()).await.unwrap();
        });
        let site = Self { client: Kubectl::installed(), server, address, directory, _serving: Serving(serving) };
        site.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        site
    }

    /// A pod that runs on the fake node.
    pub async fn running_pod(&self, name: &str, containers: &[&str]) {
        let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name, "image": "busybox"})).collect();
        self.post(
            "/api/v1/namespaces/default/pods",
            json!({"metadata": {"name": name}, "spec": {"containers": containers}}),
        )
        .await;
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        self.post(
            &format!("{path}/binding"),
            json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "node-1"}}),
        )
        .await;
        let states: Vec<Value> = containers
            .iter()
            .map(|container| {
                let (name, image) = (&container["name"], &container["image"]);
                let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
                json!({"name": name, "image": image, "imageID": "", "ready": true, "restartCount": 0, "state": running})
            })
            .collect();
        let status = json!({
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": states,
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        self.status(&path, status).await;
    }

    pub async fn post(&self, path: &str, body: Value) {
        self.request("POST", path, "application/json", body).await;
    }

    /// Merges into the status of an object.
    pub async fn status(&self, path: &str, status: Value) {
        let patch = json!({"status": status});
        self.request("PATCH", &format!("{path}/status"), "application/merge-patch+json", patch).await;
    }

    /// As administrator, through the in-process door.
    pub async fn request(&self, method: &str, path: &str, media: &str, body: Value) -> Value {
        let mut door = self.server.in_process(UserInfo::new("setup", ["system:masters"]));
        let request = http::Request::builder().method(method).uri(path).header("content-type", media);
        let request = request.body(Full::<bytes::Bytes>::from(body.to_string())).unwrap();
        let Ok(response) = door.call(request).await;
        let status = response.status();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{method} {path}: {text:?}");
        serde_json::from_slice(&text).unwrap()
    }

    /// One request of this user through the in-process door, and its answer read whole; none when that broke off.
    pub async fn ask(&self, user: &UserInfo, request: http::Request<String>) -> (u16, HeaderMap, Option<String>) {
        let mut door = self.server.in_process(user.clone());
        let Ok(response) = door.call(request.map(Full::<bytes::Bytes>::from)).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok().map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap());
        (parts.status.as_u16(), parts.headers, body)
    }

    /// A connection to the server over TLS, without credentials.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.server.ca_certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let socket = TcpStream::connect(self.address.trim_start_matches("https://")).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
    }

    /// A token of the default service account, which may do all that this cluster role allows.
    pub async fn token(&self, role: &str) -> String {
        let subject = json!({"kind": "ServiceAccount", "name": "default", "namespace": "default"});
        let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
        let binding = json!({"metadata": {"name": "default"}, "roleRef": role_ref, "subjects": [subject]});
        self.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
        self.server.service_account_token("default", "default", 600).unwrap()
    }

    /// A shell's line in a terminal of its own.
    pub fn script(&self, line: &str) -> Command {
        self.program("script", &["-qec", line, "/dev/null"])
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.program(&self.client.program, arguments)
    }

    fn program(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("HOME", self.directory.path())
            .env("KUBE_EDITOR", format!("sh {}", self.directory.path().join("editor").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Said {
        Self::run(&mut self.command(arguments), input).await
    }

    /// Runs a command to its end.
    pub async fn run(command: &mut Command, input: &str) -> Said {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input may have ended before it is written.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await.unwrap().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    pub async fn kubectl(&self, line: &str) -> Said {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        self.kubectl_with(&arguments, "").await
    }

    /// Runs kubectl; it must succeed and say something.
    pub async fn says(&self, line: &str, part: &str) {
        let said = self.kubectl(line).await;
        let name = &self.client.name;
        assert!(said.code == 0 && said.out.contains(part), "{name} {line}: wanted {part:?}, got {said:?}");
    }
}
