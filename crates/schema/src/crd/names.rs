//! Names of definitions: which are accepted, and what the conditions say about it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::is_terminating;
use crate::table::Table;
use crate::walk;

/// Every name that is taken in a group.
#[derive(Debug, Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn add(&mut self, names: &Value) {
        let text = |field: &str| names.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        self.resources.extend(["plural", "singular"].into_iter().filter_map(text).map(str::to_owned));
        self.resources.extend(walk::items(names, &["shortNames"]).iter().filter_map(Value::as_str).map(str::to_owned));
        self.kinds.extend(["kind", "listKind"].into_iter().filter_map(text).map(str::to_owned));
    }

    fn add_builtin(&mut self, group: &str) {
        for kind in Table::builtin().kinds().filter(|kind| kind.group == group) {
            self.resources.extend([kind.plural.clone(), kind.singular.clone()]);
            self.resources.extend(kind.short_names.iter().cloned());
            self.kinds.extend([kind.kind.clone(), kind.list_kind()]);
        }
    }
}

/// The definition may be served.
pub fn is_established(definition: &Value) -> bool {
    condition(definition, "Established").is_some_and(|condition| condition["status"] == "True")
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    walk::items(definition, &["status", "conditions"]).iter().find(|condition| condition["type"] == kind)
}

/// The definition with the status it should have while others of its group have these accepted names; `now` is a time as
/// Kubernetes writes them.
pub fn decided<'a>(definition: &Value, others: impl Iterator<Item = &'a Value>, now: &str) -> Value {
    let group = walk::text(definition, &["spec", "group"]);
    let mut taken = Taken::default();
    taken.add_builtin(group);
    others.for_each(|names| taken.add(names));
    let (accepted, conflict) = accept(definition, &taken);
    let mut decided = definition.clone();
    if !decided["status"].is_object() {
        decided["status"] = json!({});
    }
    decided["status"]["acceptedNames"] = accepted.into();
    match &conflict {
        None => {
            set(&mut decided, ("NamesAccepted", "True", "NoConflicts", "no conflicts found"), now);
            set(
                &mut decided,
                ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
                now,
            );
        }
        Some((reason, message)) => {
            set(&mut decided, ("NamesAccepted", "False", reason, message), now);
            if !is_established(definition) {
                set(&mut decided, ("Established", "False", "NotAccepted", "not all names are accepted"), now);
            }
        }
    }
    if let Some((status, reason, message)) = approval(definition) {
        set(&mut decided, ("KubernetesAPIApprovalPolicyConformant", status, reason, &message), now);
    }
    if is_terminating(definition) {
        let text = "CustomResource deletion is in progress";
        set(&mut decided, ("Terminating", "True", "InstanceDeletionInProgress", text), now);
    }
    decided
}

/// Groups of Kubernetes' own domains say where they were approved, or that they were not.
fn approval(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    if !is_protected(walk::text(definition, &["spec", "group"])) {
        return None;
    }
    let text = walk::text(definition, &["metadata", "annotations", APPROVAL]);
    Some(match text {
        url if url.starts_with("https://") => ("True", "ApprovedAnnotation", format!("approved in {url}")),
        text if text.starts_with("unapproved") => ("False", "UnapprovedAnnotation", format!("not approved: {text:?}")),
        text => ("False", "InvalidAnnotation", format!("protected groups must have an approval URL, not {text:?}")),
    })
}

/// Annotation of definitions in protected groups.
pub(super) const APPROVAL: &str = "api-approved.kubernetes.io";

