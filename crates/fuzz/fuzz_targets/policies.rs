//! Any text as the expressions of admission policies and match conditions, and any bytes as a webhook's answer: they are
//! refused or evaluated, and no evaluation panics.
#![no_main]

use isopod_schema::admission::{Objects, Policy, Request, Webhook};
use isopod_schema::{Table, patch, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const GROUP: &str = "admissionregistration.k8s.io";

fn validating(text: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]},
            "variables": [{"name": "v", "expression": text}], "matchConditions": [{"name": "m", "expression": text}],
            "validations": [{"expression": text, "messageExpression": text}, {"expression": "true"}],
            "auditAnnotations": [{"key": "k", "valueExpression": text}],
        },
    })
}

fn mutating(text: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]},
            "reinvocationPolicy": "Never",
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression": text}},
            ],
        },
    })
}

fn hooks(text: &str) -> Value {
    json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "h.example.com", "clientConfig": {"url": text, "caBundle": text}, "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "matchConditions": [{"name": "m", "expression": text}],
    }]})
}

fuzz_target!(|input: (&str, &[u8])| {
    let (text, answer) = input;
    let table = Table::builtin();
    let pods = table.resource("", "v1", "pods").expect("pods");
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]},
    });
    let (namespace, user) = (json!({"metadata": {"name": "n"}}), json!({"username": "u", "groups": ["g"]}));
    let request = Request {
        operation: "CREATE",
        kinds: vec![pods],
        subresource: "",
        sent: None,
        namespace: "n",
        name: "p",
        user: &user,
        dry_run: false,
        uid: "u",
    };
    let objects = Objects { object: &object, old: &Value::Null, namespace: &namespace };
    for (plural, policy) in
        [("validatingadmissionpolicies", validating(text)), ("mutatingadmissionpolicies", mutating(text))]
    {
        // Also what is refused when it is written may be in the store.
        table.resource(GROUP, "v1", plural).into_iter().for_each(|kind| drop(validate::create(kind, &policy)));
        let policy = Policy::read(&policy);
        drop(policy.opinion(&request, pods, &objects, &Value::Null));
        drop(policy.mutated(&request, (pods, Some(pods.root())), &objects, &Value::Null));
    }
    for hook in Webhook::read_all(&hooks(text)) {
        drop(hook.wants(&request, pods, &objects));
        let Ok(answer) = hook.read_answer(answer, "u", true) else { continue };
        if let Some(change) = answer.patch {
            drop(patch::json_patch(&object, &change));
        }
    }
});
