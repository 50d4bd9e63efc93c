//! Endpoints by tables of cases, and a property over whatever comes and goes.

use super::*;
use crate::plan::{Plan, Write};
use isopod_types::network::{EndpointSlice, Endpoints};
use proptest::prelude::*;
use serde_json::{Value, json};

fn service(spec: Value) -> Service {
    let mut all = json!({"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], "clusterIP": "10.1.1.1"});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    let metadata = json!({"name": "web", "namespace": "x", "uid": "s", "labels": {"team": "t"}});
    serde_json::from_value(json!({"metadata": metadata, "spec": all})).unwrap()
}

/// `name ip words...`: `ready`, `deleting`, `failed`, `other`, `named=PORT`, `sub`.
fn pod(text: &str) -> Pod {
    let words: Vec<&str> = text.split(' ').collect();
    let has = |word: &str| words.contains(&word);
    let named = words.iter().find_map(|word| word.strip_prefix("named=")).and_then(|port| port.parse::<u16>().ok());
    let ports: Vec<Value> = named.map(|port| json!({"name": "web", "containerPort": port})).into_iter().collect();
    let ready = if has("ready") { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": {
            "name": words[0], "namespace": "x", "uid": words[0], "labels": {"app": if has("other") { "b" } else { "a" }},
            "deletionTimestamp": has("deleting").then_some("1970-01-01T00:00:00Z"),
        },
        "spec": {
            "nodeName": "n", "containers": [{"name": "c", "ports": ports}],
            "hostname": has("sub").then_some("host"), "subdomain": has("sub").then_some("web"),
        },
        "status": {
            "podIP": if words[1] == "-" { "" } else { words[1] }, "phase": if has("failed") { "Failed" } else { "Running" },
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:00:00Z"}],
        },
    }))
    .unwrap()
}

fn node() -> Node {
    serde_json::from_value(json!({"metadata": {"name": "n", "labels": {ZONE: "z1"}}})).unwrap()
}

