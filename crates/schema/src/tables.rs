//! Objects as printed tables (`meta.k8s.io/v1 Table`), which is what kubectl shows.
//!
//! Every cell is computed here; ages are relative to the `now` argument.

pub mod age;
mod cells;
mod core;
mod custom;
mod network;
mod own;
mod pod;
mod rbac;
mod storage;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::partial;
use crate::table::Kind;
use crate::walk;

/// The heading of the column that names the object.
const NAME: &str = "Name";

/// How much of each object goes into its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// Choices for a table.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The time ages are relative to.
    pub now: Timestamp,
    /// What each row carries.
    pub include: IncludeObject,
    /// With column definitions (all but the later events of a watch).
    pub headers: bool,
}

/// A table of these objects. `metadata` of the result is empty; the caller puts the list's own there.
pub fn render<'a>(kind: &Kind, items: impl IntoIterator<Item = &'a Value>, options: &Options) -> Value {
    let rows: Vec<Value> = items.into_iter().map(|object| row(kind, object, options)).collect();
    let columns = if options.headers { columns(kind) } else { Value::Null };
    table(columns, rows)
}

/// A table of one `autoscaling/v1 Scale`, which is no kind of its own.
pub fn scale(scale: &Value, options: &Options) -> Value {
    let number = |path: &[&str]| walk::at(scale, path).and_then(Value::as_i64).unwrap_or_default();
    let created = walk::text(scale, &["metadata", "creationTimestamp"]);
    let mut row = json!({"cells": [
        walk::text(scale, &["metadata", "name"]),
        number(&["spec", "replicas"]),
        number(&["status", "replicas"]),
        age::since(created, options.now),
    ]});
    include(&mut row, scale, options);
    let columns = [("Name", "string"), ("Desired", "integer"), ("Available", "integer"), ("Age", "string")];
    let columns: Value = columns.iter().map(|(name, kind)| definition(name, kind, "", 0)).collect();
    table(columns, vec![row])
}

fn table(columns: Value, rows: Vec<Value>) -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows})
}

/// Reads the `includeObject` query parameter; none when it is not one of its values.
pub fn include_from(parameter: &str) -> Option<IncludeObject> {
    match parameter {
        "" | "Metadata" => Some(IncludeObject::Metadata),
        "None" => Some(IncludeObject::None),
        "Object" => Some(IncludeObject::Object),
        _ => None,
    }
}

fn definition(name: &str, kind: &str, format: &str, priority: i32) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
}

/// Events say when they happened first and their name last; every other kind begins with its name.
fn begins_with_name(kind: &Kind) -> bool {
    kind.columns.iter().all(|column| column.name != NAME)
}

fn columns(kind: &Kind) -> Value {
    if let Some(custom) = &kind.custom {
        let own = custom.columns.iter().map(|column| {
            let mut definition = definition(&column.name, &column.kind, &column.format, column.priority);
            definition["description"] = column.description.as_str().into();
            definition
        });
        return [definition(NAME, "string", "name", 0)].into_iter().chain(own).collect();
    }
    let name = begins_with_name(kind).then(|| definition(NAME, "string", "name", 0));
    let created = kind.columns.is_empty().then(|| definition("Created At", "date", "", 0));
    let own = kind.columns.iter().map(|column| {
        let format = if column.name == NAME { "name" } else { "" };
        definition(&column.name, column.kind, format, column.priority)
    });
    name.into_iter().chain(created).chain(own).collect()
}

fn row(kind: &Kind, object: &Value, options: &Options) -> Value {
    if let Some(custom) = &kind.custom {
        let own = custom.columns.iter().map(|column| custom::cell(column, object, options.now));
        let cells: Vec<Value> = [object["metadata"]["name"].clone()].into_iter().chain(own).collect();
        let mut row = json!({"cells": cells});
        include(&mut row, object, options);
        return row;
    }
    let context = cells::Context { kind, object, now: options.now };
    let mut cells: Vec<Value> = Vec::with_capacity(kind.columns.len() + 2);
    if begins_with_name(kind) {
        cells.push(context.name());
    }
    if kind.columns.is_empty() {
        cells.push(context.text("metadata.creationTimestamp").into());
    }
    cells.extend(kind.columns.iter().map(|column| context.cell(&column.name).unwrap_or_else(|| cells::NONE.into())));
    let mut row = json!({"cells": cells});
    if kind.is("", "pods")
        && let Some(conditions) = pod::row_conditions(object)
    {
        row["conditions"] = conditions;
    }
    include(&mut row, object, options);
    row
}

fn include(row: &mut Value, object: &Value, options: &Options) {
    match options.include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial::object(object),
        IncludeObject::Object => row["object"] = object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    /// A column without a cell would print `<none>` for ever.
    #[test]
    fn every_column_of_every_kind_has_a_cell() {
        let object = json!({"metadata": {"name": "x"}});
        let missing: Vec<String> = Table::builtin()
            .kinds()
            .flat_map(|kind| {
                let context = cells::Context { kind, object: &object, now: Timestamp::UNIX_EPOCH };
                let missing = kind.columns.iter().filter(move |column| context.cell(&column.name).is_none());
                missing.map(|column| format!("{}/{}", kind.plural, column.name)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(missing, Vec::<String>::new());
    }
}
