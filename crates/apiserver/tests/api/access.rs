//! Who may do what: roles, escalation, reviews, tokens, impersonation.

use isopod_apiserver::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Cluster, config_map};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

async fn grant(cluster: &Cluster, user: &str, cluster_role: &str) {
    let binding = json!({
        "metadata": {"name": user}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": cluster_role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    });
    cluster.create(&format!("{RBAC}/rolebindings"), "default", binding).await;
}

#[tokio::test]
async fn roles_decide() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("x")).await;
    for role in ["view", "edit", "admin"] {
        grant(&cluster, role, role).await;
    }
    let get = "GET /api/v1/namespaces/default/configmaps/x";
    let patch = "PATCH /api/v1/namespaces/default/configmaps/x";
    let secrets = "GET /api/v1/namespaces/default/secrets";
    let roles = "GET /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let elsewhere = "GET /api/v1/namespaces/kube-system/configmaps";
    let table = [
        ("nobody", [get, patch, secrets, roles, elsewhere, "GET /version"], [403, 403, 403, 403, 403, 200]),
        ("view", [get, patch, secrets, roles, elsewhere, "GET /api/v1"], [200, 403, 403, 403, 403, 200]),
        ("edit", [get, patch, secrets, roles, elsewhere, "GET /api/v1/nodes"], [200, 200, 200, 403, 403, 403]),
        ("admin", [get, patch, secrets, roles, elsewhere, "GET /metrics"], [200, 200, 200, 200, 403, 403]),
    ];
    for (name, lines, codes) in table {
        let user = cluster.user(UserInfo::new(name, [""; 0]));
        for (line, code) in lines.into_iter().zip(codes) {
            let answer = user.ask(line, &[("content-type", "application/merge-patch+json")], "{}").await;
            assert_eq!(answer.code, code, "{name}: {line}: {}", answer.text);
        }
    }
    let nobody = cluster.user(UserInfo::new("nobody", [""; 0]));
    let (_, message) = nobody.refused(get, Value::Null).await;
    let expected = "configmaps \"x\" is forbidden: User \"nobody\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert_eq!(message, expected);
    let anonymous = cluster.user(UserInfo::anonymous());
    for (path, code) in [("/readyz", 200), ("/version", 200), ("/api", 403), ("/api/v1/pods", 403)] {
        assert_eq!(anonymous.ask(&format!("GET {path}"), &[], "").await.code, code, "{path}");
    }
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let cluster = Cluster::new().await;
    grant(&cluster, "admin", "admin").await;
    let admin = cluster.user(UserInfo::new("admin", [""; 0]));
    let role = |resource: &str, verb: &str| json!({"metadata": {"name": format!("{resource}-{verb}")}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]});
    let roles = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    for (resource, verb, code) in [("configmaps", "get", 201), ("nodes", "get", 403), ("configmaps", "*", 403)] {
        let answer = admin.ask(roles, &[], &role(resource, verb).to_string()).await;
        assert_eq!(answer.code, code, "{}", answer.text);
    }
    let binding = |role: &str| {
        json!({
            "metadata": {"name": format!("to-{role}")}, "subjects": [{"kind": "User", "name": "x"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        })
    };
    let bindings = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    for (role, code) in [("edit", 201), ("cluster-admin", 403)] {
        assert_eq!(admin.ask(bindings, &[], &binding(role).to_string()).await.code, code, "{role}");
    }
}

#[tokio::test]
async fn roles_that_gather_others_are_for_those_who_have_everything() {
    let cluster = Cluster::new().await;
    let all = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["*"]}]);
    cluster.create(&format!("{RBAC}/clusterroles"), "", json!({"metadata": {"name": "keeper"}, "rules": all})).await;
    let binding = json!({
        "metadata": {"name": "keeper"}, "roleRef": {"kind": "ClusterRole", "name": "keeper"},
        "subjects": [{"kind": "User", "name": "joe"}],
    });
    cluster.create(&format!("{RBAC}/clusterrolebindings"), "", binding).await;
    let line = "PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/keeper";
    let rule = json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let joe = cluster.user(UserInfo::new("joe", [""; 0]));
    // All verbs on roles has `escalate` among them; without it there is a way around the rules of others.
    let mut some = all.clone();
    some[0]["verbs"] = json!(["get", "update", "patch"]);
    cluster.ok(line, json!({"rules": some})).await;
    let (code, message) = joe.refused(line, rule.clone()).await;
    assert_eq!((code, message.contains("attempting to grant RBAC permissions not currently held")), (403, true));
    joe.ok(line, json!({"metadata": {"labels": {"c": "d"}}})).await;
    cluster.ok(line, rule).await;
}

