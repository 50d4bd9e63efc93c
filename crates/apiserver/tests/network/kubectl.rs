//! Watches with kubectl: what is shown, and when.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::site::Site;

/// The words of the next line, without ages.
async fn next<R: tokio::io::AsyncBufRead + Unpin>(lines: &mut tokio::io::Lines<R>) -> Vec<String> {
    let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_show_changes_as_they_happen() {
    for site in Site::for_each_kubectl().await {
        let mut child = site.command(&["get", "configmaps", "-w", "--no-headers"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for (name, change) in [
            ("one", "create configmap one --from-literal=a=b"),
            ("two", "create configmap two"),
            ("one", "delete cm one"),
        ] {
            site.says(change, name).await;
            let shown = next(&mut lines).await;
            // Ages are those of the moment, whenever the watch began.
            assert!(shown[0] == name && shown[2].ends_with('s'), "{}: {change}: {shown:?}", site.client.name);
        }
        child.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_finalizers() {
    const ONE: &str = "/api/v1/namespaces/default/configmaps/one";
    let patch = async |site: &Site, finalizers: Value| {
        let body = json!({"metadata": {"finalizers": finalizers}});
        site.request("PATCH", ONE, "application/merge-patch+json", body).await
    };
    for site in Site::for_each_kubectl().await {
        site.says("create configmap one", "created").await;
        patch(&site, json!(["example.com/wait"])).await;
        let mut child = site.command(&["delete", "configmap", "one"]).stdin(Stdio::null()).spawn().unwrap();
        while site.request("GET", ONE, "", Value::Null).await["metadata"]["deletionTimestamp"].is_null() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(child.try_wait().unwrap().is_none(), "{}: it must wait", site.client.name);
        patch(&site, Value::Null).await;
        let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}: {output:?}", site.client.name);
    }
}
