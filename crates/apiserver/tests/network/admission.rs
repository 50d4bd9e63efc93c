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

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  variables:
  - {name: most, expression: "int(params.data.most)"}
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: "'no more than ' + string(variables.most) + ' in ' + namespaceObject.metadata.name"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: here}
spec:
  policyName: replicas
  paramRef: {name: limits, parameterNotFoundAction: Deny}
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn policies_refuse_and_warn() {
    for site in Site::for_each_kubectl().await {
        let client = &site.client.name;
        let said = site.kubectl_with(&["create", "-f", "-"], POLICY).await;
        assert_eq!(said.code, 0, "{client}: {said:?}");
        let create = |replicas: u8| format!("create deployment web --image=nginx --replicas={replicas}");
        let said = site.kubectl(&create(9)).await;
        assert!(said.code == 1 && said.err.contains("no params found for policy binding"), "{client}: {said:?}");
        site.says("create configmap limits --from-literal=most=3", "created").await;
        let said = site.kubectl(&create(4)).await;
        // As upstream shows it: the refusal has one cause, about no field.
        let denied =
            "ValidatingAdmissionPolicy 'replicas' with binding 'here' denied request: no more than 3 in default";
        assert!(said.code == 1 && said.err.contains(denied), "{client}: {said:?}");
        site.says(&create(3), "created").await;
        let said = site.kubectl_with(&["patch", "deployment", "web", "-p", r#"{"spec":{"replicas":5}}"#], "").await;
        assert!(said.code == 1 && said.err.contains(denied), "{client}: {said:?}");
        let warn = [r#"{"spec":{"validationActions":["Warn"]}}"#, "--type=merge"];
        let said =
            site.kubectl_with(&["patch", "validatingadmissionpolicybinding", "here", "-p", warn[0], warn[1]], "").await;
        assert_eq!(said.code, 0, "{client}: {said:?}");
        let said = site.kubectl_with(&["patch", "deployment", "web", "-p", r#"{"spec":{"replicas":5}}"#], "").await;
        let warning = "Validation failed for ValidatingAdmissionPolicy 'replicas' with binding 'here': no more than 3";
        assert!(said.code == 0 && said.err.contains(warning), "{client}: {said:?}");
        let bad = POLICY
            .replace("object.spec.replicas <= variables.most", "object.spec.replicas <=")
            .replace("name: replicas", "name: bad");
        let said = site.kubectl_with(&["create", "-f", "-"], &bad).await;
        assert!(said.err.contains("spec.validations[0].expression: Invalid value"), "{client}: {said:?}");
    }
}
