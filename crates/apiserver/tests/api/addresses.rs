//! Addresses and node ports of Services, IPAddress objects, ServiceCIDRs.

use serde_json::{Value, json};

use crate::harness::Cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn ports() -> Value {
    json!([{"port": 80}])
}

/// Names of IPAddresses and the Services they belong to.
async fn held(cluster: &Cluster) -> Vec<String> {
    let list = cluster.ok(&format!("GET {ADDRESSES}"), Value::Null).await;
    let line = |item: &Value| {
        let parent = &item["spec"]["parentRef"];
        format!("{} {}/{}", item["metadata"]["name"], parent["namespace"], parent["name"]).replace('"', "")
    };
    list["items"].as_array().unwrap().iter().map(line).collect()
}

fn address(service: &Value) -> String {
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let cluster = Cluster::new().await;
    let plain = cluster.create("services", "default", service("a", json!({"ports": ports()}))).await;
    let own = address(&plain);
    assert!(own.starts_with("10.100."), "{own}");
    assert_eq!((&plain["spec"]["clusterIPs"], &plain["spec"]["type"]), (&json!([own]), &json!("ClusterIP")));
    let headless = service("h", json!({"clusterIP": "None", "ports": ports()}));
    assert_eq!(address(&cluster.create("services", "default", headless).await), "None");
    let line = format!("PUT {SERVICES}/a");
    let kept = cluster.ok(&line, service("a", json!({"ports": [{"port": 81}]}))).await;
    assert_eq!((&kept["spec"]["clusterIP"], &kept["spec"]["ports"][0]["port"]), (&json!(own), &json!(81)));
}

#[tokio::test]
async fn what_is_taken_is_refused_in_upstreams_words() {
    let cluster = Cluster::new().await;
    let node = service("n", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_000}]}));
    let taken = address(&cluster.create("services", "default", node).await);
    let keeper = json!({"metadata": {"name": "10.100.3.4"}, "spec": {"parentRef": {"resource": "racks", "name": "r"}}});
    cluster.create("networking.k8s.io/v1/ipaddresses", "", keeper).await;
    let with = |field: &str, value: Value| {
        let mut spec = json!({"ports": ports()});
        spec[field] = value;
        spec
    };
    let node_port = |number: u64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]});
    let health = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30_000, "ports": ports(),
    });
    let table = [
        (with("clusterIP", json!(taken)), 422, format!("spec.clusterIPs: Invalid value: [\"{taken}\"]: failed to allocate IP {taken}: provided IP is already allocated")),
        (with("clusterIP", json!("10.100.3.4")), 422, "failed to allocate IP 10.100.3.4: provided IP is already allocated".into()),
        (with("clusterIP", json!("10.0.0.1")), 422, "the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.100.0.0/16".into()),
        (with("clusterIP", json!("10.100.255.255")), 422, "is not in the valid range".into()),
        (with("clusterIPs", json!(["10.100.0.7"])), 422, "spec.clusterIPs: Invalid value: [\"10.100.0.7\"]: must be empty when `clusterIP` is not specified".into()),
        (with("ipFamilies", json!(["IPv6"])), 422, "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster".into()),
        (with("ipFamilyPolicy", json!("RequireDualStack")), 422, "this cluster is not configured for dual-stack services".into()),
        (node_port(30_000), 422, "spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated".into()),
        (node_port(80), 422, "provided port is not in the valid range. The range of valid ports is 30000-32767".into()),
        (with("healthCheckNodePort", json!(30_001)), 422, "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'".into()),
        (health, 500, "failed to allocate requested HealthCheck NodePort 30000: provided port is already allocated".into()),
    ];
    let before = held(&cluster).await;
    for (spec, code, part) in table {
        let (found, message) = cluster.refused(&format!("POST {SERVICES}"), service("x", spec)).await;
        assert_eq!((found, message.contains(&part)), (code, true), "{message}");
    }
    assert_eq!(held(&cluster).await, before, "nothing is kept for what was refused");
    let udp = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "UDP", "nodePort": 30_000}]});
    cluster.create("services", "default", service("u", udp)).await;
}

