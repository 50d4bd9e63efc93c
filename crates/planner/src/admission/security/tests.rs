//! Pods against standards, and namespaces that change theirs.

use serde_json::{Value, json};

use super::super::tests::{Cluster, request};
use super::*;

fn of(level: &str) -> Standard {
    lenient(&json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}), "enforce")
}

fn check_pod(level: &str, spec: Value, expected: &str) {
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    assert_eq!(violations(&pod, of(level)).unwrap_or_default(), expected, "{level}: {spec}");
}

fn one(context: Value) -> Value {
    json!({"containers": [{"name": "c", "securityContext": context}]})
}

#[test]
fn baseline() {
    let two = json!({"hostNetwork": true, "hostPID": true, "containers": [
        {"name": "a", "ports": [{"hostPort": 80}], "securityContext": {"privileged": true}},
        {"name": "b", "ports": [{"hostPort": 81}, {"containerPort": 1}], "securityContext": {"privileged": true}},
    ]});
    check_pod(
        "baseline",
        two.clone(),
        "host namespaces (hostNetwork=true, hostPID=true), hostPorts (containers \"a\", \"b\" use hostPorts 80, 81), \
         privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
    );
    check_pod("privileged", two, "");
    for (spec, expected) in [
        (one(json!({})), ""),
        (
            one(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            one(json!({"procMount": "Unmasked"})),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (json!({"volumes": [{"name": "v", "hostPath": {}}], "containers": []}), "hostPath volumes (volume \"v\")"),
        (
            json!({"securityContext": {"sysctls": [{"name": "a.b"}, {"name": "net.ipv4.tcp_rmem"}]}, "containers": []}),
            "forbidden sysctls (a.b)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": []}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            one(json!({"seLinuxOptions": {"type": "x", "user": "u"}})),
            "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
        ),
        (
            one(json!({"windowsOptions": {"hostProcess": true}})),
            "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            one(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "1.2.3.4"}}}]}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"1.2.3.4\")",
        ),
    ] {
        check_pod("baseline", spec, expected);
    }
}

#[test]
fn restricted() {
    let plain = "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
                 unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
                 runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
                 seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    check_pod("restricted", one(json!({})), plain);
    let good = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    check_pod("restricted", one(good.clone()), "");
    let with = |field: &str, value: Value| {
        let mut context = good.clone();
        context[field] = value;
        one(context)
    };
    check_pod("restricted", with("runAsUser", json!(0)), "runAsUser=0 (container \"c\" must not set runAsUser=0)");
    check_pod(
        "restricted",
        with("runAsNonRoot", json!(false)),
        "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
    );
    check_pod(
        "restricted",
        with("capabilities", json!({"drop": ["ALL"], "add": ["CHOWN"]})),
        "unrestricted capabilities (container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
    );
    let mut volumes = one(good);
    volumes["volumes"] =
        json!([{"name": "a", "hostPath": {}}, {"name": "b", "nfs": {}}, {"name": "d", "emptyDir": {}}]);
    check_pod(
        "restricted",
        volumes,
        "restricted volume types (volumes \"a\", \"b\" use restricted volume types \"hostPath\", \"nfs\")",
    );
}

#[test]
fn namespaces_say_which_standard() {
    let namespace = |labels: Value| {
        let labels: serde_json::Map<String, Value> =
            labels.as_object().unwrap().iter().map(|(key, value)| (format!("{LABEL}{key}"), value.clone())).collect();
        json!({"metadata": {"name": "n", "labels": labels}})
    };
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"hostPID": true, "containers": []}});
    let denied = |labels: Value, line: &str, object: &Value| {
        let facts = Cluster::default().with("namespaces", namespace(labels)).with("pods", pod.clone());
        check(object, &request(line), &facts).map_err(|error| error.to_string())
    };
    let host = "host namespaces (hostPID=true)";
    assert_eq!(denied(json!({}), "CREATE pods n/p", &pod), Ok(vec![]));
    assert_eq!(
        denied(json!({"enforce": "baseline", "enforce-version": "v1.30"}), "CREATE pods n/p", &pod),
        Err(format!("violates PodSecurity \"baseline:v1.30\": {host}"))
    );
    let warned = vec![format!("would violate PodSecurity \"baseline:latest\": {host}")];
    assert_eq!(denied(json!({"warn": "baseline"}), "CREATE pods n/p", &pod), Ok(warned.clone()));
    let deployment = json!({"spec": {"template": pod}});
    assert_eq!(
        denied(json!({"enforce": "baseline", "warn": "baseline"}), "CREATE apps:deployments n/d", &deployment),
        Ok(warned)
    );
    let old = namespace(json!({}));
    let changed = |labels: Value| {
        let facts = Cluster::default().with("pods", pod.clone());
        let asked = Request { old: Some(&old), ..request("UPDATE namespaces n/n") };
        check(&namespace(labels), &asked, &facts).map_err(|error| error.to_string())
    };
    let lead = "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"";
    assert_eq!(changed(json!({"enforce": "baseline"})), Ok(vec![lead.into(), "p: host namespaces".into()]));
    let wrong = "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"lax\": must be one of privileged, baseline, restricted";
    assert_eq!(changed(json!({"enforce": "lax"})), Err(wrong.into()));
}
