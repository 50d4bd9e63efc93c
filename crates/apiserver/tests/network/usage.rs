//! `metrics.k8s.io` without an add-on, with the real kubectl.

use serde_json::json;

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_tops_pods_and_nodes() {
    let table = [
        ("top pod p --no-headers", "p 500m 64Mi"),
        ("top pods --no-headers", "p 500m 64Mi two 1000m 128Mi"),
        ("top pods --no-headers -l app=none", ""),
        ("top pod two --containers --no-headers", "two a 500m 64Mi two b 500m 64Mi"),
        ("top node node-1 --no-headers", "node-1 1000m 25% 128Mi 12%"),
        ("get podmetrics -o name", "podmetrics.metrics.k8s.io/p podmetrics.metrics.k8s.io/two"),
        ("get --raw /apis/metrics.k8s.io/v1beta1/namespaces/default/pods/p", "\"containers\":[{\"name\":\"main\""),
    ];
    for site in Site::for_each_kubectl().await {
        site.post("/api/v1/nodes", json!({"metadata": {"name": "node-1"}})).await;
        let amounts = json!({"cpu": "4", "memory": "1Gi"});
        site.status("/api/v1/nodes/node-1", json!({"capacity": amounts, "allocatable": amounts})).await;
        site.running_pod("p", &["main"]).await;
        site.running_pod("two", &["a", "b"]).await;
        for (line, expected) in table {
            let said = site.kubectl(line).await;
            let words = said.out.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                said.code == 0 && (words == expected || line.starts_with("get --raw") && words.contains(expected)),
                "{line}: {said:?}"
            );
        }
        let said = site.kubectl("top pod none").await;
        assert!(said.code != 0 && said.err.contains("not found"), "{said:?}");
    }
}
