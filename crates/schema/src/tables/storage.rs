//! Cells of storage drivers and admission policies that need more than a path.

use serde_json::Value;

use super::cells::{Context, UNSET};
use crate::selector::LabelSelector;
use crate::walk;

/// `storage.k8s.io` and `admissionregistration.k8s.io`.
pub(super) fn cell(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "TokenRequests" => match context.value("spec.tokenRequests") {
            None => UNSET.into(),
            Some(_) => {
                let requests = context.items("spec.tokenRequests").iter();
                requests.map(|request| walk::text(request, &["audience"])).collect::<Vec<_>>().join(",").into()
            }
        },
        "ParamKind" => match context.text("spec.paramKind.kind") {
            "" => UNSET.into(),
            kind => format!("{}/{kind}", context.text("spec.paramKind.apiVersion")).into(),
        },
        "ParamRef" => parameter(context).into(),
        _ => return None,
    })
}

/// `namespace/name`; whether a parameter without a namespace has one is not known here.
fn parameter(context: &Context<'_>) -> String {
    match (context.text("spec.paramRef.namespace"), context.text("spec.paramRef.name")) {
        (_, "") => {
            let selector = context.value("spec.paramRef.selector").map(LabelSelector::from_value);
            selector.and_then(Result::ok).map_or_else(|| UNSET.into(), |selector| selector.to_string())
        }
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}
