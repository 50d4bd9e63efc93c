//! Protobuf, asked for by clients: the same objects, lists, events and refusals as in JSON.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use isopod_apiserver::Body;
use isopod_schema::{Gvk, Table, Verb, protobuf};
use serde_json::{Value, json};

use crate::harness::{Cluster, config_map, deployment, pod};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A whole object in protobuf as a document. Items of lists are without `apiVersion` and `kind`.
fn document(bytes: &[u8]) -> Value {
    // The envelope is magic bytes, a message with the type's two texts, then the rest.
    let meta = bytes.strip_prefix(b"k8s\0\x0a").expect("an envelope");
    let text = |at: usize| String::from_utf8(meta[at + 2..at + 2 + meta[at + 1] as usize].to_vec()).unwrap();
    let api_version = text(1);
    let kind = text(1 + 2 + api_version.len());
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let ty = Table::builtin().type_of(&Gvk::new(group, version, &kind)).expect(&kind);
    protobuf::decode(ty, bytes).unwrap()
}

/// Takes out what Go's JSON shows and ours need not: empty structs, lists and maps, zeros of plain fields.
fn essence(value: &Value) -> Value {
    fn is_empty(value: &Value) -> bool {
        match value {
            Value::Object(object) => object.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::String(text) => text.is_empty() || text == "0",
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Bool(flag) => !flag,
            Value::Null => true,
        }
    }
    match value {
        Value::Object(object) => {
            let fields = object.iter().map(|(name, value)| (name.clone(), essence(value)));
            fields.filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(list) => list.iter().map(essence).collect(),
        other => other.clone(),
    }
}

fn without_types(mut list: Value) -> Value {
    for item in list["items"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        item.shift_remove("apiVersion");
        item.shift_remove("kind");
    }
    list
}

struct Client(Cluster);

impl Client {
    /// A request in protobuf; the answer must be in protobuf as well.
    async fn ask(&self, line: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { protobuf::encode(&body).unwrap() };
        let headers = [("accept", PROTOBUF), ("content-type", PROTOBUF)];
        let (code, media, bytes) = self.0.bytes(line, &headers, body).await;
        assert_eq!(media, PROTOBUF, "{line}: {code} {bytes:?}");
        (code, document(&bytes))
    }

    async fn json(&self, line: &str) -> Value {
        self.0.ok(line, Value::Null).await
    }
}

#[tokio::test]
async fn every_verb_answers_in_protobuf() {
    let client = Client(Cluster::new().await);
    let (code, created) = client.ask("POST /api/v1/namespaces/default/pods", pod("p")).await;
    assert_eq!((code, &created["spec"]["containers"][0]["image"]), (201, &json!("nginx")));
    assert_eq!(created["kind"], "Pod");
    let path = "/api/v1/namespaces/default/pods/p";
    let json = client.json(&format!("GET {path}")).await;
    assert_eq!(essence(&created), essence(&json));
    assert_eq!(client.ask(&format!("GET {path}"), Value::Null).await, (200, created.clone()));
    let mut changed = created;
    changed["metadata"]["labels"]["new"] = "label".into();
    let (code, updated) = client.ask(&format!("PUT {path}"), changed).await;
    assert_eq!((code, &updated["metadata"]["labels"]["new"]), (200, &json!("label")));
    client.0.create("apps/v1/deployments", "default", deployment("d", 3)).await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let (code, scale) = client.ask(&format!("GET {path}/scale"), Value::Null).await;
    assert_eq!((code, &scale["kind"], &scale["spec"]["replicas"]), (200, &json!("Scale"), &json!(3)));
    let headers = [("accept", PROTOBUF), ("content-type", "application/merge-patch+json")];
    let body = json!({"spec": {"replicas": 0}}).to_string().into_bytes();
    let (code, media, bytes) = client.0.bytes(&format!("PATCH {path}"), &headers, body).await;
    assert_eq!((code, media.as_str(), &document(&bytes)["spec"]["replicas"]), (200, PROTOBUF, &json!(0)));
    let options = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"});
    let (code, deleting) = client.ask(&format!("DELETE {path}"), options).await;
    assert_eq!((code, &deleting["metadata"]["finalizers"]), (200, &json!(["orphan"])));
    client.0.create("configmaps", "default", config_map("x")).await;
    let (code, status) = client.ask(&format!("DELETE {CONFIG_MAPS}/x"), Value::Null).await;
    assert_eq!((code, &status["kind"], &status["status"]), (200, &json!("Status"), &json!("Success")));
    let (code, list) = client.ask(&format!("DELETE {CONFIG_MAPS}"), Value::Null).await;
    assert_eq!((code, &list["kind"]), (200, &json!("ConfigMapList")));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let (code, review) = client.ask("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    assert_eq!((code, &review["status"]["allowed"]), (201, &json!(true)));
}

#[tokio::test]
async fn refusals_are_a_status_in_protobuf() {
    let client = Client(Cluster::new().await);
    let bad = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "X_"}});
    let table = [
        (format!("GET {CONFIG_MAPS}/none"), Value::Null, 404, "NotFound", "configmaps \"none\" not found"),
        (format!("POST {CONFIG_MAPS}"), bad, 422, "Invalid", "metadata.name"),
        (format!("GET {CONFIG_MAPS}?limit=x"), Value::Null, 400, "BadRequest", "strconv.ParseInt: parsing \"x\""),
        (
            format!("GET {CONFIG_MAPS}?resourceVersionMatch=Exact"),
            Value::Null,
            422,
            "Invalid",
            "forbidden unless resourceVersion is provided",
        ),
    ];
    for (line, body, code, reason, part) in table {
        let (found, status) = client.ask(&line, body).await;
        assert_eq!((found, &status["reason"], &status["code"]), (code, &json!(reason), &json!(code)), "{line}");
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{line}");
        assert!(status["message"].as_str().unwrap().contains(part), "{line}: {status}");
    }
    // Nobody would read a Table's client a refusal in protobuf.
    let accept = [("accept", "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1")];
    let refused = client.0.ask(&format!("GET {CONFIG_MAPS}"), &accept, "").await;
    assert_eq!((refused.code, refused.json()["reason"].as_str()), (406, Some("NotAcceptable")));
}

