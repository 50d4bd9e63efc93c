//! pods/eviction: a deletion that asks the pod's disruption budget first (facts, section 1.14).

use isopod_planner::admission::Operation;
use isopod_planner::disruption::{Cost, Refusal, evict};
use isopod_schema::selector::LabelSelector;
use isopod_schema::{Reason, Status};
use isopod_store::{Entry, Expect, ListQuery, Outcome, Write};
use isopod_types::disruption::PodDisruptionBudget;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::admission::Asked;
use crate::codec;
use crate::context::{Context, commit};
use crate::deletion::Options;
use crate::edit::Part;
use crate::ownership::{self, Claim};
use crate::respond::{self, Response};
use crate::strategy::{self, text};
use crate::subresource::{delete_named, demand_name};

/// Seconds after which a refused eviction may be tried again.
const RETRY_SECONDS: u32 = 10;
/// Condition of pods that go for no fault of their own.
const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// How often a budget that others write at the same time is tried.
const TRIES: usize = 20;

pub(crate) async fn answer(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    let eviction = context.decode_other("policy/v1", "Eviction", body)?;
    let asked = Asked::new(context, Operation::Create, &eviction, None, options(context, &eviction)?.dry_run);
    let eviction = asked.mutate_body(eviction).await?;
    demand_name(context, &eviction)?;
    asked.consult(&eviction).await?;
    let options = options(context, &eviction)?;
    let pod = codec::decode(&context.entry(&context.info.name)?.value)?;
    if needs_budget(&pod) {
        spend(context, &pod, options.dry_run).await?;
    }
    if !options.dry_run && !strategy::is_deleting(&pod) {
        mark(context).await?;
    }
    delete_named(context, &options).await?;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::document(201, &success, &context.shape.output))
}

/// How the pod is to be deleted; a dry run may be asked for in the body and in the query.
fn options(context: &Context<'_>, eviction: &Value) -> Result<Options, Status> {
    let mut options = Options::parse(eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
    options.dry_run |= crate::context::dry_run(context.query.all("dryRun"))?;
    Ok(options)
}

/// Pods that do not run disturb nobody by going.
fn needs_budget(pod: &Value) -> bool {
    !strategy::is_deleting(pod) && !matches!(text(pod, &["status", "phase"]), "Pending" | "Succeeded" | "Failed")
}

async fn spend(context: &Context<'_>, pod: &Value, dry_run: bool) -> Result<(), Status> {
    // The controller writes the budget too: who comes second looks again.
    for _ in 0..TRIES {
        let budgets = budgets(context, pod)?;
        let (entry, budget) = match budgets.as_slice() {
            [] => return Ok(()),
            [one] => one,
            _ => {
                let text =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::internal(text));
            }
        };
        let view = PodDisruptionBudget::deserialize(budget).map_err(Status::internal)?;
        let cost = evict(&view, is_ready(pod)).map_err(refused)?;
        if cost == Cost::Nothing || dry_run || spend_one(context, entry, budget, &view).await? {
            return Ok(());
        }
    }
    Err(refused(Refusal::Now("The disruption budget is being written by others".into())))
}

/// Says on the pod why it goes, for whoever counts its failures, such as a Job.
async fn mark(context: &Context<'_>) -> Result<(), Status> {
    for _ in 0..TRIES {
        let entry = context.entry(&context.info.name)?;
        let old = codec::decode(&entry.value)?;
        let mut pod = old.clone();
        let condition = json!({
            "type": DISRUPTION_TARGET, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
            "lastTransitionTime": strategy::time_text(context.now),
        });
        let others = pod["status"]["conditions"].as_array().into_iter().flatten();
        let others = others.filter(|other| other["type"] != DISRUPTION_TARGET).cloned();
        pod["status"]["conditions"] = others.chain([condition]).collect();
        if write_status(context, &entry, &old, pod).await? {
            return Ok(());
        }
    }
    Err(Status::server_timeout(context.kind, "update"))
}

/// Writes the status of an object that the server changes itself; returns whether nobody wrote it meanwhile.
async fn write_status(context: &Context<'_>, entry: &Entry, old: &Value, mut new: Value) -> Result<bool, Status> {
    let mut own = Context::internal(&context.server, old)?;
    own.info.subresource = "status".into();
    ownership::settle(&own, Part::Status, old, &mut new, Claim::ByChange(Value::Null))?;
    let write = Write::put(entry.key.clone(), Expect::Revision(entry.mod_revision), codec::encode(&new));
    Ok(matches!(commit(&context.server, write).await?, Outcome::Committed(_)))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Now(why) => {
            let text = "Cannot evict pod as it would violate the pod's disruption budget.";
            Status::new(Reason::TooManyRequests, text)
                .with_cause("DisruptionBudget", &why, "")
                .retry_after(RETRY_SECONDS)
        }
        Refusal::Trouble(why) => Status::new(Reason::Forbidden, why),
    }
}

/// Takes one of the disruptions and notes the pod; returns whether nobody wrote the budget meanwhile.
async fn spend_one(
    context: &Context<'_>,
    entry: &Entry,
    budget: &Value,
    view: &PodDisruptionBudget,
) -> Result<bool, Status> {
    let mut spent = budget.clone();
    spent["status"]["disruptionsAllowed"] = (view.status.disruptions_allowed - 1).into();
    spent["status"]["disruptedPods"][context.info.name.as_str()] = strategy::time_text(context.now).into();
    write_status(context, entry, budget, spent).await
}

fn budgets(context: &Context<'_>, pod: &Value) -> Result<Vec<(Arc<Entry>, Value)>, Status> {
    let prefix = format!("poddisruptionbudgets.policy/{}/", context.namespace());
    let list = context.server.store.list(&ListQuery { prefix, ..ListQuery::default() }).map_err(Status::internal)?;
    let mut found = Vec::new();
    for entry in list.entries {
        let budget = codec::decode(&entry.value)?;
        if LabelSelector::from_value(&budget["spec"]["selector"]).is_ok_and(|selector| selector.matches_object(pod)) {
            found.push((entry, budget));
        }
    }
    Ok(found)
}