/// Each group as `PORTS: ADDRESS+ready/serving/terminating ...`.
fn check(service: &Service, pods: &[&str], expected: &[&str]) {
    let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
    let node = node();
    let find = |name: &str| Some(&node).filter(|_| name == "n");
    let groups = of(service, &pods.iter().collect::<Vec<_>>(), &find);
    let endpoint = |one: &Endpoint| {
        let letter =
            |flag: Option<bool>, letter: &str| if flag == Some(true) { letter.to_owned() } else { String::new() };
        let EndpointConditions { ready, serving, terminating } = one.conditions;
        let host = one.hostname.as_ref().map(|name| format!("@{name}")).unwrap_or_default();
        format!("{}{host}+{}{}{}", one.addresses[0], letter(ready, "r"), letter(serving, "s"), letter(terminating, "t"))
    };
    let line = |(ports, endpoints): (&Vec<EndpointPort>, &Vec<Endpoint>)| {
        let ports: Vec<String> = ports.iter().map(|port| format!("{}={}", port.name, port.port.unwrap())).collect();
        format!("{}: {}", ports.join(","), endpoints.iter().map(endpoint).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(groups.iter().map(line).collect::<Vec<_>>(), expected);
}

#[test]
fn pods_are_endpoints_with_their_state() {
    let plain = service(json!({}));
    check(
        &plain,
        &["a 10.0.0.2 ready", "b 10.0.0.1", "c - ready", "d 10.0.0.4 ready failed", "e 10.0.0.5 ready other"],
        &["http=8080: 10.0.0.1+ 10.0.0.2+rs"],
    );
    check(&plain, &["a 10.0.0.2 ready deleting"], &["http=8080: 10.0.0.2+st"]);
    let early = service(json!({"publishNotReadyAddresses": true}));
    check(&early, &["a 10.0.0.2", "b 10.0.0.3 deleting"], &["http=8080: 10.0.0.2+r 10.0.0.3+rt"]);
    check(&service(json!({"selector": {}})), &["a 10.0.0.2 ready"], &[]);
    check(&service(json!({"type": "ExternalName"})), &["a 10.0.0.2 ready"], &[]);
}

#[test]
fn ports_by_name_differ_from_pod_to_pod() {
    let named =
        service(json!({"ports": [{"name": "w", "port": 80, "targetPort": "web"}, {"name": "m", "port": 9090}]}));
    check(
        &named,
        &["a 10.0.0.1 ready named=81", "b 10.0.0.2 ready named=82", "c 10.0.0.3 ready named=81", "d 10.0.0.4 ready"],
        &["m=9090: 10.0.0.4+rs", "m=9090,w=81: 10.0.0.1+rs 10.0.0.3+rs", "m=9090,w=82: 10.0.0.2+rs"],
    );
    let headless = service(json!({"ports": [], "clusterIP": "None"}));
    check(&headless, &["a 10.0.0.1 ready sub"], &[": 10.0.0.1@host+rs"]);
}

/// Carries the writes of a plan out on a list of slices.
fn apply(plan: &Plan, slices: &mut Vec<EndpointSlice>, serial: &mut usize) {
    for write in &plan.writes {
        match write {
            Write::Create { object, .. } => {
                *serial += 1;
                let mut object = object.clone();
                object["metadata"]["name"] = json!(format!("web-{serial}"));
                object["metadata"]["uid"] = json!(format!("u{serial}"));
                slices.push(serde_json::from_value(object).unwrap());
            }
            Write::Patch { target, patch, .. } => {
                let slice = slices.iter_mut().find(|slice| slice.metadata.uid == target.uid).unwrap();
                slice.endpoints = serde_json::from_value(patch["endpoints"].clone()).unwrap();
                slice.ports = serde_json::from_value(patch["ports"].clone()).unwrap();
            }
            Write::Delete { target, .. } => slices.retain(|slice| slice.metadata.uid != target.uid),
            other => panic!("{other:?}"),
        }
    }
}

fn planned(service: &Service, pods: &[Pod], slices: &[EndpointSlice]) -> Plan {
    let node = node();
    slices::plan(service, &pods.iter().collect::<Vec<_>>(), &slices.iter().collect::<Vec<_>>(), &|_| Some(&node))
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let service = service(json!({}));
    let (mut slices, mut serial) = (Vec::new(), 0);
    apply(&planned(&service, &[], &slices), &mut slices, &mut serial);
    assert_eq!((slices.len(), slices[0].endpoints.len()), (1, 0));
    assert_eq!(slices[0].metadata.labels["team"], "t");
    assert_eq!(planned(&service, &[], &slices).writes, []);
    // The first pod moves in, and out again.
    let pods = [pod("a 10.0.0.1 ready")];
    apply(&planned(&service, &pods, &slices), &mut slices, &mut serial);
    assert_eq!((slices.len(), slices[0].endpoints.len(), slices[0].ports.len()), (1, 1, 1));
    apply(&planned(&service, &[], &slices), &mut slices, &mut serial);
    assert_eq!((slices.len(), slices[0].endpoints.len()), (1, 0));
}

proptest! {
    /// Whatever comes and goes: every pod is in one slice, none is too long, and a second look finds nothing to do.
    #[test]
    fn slices_hold_each_pod_once(steps in prop::collection::vec(prop::collection::btree_set(0_u8..=255, 0..250), 1..5)) {
        let service = service(json!({}));
        let (mut slices, mut serial) = (Vec::new(), 0);
        for step in steps {
            let pods: Vec<Pod> = step.iter().map(|number| pod(&format!("p{number} 10.0.0.{number} ready"))).collect();
            apply(&planned(&service, &pods, &slices), &mut slices, &mut serial);
            let mut held: Vec<&str> = slices.iter().flat_map(|slice| &slice.endpoints).map(|one| one.addresses[0].as_str()).collect();
            held.sort_unstable();
            let mut wanted: Vec<String> = step.iter().map(|number| format!("10.0.0.{number}")).collect();
            wanted.sort_unstable();
            prop_assert_eq!(held, wanted);
            prop_assert!(slices.iter().all(|slice| slice.endpoints.len() <= packing::ENDPOINTS_MAX));
            prop_assert!(slices.len() <= step.len() / packing::ENDPOINTS_MAX + 3);
            prop_assert_eq!(planned(&service, &pods, &slices).writes, vec![]);
        }
    }
}

fn legacy_of(plan: &Plan) -> Option<Value> {
    plan.writes.first().map(|write| match write {
        Write::Create { object, .. } => object.clone(),
        Write::Patch { patch, .. } => patch.clone(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn the_older_form_holds_all_of_them() {
    let service = service(json!({"clusterIP": "None"}));
    let pods = [pod("a 10.0.0.2 ready"), pod("b 10.0.0.1")];
    let node = node();
    let plan = |existing: Option<&Endpoints>| {
        legacy::plan(&service, &pods.iter().collect::<Vec<_>>(), existing, &|_| Some(&node))
    };
    let made = legacy_of(&plan(None)).unwrap();
    let subset = &made["subsets"][0];
    assert_eq!(
        (&subset["addresses"][0]["ip"], &subset["notReadyAddresses"][0]["ip"]),
        (&json!("10.0.0.2"), &json!("10.0.0.1"))
    );
    assert_eq!(subset["addresses"][0]["targetRef"], json!({"kind": "Pod", "namespace": "x", "name": "a", "uid": "a"}));
    let labels = json!({"team": "t", legacy::MANAGED_BY: legacy::CONTROLLER, HEADLESS: ""});
    assert_eq!(made["metadata"]["labels"], labels);
    let existing: Endpoints = serde_json::from_value(made).unwrap();
    assert_eq!(legacy_of(&plan(Some(&existing))), None);
    assert!(matches!(legacy::without_service(&existing).writes[..], [Write::Delete { .. }]));
    assert_eq!(legacy::without_service(&Endpoints::default()).writes, []);
}

#[test]
fn what_a_user_wrote_is_mirrored() {
    let endpoints = |labels: Value| -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "x", "uid": "e", "labels": labels},
            "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "notReadyAddresses": [{"ip": "1.2.3.5"}], "ports": [{"name": "h", "port": 80}]}],
        }))
        .unwrap()
    };
    let bare = service(json!({"selector": {}}));
    let made = mirroring::plan(&endpoints(json!({})), Some(&bare), &[]);
    let Write::Create { object, .. } = &made.writes[0] else { panic!("{made:?}") };
    assert_eq!(object["metadata"]["labels"], json!({SERVICE_NAME: "web", MANAGED_BY: mirroring::CONTROLLER}));
    assert_eq!(object["endpoints"][1], json!({"addresses": ["1.2.3.5"], "conditions": {"ready": false}}));
    let slice: EndpointSlice = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(mirroring::plan(&endpoints(json!({})), Some(&bare), &[&slice]).writes, []);
    for (labels, service) in [
        (json!({"endpointslice.kubernetes.io/skip-mirror": "true"}), Some(&bare)),
        (json!({}), Some(&self::service(json!({})))),
        (json!({}), None),
    ] {
        assert_eq!(mirroring::plan(&endpoints(labels.clone()), service, &[]).writes, [], "{labels}");
        assert!(matches!(mirroring::plan(&endpoints(labels), service, &[&slice]).writes[..], [Write::Delete { .. }]));
    }
}
