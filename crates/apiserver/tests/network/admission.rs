//! kubectl meets admission: limits, quotas and standards.

use serde_json::json;

use crate::site::Site;

const LIMITS: &str = r#"{"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits":
    [{"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}}]}}"#;

fn pod(name: &str, context: serde_json::Value) -> String {
    let containers = json!([{"name": "c", "image": "busybox", "securityContext": context}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}})
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_quotas_and_standards() {
    for site in Site::for_each_kubectl().await {
        let client = &site.client.name;
        let refused = async |input: &str, part: &str| {
            let said = site.kubectl_with(&["create", "-f", "-"], input).await;
            assert!(said.code != 0 && said.err.contains(part), "{client}: wanted {part:?}, got {said:?}");
        };
        assert_eq!(site.kubectl_with(&["create", "-f", "-"], LIMITS).await.code, 0);
        site.says("create quota most --hard=pods=1,requests.cpu=2", "created").await;
        assert_eq!(site.kubectl_with(&["create", "-f", "-"], &pod("one", json!({}))).await.code, 0);
        site.says("get pod one -o jsonpath={.spec.containers[0].resources.limits.cpu}", "500m").await;
        refused(&pod("two", json!({})), "exceeded quota: most, requested: pods=1, used: pods=1, limited: pods=1").await;
        site.says("describe quota most", "requests.cpu  500m  2").await;
        let large =
            pod("two", json!({})).replace("\"image\"", "\"resources\": {\"limits\": {\"cpu\": \"2\"}}, \"image\"");
        refused(&large, "maximum cpu usage per Container is 1, but limit is 2").await;
        site.says("delete quota most", "deleted").await;
        site.says("label namespace default pod-security.kubernetes.io/enforce=restricted", "labeled").await;
        let why = "pods \"three\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
                   (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities";
        refused(&pod("three", json!({})), why).await;
        let good = json!({
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        assert_eq!(site.kubectl_with(&["create", "-f", "-"], &pod("three", good)).await.code, 0);
    }
}
