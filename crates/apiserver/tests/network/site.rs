//! A served API server on loopback with a kubeconfig beside it, and kubectl to ask it with.

use std::process::Stdio;
use std::sync::Arc;

use isopod_apiserver::{ApiServer, Config, UserInfo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::node::FakeNode;

pub struct Site {
    pub server: Arc<ApiServer>,
    pub address: String,
    pub directory: TempDir,
    serving: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
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
    pub async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let advertise = listener.local_addr().unwrap();
        let config = Config { state_directory: Some(directory.path().join("state")), advertise, ..Config::default() };
        let server = ApiServer::open(config).await.unwrap();
        server.connect_kubelets(Arc::new(FakeNode));
        let address = format!("https://{advertise}");
        std::fs::write(directory.path().join("kubeconfig"), server.admin_kubeconfig(&address, "test")).unwrap();
        let serving = Arc::clone(&server);
        let serving = tokio::spawn(async move {
            serving.serve(vec![listener], std::future::pending()).await.unwrap();
        });
        let site = Self { server, address, directory, serving };
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
        self.post(&format!("{path}/binding"), json!({"target": {"kind": "Node", "name": "node-1"}})).await;
        let patch = json!({"status": {"phase": "Running"}});
        self.request("PATCH", &format!("{path}/status"), "application/merge-patch+json", patch).await;
    }

    async fn post(&self, path: &str, body: Value) {
        self.request("POST", path, "application/json", body).await;
    }

    /// As administrator, through the in-process door.
    async fn request(&self, method: &str, path: &str, media: &str, body: Value) {
        use http_body_util::{BodyExt, Full};
        use tower::Service;
        let mut door = self.server.in_process(UserInfo::new("setup", ["system:masters"]));
        let request = http::Request::builder().method(method).uri(path).header("content-type", media);
        let request = request.body(Full::<bytes::Bytes>::from(body.to_string())).unwrap();
        let Ok(response) = door.call(request).await;
        let status = response.status();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{method} {path}: {text:?}");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Said {
        let missing = "these tests need kubectl; install the Debian package kubectl or kubernetes-client";
        let mut child = self.command(arguments).spawn().expect(missing);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
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
        assert!(said.code == 0 && said.out.contains(part), "kubectl {line}: wanted {part:?}, got {said:?}");
    }
}