#[tokio::test]
async fn services_change_their_type() {
    let cluster = Cluster::new().await;
    let two = json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    let created = cluster.create("services", "default", service("s", json!({"ports": two}))).await;
    let line = format!("PATCH {SERVICES}/s");
    let exposed = cluster.ok(&line, json!({"spec": {"type": "NodePort"}})).await;
    let port = exposed["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.as_u64().is_some_and(|port| (30_086..=32_767).contains(&port)), "{port}");
    assert_eq!(exposed["spec"]["ports"][1]["nodePort"], port, "one number for both protocols");
    // type, more of the spec, node port, whether there is a port to ask for health
    let table = [
        ("LoadBalancer", json!({}), port.clone(), false),
        ("LoadBalancer", json!({"externalTrafficPolicy": "Local"}), port.clone(), true),
        ("LoadBalancer", json!({"externalTrafficPolicy": "Cluster"}), port.clone(), false),
        ("NodePort", json!({}), port, false),
        ("ClusterIP", json!({}), Value::Null, false),
    ];
    for (kind, mut spec, port, health) in table {
        spec["type"] = kind.into();
        let now = cluster.ok(&line, json!({"spec": spec})).await;
        let spec = &now["spec"];
        assert_eq!(
            (&spec["ports"][0]["nodePort"], &spec["clusterIP"]),
            (&port, &created["spec"]["clusterIP"]),
            "{kind}"
        );
        assert_eq!(spec["healthCheckNodePort"].is_u64(), health, "{spec}");
    }
    let bare = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports()});
    let bare = cluster.create("services", "default", service("b", bare)).await;
    assert_eq!(bare["spec"]["ports"][0]["nodePort"], Value::Null);
}