/// So many that they are encoded in parts: some first, then all, then with one that changed.
#[tokio::test]
async fn long_lists_are_the_same_in_protobuf() {
    let client = Client(Cluster::new().await);
    for number in 0..300 {
        client.0.create("configmaps", "default", config_map(&format!("c-{number}"))).await;
    }
    for (round, query) in ["?limit=7", "", "?limit=299", ""].into_iter().enumerate() {
        let line = format!("GET {CONFIG_MAPS}{query}");
        let (code, list) = client.ask(&line, Value::Null).await;
        let expected = without_types(client.json(&line).await);
        assert_eq!((code, essence(&list)), (200, essence(&expected)), "{line}");
        client.0.create("configmaps", "default", config_map(&format!("new-{round}"))).await;
    }
}

#[tokio::test]
async fn every_kind_is_listed_and_watched_in_protobuf() {
    let client = Client(Cluster::new().await);
    client.0.create("pods", "default", pod("p")).await;
    client.0.create("apps/v1/deployments", "default", deployment("d", 1)).await;
    let hpa = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    client.0.create("autoscaling/v1/horizontalpodautoscalers", "default", hpa).await;
    let mut watched = 0;
    for kind in Table::builtin()
        .kinds()
        .filter(|kind| kind.allows(Verb::List) && !["isopod.dev", "metrics.k8s.io"].contains(&&*kind.group))
    {
        let base = if kind.group.is_empty() { "/api".into() } else { format!("/apis/{}", kind.group) };
        let path = format!("{base}/{}/{}", kind.version, kind.plural);
        let json = client.json(&format!("GET {path}")).await;
        let (code, list) = client.ask(&format!("GET {path}"), Value::Null).await;
        assert_eq!((code, essence(&list)), (200, essence(&without_types(json.clone()))), "{path}");
        if !kind.allows(Verb::Watch) {
            continue;
        }
        let items = json["items"].as_array().unwrap().clone();
        let mut watch = Frames::open(&client.0, &format!("{path}?watch=1"), PROTOBUF).await;
        for item in &items {
            let (event, object) = watch.next().await;
            assert_eq!((event.as_str(), essence(&document(&object))), ("ADDED", essence(item)), "{path}");
            watched += 1;
        }
    }
    assert!(watched > 30, "{watched}");
}

/// A watch in protobuf, read frame by frame.
struct Frames {
    body: Body,
    buffer: BytesMut,
}

impl Frames {
    async fn open(cluster: &Cluster, url: &str, accept: &str) -> Self {
        let response = cluster.open(&format!("GET {url}"), &[("accept", accept)], "").await;
        assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch", "{url}");
        Self { body: response.into_body(), buffer: BytesMut::new() }
    }

    async fn take(&mut self, count: usize) -> Bytes {
        while self.buffer.len() < count {
            let frame = self.body.frame().await.expect("the watch goes on").unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap());
        }
        self.buffer.split_to(count).freeze()
    }

    /// Type and object of the next event: field 1, and field 1 of field 2.
    async fn next(&mut self) -> (String, Bytes) {
        let length = self.take(4).await.get_u32();
        let mut event = self.take(length as usize).await;
        let kind = field(&mut event, 1);
        let mut object = field(&mut event, 2);
        assert!(event.is_empty());
        (String::from_utf8(kind.to_vec()).unwrap(), field(&mut object, 1))
    }

    async fn document(&mut self) -> (String, Value) {
        let (event, object) = self.next().await;
        (event, document(&object))
    }
}

/// The content of the next field, which must have this number and a length.
fn field(bytes: &mut Bytes, number: u8) -> Bytes {
    assert_eq!(bytes.get_u8(), number << 3 | 2);
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = bytes.get_u8();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return bytes.split_to(length);
        }
    }
}