#[tokio::test]
async fn reviews_answer() {
    let cluster = Cluster::new().await;
    grant(&cluster, "view", "view").await;
    let view = cluster.user(UserInfo::new("view", ["team"]));
    let asked = |verb: &str, resource: &str| json!({"spec": {"resourceAttributes": {"namespace": "default", "verb": verb, "resource": resource}}});
    let path = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (verb, resource, allowed) in [("get", "pods", true), ("delete", "pods", false), ("get", "secrets", false)] {
        let review = view.ok(path, asked(verb, resource)).await;
        assert_eq!(review["status"]["allowed"], allowed, "{verb} {resource}");
    }
    let mut other = asked("get", "pods");
    other["spec"]["user"] = "view".into();
    let review = cluster.ok("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", other).await;
    assert_eq!(review["status"]["allowed"], true);
    let me = view.ok("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(me["status"]["userInfo"], json!({"username": "view", "groups": ["team", "system:authenticated"]}));
    let rules = view
        .ok("POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json!({"spec": {"namespace": "default"}}))
        .await;
    assert!(rules["status"]["resourceRules"].as_array().unwrap().len() > 5);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    assert_eq!(view.ask(path, &table, &asked("get", "pods").to_string()).await.code, 406);
}

#[tokio::test]
async fn impersonation_needs_the_right() {
    let cluster = Cluster::new().await;
    grant(&cluster, "view", "view").await;
    let line = "GET /api/v1/namespaces/default/secrets";
    let asked = |user: &'static str| vec![("impersonate-user", user)];
    assert_eq!(cluster.ask(line, &asked("view"), "").await.code, 403, "acts as view");
    assert_eq!(cluster.ask("GET /api/v1/namespaces/default/pods", &asked("view"), "").await.code, 200);
    let view = cluster.user(UserInfo::new("view", [""; 0]));
    let answer = view.ask(line, &asked("admin"), "").await;
    assert!(answer.code == 403 && answer.text.contains("cannot impersonate resource"), "{}", answer.text);
    for alone in ["impersonate-group", "impersonate-uid", "impersonate-extra-scopes"] {
        assert_eq!(cluster.ask(line, &[(alone, "x")], "").await.code, 400, "{alone}");
    }
}

#[tokio::test]
async fn uids_and_extras_are_impersonated_by_those_who_may() {
    let cluster = Cluster::new().await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let line = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [
        ("impersonate-user", "jo"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-example.com%2fscopes", "read"),
        ("impersonate-extra-example.com%2fscopes", "write"),
    ];
    let found = cluster.ask(line, &headers, &review).await.json();
    let user = json!({
        "username": "jo", "uid": "7", "groups": ["system:authenticated"],
        "extra": {"example.com/scopes": ["read", "write"]},
    });
    assert_eq!(found["status"]["userInfo"], user);
    // Who may pass for the user may not yet pass for what is known of the user.
    let rule = json!({"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]});
    cluster.create(&format!("{RBAC}/clusterroles"), "", json!({"metadata": {"name": "pass"}, "rules": [rule]})).await;
    let binding = json!({
        "metadata": {"name": "pass"}, "roleRef": {"kind": "ClusterRole", "name": "pass"},
        "subjects": [{"kind": "User", "name": "view"}],
    });
    cluster.create(&format!("{RBAC}/clusterrolebindings"), "", binding).await;
    let view = cluster.user(UserInfo::new("view", [""; 0]));
    assert_eq!(view.ask(line, &headers[..1], &review).await.code, 201);
    for (header, resource) in [(1, "uids"), (2, "userextras/example.com/scopes")] {
        let answer = view.ask(line, &[headers[0], headers[header]], &review).await;
        let told = answer.text.contains(&format!(r#"cannot impersonate resource \"{resource}\""#));
        assert!(answer.code == 403 && told, "{}", answer.text);
    }
}
