//! Any text wherever an object has text of a form: quantities, schedules, time zones, addresses, names, references to
//! variables, image names. What is read can be written and read again; what a clock is asked comes after now.
#![no_main]

use std::collections::BTreeMap;

use isopod_planner::cron::{self, Schedule};
use isopod_planner::environment;
use isopod_schema::{Table, quantity, tables, validate};
use isopod_types::Quantity;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// Objects with a text in places that validation reads: group, version, plural, spec.
fn objects(text: &str) -> [(&'static str, &'static str, Value); 9] {
    let container = json!({
        "name": "c", "image": text, "ports": [{"containerPort": 1, "name": text, "hostIP": text}],
        "env": [{"name": text, "value": text}], "resources": {"limits": {"cpu": text}},
        "volumeMounts": [{"name": "v", "mountPath": text, "subPath": text}],
    });
    let pod = json!({
        "containers": [container], "hostname": text, "nodeSelector": {text: text}, "dnsConfig": {"nameservers": [text]},
        "tolerations": [{"key": text, "operator": "Exists"}], "securityContext": {"sysctls": [{"name": text, "value": text}]},
        "hostAliases": [{"ip": text, "hostnames": [text]}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": text}}],
    });
    [
        ("", "pods", pod),
        ("batch", "cronjobs", json!({"schedule": text, "timeZone": text})),
        (
            "",
            "services",
            json!({"clusterIP": text, "externalIPs": [text], "loadBalancerSourceRanges": [text], "ports": [{"port": 1, "targetPort": text}]}),
        ),
        (
            "networking.k8s.io",
            "networkpolicies",
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": text, "except": [text]}}]}]}),
        ),
        ("networking.k8s.io", "servicecidrs", json!({"cidrs": [text]})),
        (
            "networking.k8s.io",
            "ingresses",
            json!({"rules": [{"host": text, "http": {"paths": [{"path": text, "pathType": "Prefix"}]}}]}),
        ),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            json!({"request": text, "signerName": text, "usages": [text]}),
        ),
        (
            "resource.k8s.io",
            "resourceclaims",
            json!({"devices": {"requests": [{"name": text, "exactly": {"deviceClassName": text}}]}}),
        ),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", json!({"type": text})),
    ]
}

fn times(text: &str) {
    let Ok(schedule) = Schedule::parse(text) else { return };
    let mut now = Timestamp::UNIX_EPOCH;
    for _ in 0..4 {
        let Some(next) = schedule.after(now, &TimeZone::UTC) else { return };
        assert!(next > now, "{text}: {next} after {now}");
        now = next;
    }
}

fuzz_target!(|text: &str| {
    if let Some(canonical) = quantity::canonical(text) {
        assert_eq!(quantity::canonical(&canonical).as_ref(), Some(&canonical), "{text}");
    }
    if let Ok(quantity) = text.parse::<Quantity>() {
        assert_eq!(quantity.to_string().parse::<Quantity>().as_ref(), Ok(&quantity), "{text}");
    }
    times(text);
    cron::time_zone(text);
    tables::include_from(text);
    environment::expand(text, &BTreeMap::from([("A".to_owned(), "$(A)".to_owned())]));
    for (group, plural, spec) in objects(text) {
        let version = "v1";
        let Some(kind) = Table::builtin().resource(group, version, plural) else { continue };
        drop(validate::create(
            kind,
            &json!({
                "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": text, "labels": {text: text}}, "spec": spec,
            }),
        ));
    }
});