#[tokio::test]
async fn every_address_has_an_object_for_as_long_as_its_service() {
    let cluster = Cluster::new().await;
    assert_eq!(held(&cluster).await, ["10.100.0.1 default/kubernetes"]);
    let own = address(&cluster.create("services", "default", service("a", json!({"ports": ports()}))).await);
    let line = format!("{own} default/a");
    let object = cluster.ok(&format!("GET {ADDRESSES}/{own}"), Value::Null).await;
    assert_eq!(object["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    assert!(held(&cluster).await.contains(&line));
    cluster.ok(&format!("POST {SERVICES}?dryRun=All"), service("dry", json!({"ports": ports()}))).await;
    assert_eq!(held(&cluster).await.len(), 2, "a dry run keeps nothing");
    let external =
        json!({"spec": {"type": "ExternalName", "externalName": "x.y", "clusterIP": null, "clusterIPs": null}});
    cluster.ok(&format!("PATCH {SERVICES}/a"), external).await;
    assert_eq!(held(&cluster).await.len(), 1);
    let back =
        cluster.ok(&format!("PATCH {SERVICES}/a"), json!({"spec": {"type": "ClusterIP", "clusterIP": own}})).await;
    assert_eq!(address(&back), own);
    cluster.ok(&format!("DELETE {SERVICES}/a"), Value::Null).await;
    assert_eq!(held(&cluster).await, ["10.100.0.1 default/kubernetes"]);
    let again = service("b", json!({"clusterIP": own, "ports": ports()}));
    assert_eq!(address(&cluster.create("services", "default", again).await), own);
}

#[tokio::test]
async fn objects_follow_the_services_when_a_server_opens() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::in_directory(directory.path()).await;
    let own = address(&cluster.create("services", "default", service("a", json!({"ports": ports()}))).await);
    let stray = json!({
        "metadata": {"name": "10.100.9.9", "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "gone"}},
    });
    // Whoever meddles while the server runs is put right too.
    cluster.create("networking.k8s.io/v1/ipaddresses", "", stray).await;
    cluster.ok(&format!("DELETE {ADDRESSES}/{own}"), Value::Null).await;
    drop(cluster);
    let cluster = Cluster::in_directory(directory.path()).await;
    let mut expected = vec!["10.100.0.1 default/kubernetes".to_owned(), format!("{own} default/a")];
    expected.sort();
    assert_eq!(held(&cluster).await, expected);
}

#[tokio::test]
async fn many_services_at_once_never_share() {
    let cluster = Cluster::new().await;
    let range = json!({"metadata": {"name": "small"}, "spec": {"cidrs": ["10.7.0.0/26"]}});
    cluster.create("networking.k8s.io/v1/servicecidrs", "", range).await;
    let create = |number: usize| {
        let (cluster, spec) = (cluster.clone(), json!({"type": "NodePort", "ports": ports()}));
        async move { cluster.create("services", "default", service(&format!("s-{number}"), spec)).await }
    };
    let services = futures::future::join_all((0..60).map(create)).await;
    let addresses: std::collections::BTreeSet<String> = services.iter().map(address).collect();
    let ports: std::collections::BTreeSet<u64> =
        services.iter().map(|service| service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).collect();
    assert_eq!((addresses.len(), ports.len(), held(&cluster).await.len()), (60, 60, 61));
}

#[tokio::test]
async fn ranges_are_ready_serve_and_go() {
    let cluster = Cluster::new().await;
    let default = cluster.ok(&format!("GET {RANGES}/kubernetes"), Value::Null).await;
    assert_eq!(default["spec"]["cidrs"], json!(["10.100.0.0/16"]));
    let range = json!({"metadata": {"name": "second"}, "spec": {"cidrs": ["10.7.0.0/24"]}});
    cluster.create("networking.k8s.io/v1/servicecidrs", "", range).await;
    let path = format!("{RANGES}/second");
    let now = cluster.ok(&format!("GET {path}"), Value::Null).await;
    assert_eq!(now["metadata"]["finalizers"], json!(["networking.k8s.io/service-cidr-finalizer"]));
    let condition = &now["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Ready"), &json!("True")));
    let inside = |name: &str, ip: &str| service(name, json!({"clusterIP": ip, "ports": ports()}));
    cluster.create("services", "default", inside("a", "10.7.0.9")).await;
    cluster.ok(&format!("DELETE {path}"), Value::Null).await;
    let held = cluster.ok(&format!("GET {path}"), Value::Null).await;
    let condition = &held["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Terminating")));
    let (_, message) = cluster.refused(&format!("POST {SERVICES}"), inside("b", "10.7.0.10")).await;
    assert!(message.contains("The range of valid IPs is 10.100.0.0/16"), "{message}");
    // A Service keeps what it has, whatever becomes of the range.
    cluster.ok(&format!("PATCH {SERVICES}/a"), json!({"metadata": {"labels": {"x": "y"}}})).await;
    cluster.ok(&format!("DELETE {SERVICES}/a"), Value::Null).await;
    let gone = async {
        while cluster.ask(&format!("GET {path}"), &[], "").await.code != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn bad_ranges_and_addresses_are_refused() {
    let cluster = Cluster::new().await;
    let range = |cidrs: Value| json!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}});
    let parent = |parent: Value| json!({"metadata": {"name": "10.100.0.9"}, "spec": {"parentRef": parent}});
    let post = |path: &str| format!("POST {path}");
    let table = [
        (post(RANGES), range(json!([])), "spec.cidrs: Required value: at least one CIDR required"),
        (post(RANGES), range(json!(["10.0.0.1/24"])), "must not have bits set beyond the prefix length"),
        (
            post(RANGES),
            range(json!(["10.0.0.0/33"])),
            "spec.cidrs[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value",
        ),
        (
            post(RANGES),
            range(json!(["10.0.0.0/24", "10.0.1.0/24"])),
            "may specify no more than one IP for each IP family",
        ),
        (
            format!("PATCH {RANGES}/kubernetes"),
            json!({"spec": {"cidrs": ["10.0.0.0/24"]}}),
            "spec.cidrs[0]: Invalid value: \"10.0.0.0/24\": field is immutable",
        ),
        (post(ADDRESSES), json!({"metadata": {"name": "10.100.0.9"}}), "spec.parentRef: Required value"),
        (post(ADDRESSES), parent(json!({"resource": "services"})), "spec.parentRef.name: Required value"),
        (post(ADDRESSES), json!({"metadata": {"name": "010.1.1.1"}, "spec": {}}), "must be a valid IP address"),
    ];
    for (line, body, part) in table {
        let (code, message) = cluster.refused(&line, body).await;
        assert_eq!((code, message.contains(part)), (422, true), "{message}");
    }
}

#[tokio::test]
async fn a_list_of_addresses_is_not_changed_in_silence() {
    let cluster = Cluster::new().await;
    let own = address(&cluster.create("services", "default", service("a", json!({"ports": ports()}))).await);
    for (list, part) in [
        (json!(["10.100.0.9"]), "first value must match `clusterIP`"),
        (json!([own, "10.100.0.9"]), "may hold one value only"),
    ] {
        let (code, message) =
            cluster.refused(&format!("PATCH {SERVICES}/a"), json!({"spec": {"clusterIPs": list}})).await;
        assert_eq!((code, message.contains(part)), (422, true), "{message}");
    }
    let same = cluster.ok(&format!("PATCH {SERVICES}/a"), json!({"spec": {"clusterIPs": [own]}})).await;
    assert_eq!(address(&same), own);
}