/// The group is in a domain that is Kubernetes' own.
pub(super) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// Sets a condition: type, status, reason, message. Its time is kept while its status is.
pub fn set(definition: &mut Value, (kind, status, reason, message): (&str, &str, &str, &str), now: &str) {
    let before = condition(definition, kind);
    let since =
        before.filter(|before| before["status"] == status).and_then(|before| before["lastTransitionTime"].as_str());
    let condition = json!({
        "type": kind, "status": status, "lastTransitionTime": since.unwrap_or(now), "reason": reason, "message": message,
    });
    let mut conditions: Vec<Value> = walk::items(definition, &["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
    definition["status"]["conditions"] = conditions.into();
}

/// Accepted names and, when some are another's, the first reason why.
fn accept(definition: &Value, taken: &Taken) -> (Map<String, Value>, Option<(&'static str, String)>) {
    let asked = &definition["spec"]["names"];
    let mut accepted = definition["status"]["acceptedNames"].as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    let mut judge = |accepted: &mut Map<String, Value>,
                     field: &str,
                     reason: &'static str,
                     names: &[&str],
                     of: &BTreeSet<String>| {
        match names.iter().find(|name| of.contains(**name)) {
            Some(name) => conflict = conflict.take().or(Some((reason, format!("{name:?} is already in use")))),
            None => match asked.get(field) {
                Some(value) => drop(accepted.insert(field.to_owned(), value.clone())),
                None => drop(accepted.shift_remove(field)),
            },
        }
    };
    let text = |field: &str| walk::text(asked, &[field]);
    let short: Vec<&str> = walk::items(asked, &["shortNames"]).iter().filter_map(Value::as_str).collect();
    judge(&mut accepted, "plural", "PluralConflict", &[text("plural")], &taken.resources);
    judge(&mut accepted, "singular", "SingularConflict", &[text("singular")], &taken.resources);
    judge(&mut accepted, "shortNames", "ShortNamesConflict", &short, &taken.resources);
    judge(&mut accepted, "kind", "KindConflict", &[text("kind")], &taken.kinds);
    judge(&mut accepted, "listKind", "ListKindConflict", &[text("listKind")], &taken.kinds);
    judge(&mut accepted, "categories", "", &[], &taken.kinds);
    for field in ["plural", "kind"] {
        accepted.entry(field).or_insert_with(|| "".into());
    }
    (accepted, conflict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        let names = json!({
            "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
            "shortNames": short,
        });
        json!({"spec": {"group": "example.com", "names": names}})
    }

    #[test]
    fn conflicts_show_in_conditions() {
        let first = decided(&definition("crontabs", "CronTab", &["ct"]), [].into_iter(), "t0");
        let check = |plural: &str, kind: &str, short: &[&str], expected: &str| {
            let found =
                decided(&definition(plural, kind, short), [&first["status"]["acceptedNames"]].into_iter(), "t1");
            let conditions = walk::items(&found, &["status", "conditions"]).iter();
            let texts: Vec<String> = conditions
                .map(|condition| format!("{}={}/{}", condition["type"], condition["status"], condition["reason"]))
                .collect();
            let text = texts.join(" ").replace('"', "");
            let names = found["status"]["acceptedNames"]["plural"].as_str().unwrap_or_default();
            assert_eq!(format!("{names}: {text}"), expected);
        };
        let fine = "NamesAccepted=True/NoConflicts Established=True/InitialNamesAccepted";
        check("others", "Other", &["o"], &format!("others: {fine}"));
        let refused = |reason: &str| format!("NamesAccepted=False/{reason} Established=False/NotAccepted");
        check("crontabs", "Other", &[], &format!(": {}", refused("PluralConflict")));
        check("others", "CronTab", &[], &format!("others: {}", refused("SingularConflict")));
        check("others", "CronTabList", &[], &format!("others: {}", refused("KindConflict")));
        check("others", "Other", &["ct"], &format!("others: {}", refused("ShortNamesConflict")));
    }

    #[test]
    fn times_move_with_the_status_only() {
        let first = decided(&definition("crontabs", "CronTab", &[]), [].into_iter(), "t0");
        let again = decided(&first, [].into_iter(), "t1");
        assert_eq!(first, again);
        assert!(is_established(&again));
    }
}
