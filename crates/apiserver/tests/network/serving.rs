//! What opening and serving leave behind, and who gets in.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use isopod_apiserver::{ApiServer, Config, UserInfo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Kubectl;
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_decide_who_gets_in() {
    let Some(_) = Kubectl::newest() else { return };
    let site = Site::open().await;
    let token = site.server.service_account_token("default", "default", 600).unwrap();
    let ca = site.directory.path().join("ca.crt");
    std::fs::write(&ca, site.server.ca_certificate_pem()).unwrap();
    let base = format!("--server={} --certificate-authority={} --kubeconfig=/dev/null", site.address, ca.display());
    let table = [
        (format!("auth whoami --token={token}"), true, "system:serviceaccount:default:default"),
        (format!("get configmaps --token={token}"), false, "Forbidden"),
        (format!("get configmaps --token={token}x"), false, "You must be logged in"),
    ];
    for (line, succeeds, part) in table {
        let said = site.kubectl(&format!("{line} {base}")).await;
        assert_eq!(said.code == 0, succeeds, "{line}: {said:?}");
        assert!(format!("{}{}", said.out, said.err).contains(part), "{line}: {said:?}");
    }
}

/// One request over TLS without any credentials.
async fn anonymous(site: &Site, path: &str) -> String {
    let mut stream = site.connect().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A peer that closes without a TLS goodbye has still answered.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_only_health_and_version_are_told() {
    let site = Site::open().await;
    for (path, status, part) in [
        ("/readyz", "200 OK", "ok"),
        ("/version", "200 OK", "gitVersion"),
        ("/api/v1/pods", "403 Forbidden", "system:anonymous"),
        ("/apis", "403 Forbidden", "cannot get path"),
    ] {
        let answer = anonymous(&site, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(part), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_but_stale_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::read_to_string(directory.path().join("pki").join(name)).unwrap();
    let config = |names: &[&str]| Config {
        state_directory: Some(directory.path().to_owned()),
        server_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Config::default()
    };
    let names = ["ca.crt", "ca.key", "sa.key", "admin.crt", "apiserver.crt"];
    let mut revisions = Vec::new();
    let mut kept = Vec::new();
    for server_names in [&["one.example.com"][..], &["one.example.com"], &["one.example.com", "192.0.2.7"]] {
        let server = reopen(&config(server_names)).await.unwrap();
        revisions.push(server.store_stats().revision);
        drop(server);
        kept.push(names.map(file));
    }
    assert_eq!((&kept[0], revisions[0]), (&kept[1], revisions[1]), "nothing changes when nothing has to");
    assert_eq!(kept[1][..4], kept[2][..4]);
    assert_ne!(kept[1][4], kept[2][4], "the serving certificate follows its names");
    for entry in std::fs::read_dir(directory.path().join("pki")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// Opens a server where one was dropped: its clients' tasks may hold it a moment longer.
async fn reopen(config: &Config) -> Result<Arc<ApiServer>, String> {
    let opened = async {
        loop {
            match ApiServer::open(config.clone()).await {
                Err(error) if error.to_string().contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(10)).await
                }
                opened => return opened.map_err(|error| error.to_string()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), opened).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_on_disk_and_survive_a_new_key() {
    const SECRET: &str = "c3VwZXItc2VjcmV0LXZhbHVl";
    let directory = tempfile::tempdir().unwrap();
    let config = || Config { state_directory: Some(directory.path().to_owned()), ..Config::default() };
    let keys = directory.path().join("pki/encryption.yaml");
    let uri = "/api/v1/namespaces/default/secrets";
    let client = |server: &Arc<ApiServer>| {
        kube::Client::new(server.in_process(UserInfo::new("admin", ["system:masters"])), "default")
    };
    let server = ApiServer::open(config()).await.unwrap();
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": SECRET}});
    let create =
        http::Request::post(uri).header("content-type", "application/json").body(body.to_string().into_bytes());
    client(&server).request::<Value>(create.unwrap()).await.unwrap();
    drop(server);
    let disk = || std::fs::read(directory.path().join("store.redb")).unwrap();
    let holds = |text: &str| disk().windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("secrets/default/s") && !holds(SECRET));

    let old = std::fs::read_to_string(&keys).unwrap();
    let key = json!({"name": "key2", "secret": "AAECAwQFBgcICQoLDA0ODw=="});
    let mut document: Value = serde_json::from_str(&old).unwrap();
    let listed = document["resources"][0]["providers"][0]["aesgcm"]["keys"].as_array_mut().unwrap();
    listed.insert(0, key);
    std::fs::write(&keys, document.to_string()).unwrap();
    drop(reopen(&config()).await.unwrap());
    document["resources"][0]["providers"][0]["aesgcm"]["keys"].as_array_mut().unwrap().truncate(1);
    std::fs::write(&keys, document.to_string()).unwrap();
    let server = reopen(&config()).await.unwrap();
    let get = http::Request::get(format!("{uri}/s")).body(Vec::new()).unwrap();
    assert_eq!(client(&server).request::<Value>(get).await.unwrap()["data"]["key"], SECRET);
    drop(server);
    std::fs::write(&keys, old).unwrap();
    let refused = reopen(&config()).await.map(drop).unwrap_err();
    assert!(refused.contains("no key opens its seal"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_state_is_refused() {
    let site = Site::open().await;
    let config = Config { state_directory: Some(site.directory.path().join("state")), ..Config::default() };
    let refused = ApiServer::open(config).await.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_ends_when_told() {
    let server = ApiServer::open(Config::default()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = server.serve(vec![listener], async { tokio::time::sleep(Duration::from_millis(50)).await });
    tokio::time::timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
