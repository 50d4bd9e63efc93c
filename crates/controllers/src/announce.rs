//! What is said about pods and Jobs that an owner made or could not make. Says it to nobody by itself.

use isopod_planner::{Reason, Target};
use isopod_types::Key;
use serde_json::Value;

/// Kinds of owners: group, version, kind, plural, and who speaks for them.
const OWNERS: &[(&str, &str, &str, &str, &str)] = &[
    ("apps", "v1", "ReplicaSet", "replicasets", "replicaset-controller"),
    ("", "v1", "ReplicationController", "replicationcontrollers", "replication-controller"),
    ("apps", "v1", STATEFUL, "statefulsets", "statefulset-controller"),
    ("apps", "v1", "DaemonSet", "daemonsets", "daemonset-controller"),
    ("batch", "v1", "Job", "jobs", "job-controller"),
    ("batch", "v1", CRON, "cronjobs", "cronjob-controller"),
];
/// The kind that makes Jobs.
const CRON: &str = "CronJob";
/// The kind whose pods have names of their own, and whose events are worded in its own way.
const STATEFUL: &str = "StatefulSet";

/// An event about an owner.
#[derive(Debug)]
pub(crate) struct Announcement {
    /// The owner.
    pub(crate) about: Target,
    /// Who says it.
    pub(crate) component: &'static str,
    /// What.
    pub(crate) reason: Reason,
}

/// The controlling owner of an object that is to be created, and the name of its controller.
fn owner(target: &Target, pod: &Value) -> Option<(Target, &'static str)> {
    if !matches!(target.kind, "Pod" | "Job") {
        return None;
    }
    let owner = pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)?;
    let (group, version, kind, plural, component) = *OWNERS.iter().find(|known| owner["kind"] == known.2)?;
    let text = |field: &str| owner[field].as_str().map(str::to_owned);
    let key = Key::new(&*target.key.namespace, text("name")?);
    let about = Target { group, version, kind, plural, key, uid: text("uid")?, resource_version: String::new() };
    Some((about, component))
}

/// An object was made; this is how the API answered.
pub(crate) fn created(target: &Target, pod: &Value, answer: &Value) -> Option<Announcement> {
    let (about, component) = owner(target, pod)?;
    let name = answer["metadata"]["name"].as_str().unwrap_or_default();
    let text = match about.kind {
        STATEFUL => format!("create Pod {name} in StatefulSet {} successful", about.key.name),
        CRON => format!("Created job {name}"),
        _ => format!("Created pod: {name}"),
    };
    Some(Announcement { about, component, reason: Reason::normal("SuccessfulCreate", text) })
}

/// An object was refused, with these words.
pub(crate) fn refused(target: &Target, pod: &Value, words: &str) -> Option<Announcement> {
    let (about, component) = owner(target, pod)?;
    let text = match about.kind {
        STATEFUL => {
            format!("create Pod {} in StatefulSet {} failed error: {words}", target.key.name, about.key.name)
        }
        CRON => format!("Error creating job: {words}"),
        _ => format!("Error creating: {words}"),
    };
    Some(Announcement { about, component, reason: Reason::warning("FailedCreate", text) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::pod::Pod;
    use serde_json::json;

    fn check(kind: &str, expected: Option<[&str; 3]>) {
        let owners = json!([{"kind": kind, "name": "o", "uid": "u", "controller": true}]);
        let pod = json!({"metadata": {"ownerReferences": owners}});
        let target = Target::named::<Pod>(Key::new("x", "o-0"));
        let made = created(&target, &pod, &json!({"metadata": {"name": "o-0"}}));
        let not_made = refused(&target, &pod, "no");
        let found = made.zip(not_made).map(|(made, not_made)| {
            assert_eq!((made.about.key.to_string().as_str(), made.about.uid.as_str()), ("x/o", "u"));
            [made.component.to_owned(), made.reason.message, not_made.reason.message]
        });
        assert_eq!(found, expected.map(|texts| texts.map(str::to_owned)), "{kind}");
    }

    #[test]
    fn owners_hear_of_their_pods() {
        check("Job", Some(["job-controller", "Created pod: o-0", "Error creating: no"]));
        check(
            "StatefulSet",
            Some([
                "statefulset-controller",
                "create Pod o-0 in StatefulSet o successful",
                "create Pod o-0 in StatefulSet o failed error: no",
            ]),
        );
        check("CronJob", Some(["cronjob-controller", "Created job o-0", "Error creating job: no"]));
        check("Tab", None);
    }
}
