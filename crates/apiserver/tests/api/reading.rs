//! Discovery, get, list, forms of answers.

use serde_json::{Value, json};

use crate::harness::{Cluster, collection, config_map, deployment, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn paths_that_are_about_no_object() {
    let cluster = Cluster::new().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    // Path, Accept, code, something that must be in the answer.
    let table = [
        ("/readyz", "", 200, "ok"),
        ("/livez?verbose", "", 200, "livez check passed"),
        ("/healthz/store", "", 200, "ok"),
        ("/healthz/nothing", "", 404, "404 page not found"),
        ("/version", "", 200, "\"gitVersion\":\"v1.36"),
        ("/api", "", 200, "\"kind\":\"APIVersions\""),
        ("/apis", "", 200, "\"kind\":\"APIGroupList\""),
        ("/apis", aggregated, 200, "\"kind\":\"APIGroupDiscoveryList\""),
        ("/apis/apps", "", 200, "\"kind\":\"APIGroup\""),
        ("/apis/apps/v1", "", 200, "\"name\":\"deployments/scale\""),
        ("/api/v1", "", 200, "\"singularName\":\"pod\""),
        ("/api/v2", "", 404, "404 page not found"),
        ("/apis/none.example.com", "", 404, "404 page not found"),
        ("/api/v1/nothings", "", 404, "the server could not find the requested resource"),
        ("/apis/none.example.com/v1/nothings", "", 404, "404 page not found"),
        ("/openid/v1/jwks", "", 200, "\"alg\":\"ES256\""),
        ("/.well-known/openid-configuration", "", 200, "\"issuer\":\"https://kubernetes.default.svc.cluster.local\""),
        ("/", "", 200, "/apis/apps/v1"),
        ("/none", "", 404, "404 page not found"),
    ];
    for (path, accept, code, part) in table {
        let headers = if accept.is_empty() { vec![] } else { vec![("accept", accept)] };
        let answer = cluster.ask(&format!("GET {path}"), &headers, "").await;
        assert_eq!(answer.code, code, "{path}: {}", answer.text);
        assert!(answer.text.contains(part), "{path}: {}", answer.text);
        assert!(answer.headers.contains_key("audit-id"), "{path}");
    }
    let first = cluster.ask("GET /apis", &[("accept", aggregated)], "").await;
    let tag = first.headers["etag"].to_str().unwrap();
    let again = cluster.ask("GET /apis", &[("accept", aggregated), ("if-none-match", tag)], "").await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
}

#[tokio::test]
async fn bootstrap_objects_are_there() {
    let cluster = Cluster::new().await;
    let service = cluster.ok("GET /api/v1/namespaces/default/services/kubernetes", Value::Null).await;
    assert_eq!(service["spec"]["clusterIP"], "10.100.0.1");
    for path in [
        "/api/v1/namespaces/kube-node-lease",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/edit",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:isopod:host-agent",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/extension-apiserver-authentication-reader",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
    ] {
        cluster.ok(&format!("GET {path}"), Value::Null).await;
    }
}

#[tokio::test]
async fn an_object_in_every_form() {
    let cluster = Cluster::new().await;
    let created = cluster.create("configmaps", "default", config_map("x")).await;
    let path = format!("GET {CONFIG_MAPS}/x");
    assert_eq!(cluster.ok(&path, Value::Null).await, created);
    let table = cluster.ask(&path, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await.json();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "x");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let metadata = cluster
        .ask(&path, &[("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")], "")
        .await
        .json();
    assert_eq!((&metadata["kind"], &metadata["metadata"]), (&json!("PartialObjectMetadata"), &created["metadata"]));
    let yaml = cluster.ask(&path, &[("accept", "application/yaml")], "").await;
    assert!(yaml.text.contains("key: value"), "{}", yaml.text);
    let pretty = cluster.ask(&path, &[("user-agent", "curl/8")], "").await;
    assert!(pretty.text.contains("\n  \"kind\""), "{}", pretty.text);
    let refused = cluster.ask(&path, &[("accept", "text/html")], "").await;
    assert_eq!(refused.code, 406);
    assert_eq!(
        cluster.refused(&format!("GET {CONFIG_MAPS}/none"), Value::Null).await,
        (404, "configmaps \"none\" not found".into())
    );
}

#[tokio::test]
async fn lists_are_paged_at_one_revision() {
    let cluster = Cluster::new().await;
    for number in 0..5 {
        cluster.create("configmaps", "default", config_map(&format!("c{number}"))).await;
    }
    let mut names = Vec::new();
    let mut versions = Vec::new();
    let mut url = format!("GET {CONFIG_MAPS}?limit=2");
    loop {
        let page = cluster.ok(&url, Value::Null).await;
        assert_eq!((&page["kind"], &page["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
        names.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        versions.push(page["metadata"]["resourceVersion"].clone());
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        assert_eq!(page["metadata"]["remainingItemCount"], 5 - names.len());
        url = format!("GET {CONFIG_MAPS}?limit=2&continue={token}");
        cluster.create("configmaps", "default", config_map(&format!("c{}x", names.len()))).await;
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"]);
    assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
}

#[tokio::test]
async fn a_compacted_page_can_be_continued_inconsistently() {
    let cluster = Cluster::new().await;
    for number in 0..4 {
        cluster.create("configmaps", "default", config_map(&format!("c{number}"))).await;
    }
    let page = cluster.ok(&format!("GET {CONFIG_MAPS}?limit=2"), Value::Null).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    cluster.create("configmaps", "default", config_map("c4")).await;
    tokio::time::pause();
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let expired = cluster.ask(&format!("GET {CONFIG_MAPS}?limit=2&continue={token}"), &[], "").await;
    assert_eq!((expired.code, expired.json()["reason"].as_str()), (410, Some("Expired")));
    let body = expired.json();
    let token = body["metadata"]["continue"].as_str().unwrap();
    let rest = cluster.ok(&format!("GET {CONFIG_MAPS}?continue={token}"), Value::Null).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);
    let exact = format!("GET {CONFIG_MAPS}?resourceVersion=2&resourceVersionMatch=Exact");
    assert_eq!(cluster.refused(&exact, Value::Null).await.0, 410);
}

#[tokio::test]
async fn what_lists_refuse() {
    let cluster = Cluster::new().await;
    let table = [
        ("resourceVersion=x", 400, "invalid resource version"),
        ("resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided"),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, "forbidden for resourceVersion \"0\""),
        ("resourceVersionMatch=Some&resourceVersion=1", 422, "Unsupported value"),
        ("continue=x", 400, "continue key is not valid"),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        ("labelSelector=a%3D%3D%3Db", 400, "unable to parse requirement"),
        ("fieldSelector=spec.none%3Dx", 400, "\"spec.none\" is not a known field selector"),
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ];
    for (query, code, part) in table {
        let (found, message) = cluster.refused(&format!("GET {CONFIG_MAPS}?{query}"), Value::Null).await;
        assert_eq!(found, code, "{query}: {message}");
        assert!(message.contains(part), "{query}: {message}");
    }
    tokio::time::pause();
    let (code, message) = cluster.refused(&format!("GET {CONFIG_MAPS}?resourceVersion=99999"), Value::Null).await;
    assert_eq!(
        (code, message.starts_with("Timeout: Too large resource version: 99999, current: ")),
        (504, true),
        "{message}"
    );
}

#[tokio::test]
async fn selectors_choose() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.create("pods", "default", pod(name)).await;
    }
    cluster
        .ok(
            "POST /api/v1/namespaces/default/pods/b/binding",
            json!({"metadata": {"name": "b"}, "target": {"kind": "Node", "name": "n1"}}),
        )
        .await;
    let table = [
        ("labelSelector=app%3Da", "a"),
        ("labelSelector=app%20in%20(a,c)", "a c"),
        ("labelSelector=app!%3Da", "b c"),
        ("fieldSelector=spec.nodeName%3Dn1", "b"),
        ("fieldSelector=spec.nodeName%3D", "a c"),
        ("fieldSelector=metadata.name%3Dc", "c"),
        ("fieldSelector=status.phase!%3DPending", ""),
        ("labelSelector=app%20in%20(a,c)&limit=1", "a"),
    ];
    for (query, expected) in table {
        for path in [collection("pods", "default"), collection("pods", "")] {
            let list = cluster.ok(&format!("GET {path}?{query}"), Value::Null).await;
            let names: Vec<&str> = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["metadata"]["name"].as_str().unwrap())
                .collect();
            assert_eq!(names.join(" "), expected, "{path}?{query}");
        }
    }
}

#[tokio::test]
async fn kinds_that_are_not_there_or_not_offered() {
    let cluster = Cluster::new().await;
    cluster.create("apps/v1/deployments", "default", deployment("d", 1)).await;
    let table = [
        ("GET /api/v1/namespaces/default/deployments/d", 404),
        ("GET /apis/apps/v1/namespaces/default/deployments/d", 200),
        ("GET /apis/apps/v2/namespaces/default/deployments/d", 404),
        ("POST /api/v1/namespaces/default/configmaps/x", 405),
        ("DELETE /api/v1/namespaces", 405),
        ("PUT /api/v1/namespaces/default/configmaps", 405),
        ("GET /api/v1/namespaces/default/configmaps/x/status", 404),
        ("PUT /api/v1/configmaps/x", 404),
        ("TRACE /api/v1/configmaps", 405),
    ];
    for (line, code) in table {
        assert_eq!(cluster.ask(line, &[], "{}").await.code, code, "{line}");
    }
}
