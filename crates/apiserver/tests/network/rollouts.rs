//! Rollouts as kubectl sees them: the test plays the Deployment controller.

use serde_json::{Value, json};

use crate::site::Site;

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

async fn web(site: &Site) -> Value {
    site.request("GET", WEB, "application/json", Value::Null).await
}

/// Writes the revision's ReplicaSet and says that the rollout is complete, or that it is under way.
async fn control(site: &Site, revision: u32, complete: bool) {
    let deployment = web(site).await;
    let hash = format!("h{revision}");
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = hash.clone().into();
    let set = json!({
        "metadata": {
            "name": format!("web-{hash}"), "labels": template["metadata"]["labels"],
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": true,
                "uid": deployment["metadata"]["uid"],
            }],
        },
        "spec": {"replicas": 1, "selector": {"matchLabels": template["metadata"]["labels"]}, "template": template},
    });
    site.post(SETS, set).await;
    let patch = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": revision.to_string()}}});
    site.request("PATCH", WEB, "application/merge-patch+json", patch).await;
    finish(site, complete).await;
}

async fn finish(site: &Site, complete: bool) {
    let deployment = web(site).await;
    let wanted = &deployment["spec"]["replicas"];
    let ready = if complete { wanted.clone() } else { 0.into() };
    let available = json!({"type": "Available", "status": if complete { "True" } else { "False" }});
    let status = json!({
        "observedGeneration": deployment["metadata"]["generation"], "replicas": wanted, "updatedReplicas": wanted,
        "readyReplicas": ready, "availableReplicas": ready, "conditions": [available],
    });
    site.status(WEB, status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_history_undo_restart_pause() {
    for site in Site::for_each_kubectl().await {
        site.says("create deployment web --image=one", "created").await;
        control(&site, 1, true).await;
        site.says("rollout status deployment/web", "successfully rolled out").await;
        site.says("wait --for=condition=Available deployment/web --timeout=5s", "condition met").await;
        site.says("set image deployment/web one=two", "image updated").await;
        control(&site, 2, true).await;
        site.says("annotate deployment web kubernetes.io/change-cause=because", "annotated").await;
        let history = site.kubectl("rollout history deployment/web").await;
        let lines: Vec<&str> = history.out.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines[1..], ["REVISION  CHANGE-CAUSE", "1         <none>", "2         <none>"], "{history:?}");
        site.says("rollout history deployment/web --revision=1", "Image:	one").await;
        site.says("rollout undo deployment/web", "rolled back").await;
        site.says("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "one").await;
        site.says("rollout undo deployment/web --to-revision=2", "rolled back").await;
        site.says("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "two").await;
        site.says("rollout restart deployment/web", "restarted").await;
        site.says("get deploy web -o yaml", "kubectl.kubernetes.io/restartedAt").await;
        site.says("rollout pause deployment/web", "paused").await;
        site.says("rollout resume deployment/web", "resumed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_waits_for_the_rollout() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    for site in Site::for_each_kubectl().await {
        site.says("create deployment web --image=one", "created").await;
        control(&site, 1, false).await;
        let mut child = site.command(&["rollout", "status", "deployment/web"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let waiting = lines.next_line().await.unwrap().unwrap();
        assert!(waiting.starts_with("Waiting for deployment \"web\" rollout to finish: 0 of 1"), "{waiting}");
        finish(&site, true).await;
        let done = lines.next_line().await.unwrap().unwrap();
        assert_eq!(done, "deployment \"web\" successfully rolled out", "{}", site.client.name);
        assert!(child.wait().await.unwrap().success());
    }
}
