//! Admission: what the cluster adds to a request and whether it lets it pass (facts, section 1.17). Decisions about
//! pods are `isopod_planner`'s; here their inputs are read from the store.

use std::collections::BTreeMap;

use bytes::Bytes;
use isopod_planner::admission::{self as planner, Inputs, PriorityClass};
use isopod_schema::{Reason, Status, Table, names};
use isopod_store::ListQuery;
use isopod_types::own::{Cluster, FargateProfile};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::Context;
use crate::create::random;
use crate::strategy::{meta, text};
use crate::{codec, escalation};

/// Admits a new object, or refuses it.
///
/// # Errors
/// 403, 404.
pub(crate) fn create(context: &Context<'_>, object: &mut Value) -> Result<(), Status> {
    is_carried_out(context, object)?;
    if let Some(custom) = &context.kind.custom
        && context.server.served().terminating.contains(&custom.definition)
    {
        let text = "create not allowed while custom resource definition is terminating";
        return Err(Status::new(Reason::MethodNotAllowed, text));
    }
    namespace_is_open(context, object)?;
    escalation::check(context, object)?;
    if context.kind.is("", "pods") { admit_pod(context, object) } else { Ok(()) }
}

/// Admits a changed object, or refuses it.
///
/// # Errors
/// 403.
pub(crate) fn update(context: &Context<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    if new["rules"] != old["rules"] || new["subjects"] != old["subjects"] {
        escalation::check(context, new)?;
    }
    Ok(())
}

/// Kinds that would be accepted and then not do what they are for.
const NOT_SERVED: [&str; 7] = [
    "apiservices.apiregistration.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
];
const NOT_ENFORCED: [&str; 2] = ["limitranges", "resourcequotas"];

/// What extends or guards the API must not be taken for effective when it is not.
fn is_carried_out(context: &Context<'_>, object: &Value) -> Result<(), Status> {
    let resource = context.kind.resource_text();
    if NOT_SERVED.contains(&resource.as_str()) {
        let why = format!("this server does not carry out {resource} yet; it would be stored without any effect");
        return Err(Status::forbidden(context.kind, meta(object, "name"), &why));
    }
    if NOT_ENFORCED.contains(&resource.as_str()) {
        context.warn(format!("{resource} are stored but not enforced by this server yet"));
    }
    Ok(())
}

/// Nothing is created in a namespace that does not exist or is going away.
fn namespace_is_open(context: &Context<'_>, object: &Value) -> Result<(), Status> {
    let namespace = context.namespace();
    if namespace.is_empty() {
        return Ok(());
    }
    let Some(entry) = context.server.store.get(&format!("namespaces/{namespace}")) else {
        let namespaces = Table::builtin().resource("", "v1", "namespaces").unwrap_or(context.kind);
        return Err(Status::not_found(namespaces, namespace));
    };
    let is_terminating =
        |bytes: &Bytes| codec::decode(bytes).is_ok_and(|found| text(&found, &["status", "phase"]) == "Terminating");
    if !codec::derived(&entry).terminating.get_or_init(|| is_terminating(&entry.value)) {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let cause = format!("namespace {namespace} is being terminated");
    Err(Status::forbidden(context.kind, meta(object, "name"), &why).with_cause(
        "NamespaceTerminating",
        &cause,
        "metadata.namespace",
    ))
}

fn admit_pod(context: &Context<'_>, pod: &mut Value) -> Result<(), Status> {
    let namespace = context.namespace();
    let account = planner::service_account_name(pod);
    let account = context.server.store.get(&format!("serviceaccounts/{namespace}/{account}"));
    let account = account.map(|entry| codec::decode(&entry.value)).transpose()?;
    let cluster = own::<Cluster>(context, "clusters").into_iter().next().unwrap_or_default();
    let inputs = Inputs {
        namespace,
        service_account: account.as_ref(),
        priority_classes: priority_classes(context)?,
        profiles: &own::<FargateProfile>(context, "fargateprofiles"),
        fargate: cluster.spec.fargate,
        volume_suffix: &names::suffix(random()),
    };
    let name = meta(pod, "name").to_owned();
    planner::pod_create(pod, &inputs).map_err(|denied| Status::forbidden(context.kind, &name, &denied.message))
}

fn objects(context: &Context<'_>, resource: &str) -> Result<Vec<Value>, Status> {
    let query = ListQuery { prefix: format!("{resource}/"), ..ListQuery::default() };
    let list = context.server.store.list(&query).map_err(Status::internal)?;
    list.entries.iter().map(|entry| codec::decode(&entry.value)).collect()
}

/// Objects of one of our own kinds. One that does not parse is skipped and logged: it must not stop all pods.
fn own<T: DeserializeOwned>(context: &Context<'_>, plural: &str) -> Vec<T> {
    let objects = objects(context, &format!("{plural}.isopod.dev")).unwrap_or_default();
    let parse = |object: Value| {
        serde_json::from_value(object).map_err(|error| tracing::warn!(plural, %error, "an object does not parse")).ok()
    };
    objects.into_iter().filter_map(parse).collect()
}

fn priority_classes(context: &Context<'_>) -> Result<BTreeMap<String, PriorityClass>, Status> {
    let classes = objects(context, "priorityclasses.scheduling.k8s.io")?;
    let class = |object: &Value| {
        let policy = text(object, &["preemptionPolicy"]);
        let class = PriorityClass {
            value: object["value"].as_i64().unwrap_or(0),
            global_default: object["globalDefault"] == true,
            preemption_policy: if policy.is_empty() { "PreemptLowerPriority".into() } else { policy.into() },
        };
        (meta(object, "name").to_owned(), class)
    };
    Ok(classes.iter().map(class).collect())
}