#[tokio::test]
async fn events_bookmarks_and_errors_are_framed() {
    let cluster = Cluster::new().await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let url = format!("{CONFIG_MAPS}?{query}&labelSelector=!gone");
    let mut watch = Frames::open(&cluster, &url, PROTOBUF).await;
    let (event, mark) = watch.document().await;
    assert_eq!((event.as_str(), &mark["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let created = cluster.create("configmaps", "default", config_map("x")).await;
    assert_eq!(watch.document().await, ("ADDED".into(), created.clone()));
    let patch = json!({"metadata": {"labels": {"gone": "yes"}}});
    let left = cluster.ok(&format!("PATCH {CONFIG_MAPS}/x"), patch).await;
    let (event, last) = watch.document().await;
    assert_eq!((event.as_str(), &last["data"]), ("DELETED", &created["data"]));
    assert_eq!(last["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(last["metadata"]["labels"], Value::Null);
    let mut metadata = Frames::open(&cluster, &format!("{CONFIG_MAPS}?watch=1"), METADATA).await;
    let (event, mut partial) = metadata.next().await;
    assert_eq!(event, "ADDED");
    assert!(partial.starts_with(b"k8s\0\n'\n\x0emeta.k8s.io/v1\x12\x15PartialObjectMetadata\x12"), "{partial:?}");
    partial.advance(4 + 41 + 1);
    assert!(partial.windows(4).any(|window| window == b"\x0a\x01x\x12"), "{partial:?}");
    tokio::time::pause();
    for round in 0..8 {
        let labels = json!({"metadata": {"labels": {"round": round.to_string()}}});
        cluster.ok("PATCH /api/v1/namespaces/default", labels).await;
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    }
    let mut late = Frames::open(&cluster, &format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"), PROTOBUF).await;
    let (event, status) = late.document().await;
    assert_eq!((event.as_str(), &status["kind"], &status["code"]), ("ERROR", &json!("Status"), &json!(410)));
}

#[tokio::test]
async fn kinds_without_messages_are_answered_in_what_comes_next() {
    let cluster = Cluster::new().await;
    let profiles = "/apis/isopod.dev/v1alpha1/fargateprofiles";
    let both = format!("{PROTOBUF},application/json");
    let (code, media, _) = cluster.bytes(&format!("GET {profiles}"), &[("accept", &both)], Vec::new()).await;
    assert_eq!((code, media.as_str()), (200, "application/json"));
    let (code, media, bytes) = cluster.bytes(&format!("GET {profiles}"), &[("accept", PROTOBUF)], Vec::new()).await;
    assert_eq!((code, media.as_str()), (406, PROTOBUF));
    assert_eq!(document(&bytes)["reason"], "NotAcceptable");
    // Their metadata is like everybody's.
    let (code, media, bytes) = cluster.bytes(&format!("GET {profiles}"), &[("accept", METADATA)], Vec::new()).await;
    assert_eq!((code, media.as_str()), (200, PROTOBUF));
    assert!(bytes.windows(25).any(|window| window == b"PartialObjectMetadataList"), "{bytes:?}");
    let headers = [("content-type", PROTOBUF), ("accept", "application/json")];
    let body = protobuf::encode(&config_map("x")).unwrap();
    let (code, _, bytes) = cluster.bytes(&format!("POST {profiles}"), &headers, body).await;
    assert_eq!(code, 415, "{bytes:?}");
}

#[tokio::test]
async fn large_lists_are_compressed_as_in_json() {
    use std::io::Read;
    let cluster = Cluster::new().await;
    for number in 0..4 {
        let mut map = config_map(&format!("map-{number}"));
        map["data"]["file"] = "a line of a file\n".repeat(3_000).into();
        cluster.create("configmaps", "default", map).await;
    }
    let line = format!("GET {CONFIG_MAPS}");
    let (_, _, plain) = cluster.bytes(&line, &[("accept", PROTOBUF)], Vec::new()).await;
    let headers = [("accept", PROTOBUF), ("accept-encoding", "gzip")];
    let (_, media, compressed) = cluster.bytes(&line, &headers, Vec::new()).await;
    assert_eq!(media, PROTOBUF);
    assert!(plain.len() > 150_000 && compressed.len() < plain.len() / 4, "{} {}", plain.len(), compressed.len());
    let mut found = Vec::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut found).unwrap();
    assert!(found == plain);
}

/// Go's discovery asks for protobuf when its program does.
#[tokio::test]
async fn discovery_is_told_in_protobuf() {
    let cluster = Cluster::new().await;
    let accept = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/api/v1", "APIResourceList"),
        ("/apis/apps/v1", "APIResourceList"),
    ] {
        let (code, media, bytes) = cluster.bytes(&format!("GET {path}"), &accept, Vec::new()).await;
        assert_eq!((code, media.as_str()), (200, "application/vnd.kubernetes.protobuf"), "{path}");
        let ty = isopod_schema::Table::builtin().type_of(&isopod_schema::Gvk::new("", "v1", kind)).unwrap();
        let mut found = isopod_schema::protobuf::decode(ty, &bytes).unwrap();
        let mut expected = cluster.ok(&format!("GET {path}"), Value::Null).await;
        for document in [&mut found, &mut expected] {
            document.as_object_mut().unwrap().retain(|name, _| name != "apiVersion" && name != "kind");
        }
        assert_eq!(found, expected, "{path}");
    }
}
