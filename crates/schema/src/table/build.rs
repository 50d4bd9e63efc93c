//! Expands the rows into [`Kind`]s.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rows::{FIELD_LABELS, NEW_EVENT_LABELS, ROWS, Row};
use super::{Column, Flags, Gvk, Kind, Subresource, Table, Verb, measured, own};
use crate::facts::load;

/// The built-in table. Panics when a row has no type: a test builds it.
pub(super) fn builtin() -> Table {
    let mut types = load::builtin_types();
    let mut own_prose = own::add_types(&mut types);
    own_prose.extend(measured::add_types(&mut types));
    let by_gvk: BTreeMap<Gvk, _> =
        types.iter().flat_map(|ty| ty.get().gvks.iter().map(move |gvk| (gvk.clone(), ty.id))).collect();
    let types = Arc::new(types);
    let kinds: Vec<Arc<Kind>> = ROWS
        .iter()
        .map(|row| {
            let gvk = Gvk::new(row.group, row.version, row.kind);
            let root = *by_gvk.get(&gvk).unwrap_or_else(|| panic!("row {gvk:?} has no type among the facts"));
            Arc::new(kind(row, types.clone(), root))
        })
        .collect();
    let resource = |kind: &Arc<Kind>| format!("{}/{}/{}", kind.group, kind.version, kind.plural);
    let by_resource = kinds.iter().enumerate().map(|(at, kind)| (resource(kind), at)).collect();
    let by_kind = kinds.iter().enumerate().map(|(at, kind)| (kind.gvk(), at)).collect();
    Table { kinds, by_resource, by_kind, by_gvk: Arc::new(by_gvk), types, own_prose: Arc::new(own_prose) }
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn kind(row: &Row, types: Arc<crate::TypeSet>, root: crate::TypeId) -> Kind {
    let (scope, flags) = row.scope.split_once(' ').unwrap_or((row.scope, ""));
    Kind {
        group: row.group.into(),
        version: row.version.into(),
        plural: row.plural.into(),
        singular: row.kind.to_ascii_lowercase(),
        kind: row.kind.into(),
        namespaced: scope == "N",
        short_names: words(row.short),
        categories: words(row.categories),
        verbs: verbs(if row.verbs.is_empty() { "cdDglpuw" } else { row.verbs }),
        subresources: words(row.subresources).into_iter().map(|name| subresource(row, name)).collect(),
        flags: Flags {
            create_on_update: flags.contains('C'),
            unconditional_update: flags.contains('U'),
            generation: flags.contains('G'),
            returns_deleted: flags.contains('R'),
            orphan_by_default: flags.contains('O'),
        },
        columns: row.columns.split('|').filter(|column| !column.is_empty()).map(column).collect(),
        field_labels: field_labels(row),
        custom: None,
        types,
        root,
    }
}

fn verbs(letters: &str) -> Vec<Verb> {
    let verb = |letter| match letter {
        'c' => Verb::Create,
        'd' => Verb::Delete,
        'D' => Verb::DeleteCollection,
        'g' => Verb::Get,
        'l' => Verb::List,
        'p' => Verb::Patch,
        'u' => Verb::Update,
        _ => Verb::Watch,
    };
    letters.chars().map(verb).collect()
}

fn column(text: &str) -> Column {
    let (name, priority) = match text.strip_prefix('<') {
        Some(name) => (name, 1),
        None => (text, 0),
    };
    let kind = match name.chars().last() {
        Some('#') => "integer",
        Some('?') => "boolean",
        _ => "string",
    };
    Column { name: name.trim_end_matches(['#', '?']).into(), kind, priority }
}

fn subresource(row: &Row, name: String) -> Subresource {
    let options = |suffix: &str| Gvk::new("", "v1", &format!("{}{suffix}Options", row.kind));
    let (gvk, letters) = match name.as_str() {
        "scale" => (Gvk::new("autoscaling", "v1", "Scale"), "gpu"),
        "binding" => (Gvk::new("", "v1", "Binding"), "c"),
        "eviction" => (Gvk::new("policy", "v1", "Eviction"), "c"),
        "token" => (Gvk::new("authentication.k8s.io", "v1", "TokenRequest"), "c"),
        "attach" => (options("Attach"), "cg"),
        "exec" => (options("Exec"), "cg"),
        "portforward" => (options("PortForward"), "cg"),
        "proxy" => (options("Proxy"), "cdgpu"),
        "log" => (Gvk::new(row.group, row.version, row.kind), "g"),
        "finalize" => (Gvk::new(row.group, row.version, row.kind), "u"),
        _ => (Gvk::new(row.group, row.version, row.kind), "gpu"),
    };
    Subresource { name, gvk, verbs: verbs(letters) }
}

fn field_labels(row: &Row) -> Vec<String> {
    let labels = FIELD_LABELS.iter().filter(|(plural, _)| *plural == row.plural).flat_map(|(_, labels)| words(labels));
    let extra = if row.group == "events.k8s.io" { NEW_EVENT_LABELS } else { "" };
    labels.chain(words(extra)).collect()
}
