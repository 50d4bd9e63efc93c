//! Schemas of `metrics.k8s.io`: what pods and nodes use now. Nothing of these kinds is stored.

use super::Gvk;
use super::own::{LIST_META, OBJECT_META, plain, push, reference, with_type_meta};
use crate::facts::{Field, Shape, Type, TypeId, TypeSet};

const PREFIX: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1.";
const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

/// Type, field (empty for the type itself), text.
const PROSE: [(&str, &str, &str); 13] = [
    ("ContainerMetrics", "", "What a container uses."),
    ("ContainerMetrics", "name", "Name of the container."),
    ("ContainerMetrics", "usage", "CPU as a mean over the window, memory at its end."),
    ("NodeMetrics", "", "What a node uses."),
    ("NodeMetrics", "metadata", "Standard metadata."),
    ("NodeMetrics", "timestamp", "End of the window."),
    ("NodeMetrics", "window", "How long CPU was measured."),
    ("NodeMetrics", "usage", "CPU as a mean over the window, memory at its end."),
    ("PodMetrics", "", "What the containers of a pod use."),
    ("PodMetrics", "metadata", "Standard metadata."),
    ("PodMetrics", "timestamp", "End of the window."),
    ("PodMetrics", "window", "How long CPU was measured."),
    ("PodMetrics", "containers", "What each container uses."),
];

fn ty(name: &str, mut fields: Vec<Field>, gvks: Vec<Gvk>) -> Type {
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Type {
        name: format!("{PREFIX}{name}"),
        go_name: format!("v1beta1.{name}"),
        fields,
        atomic: false,
        custom: false,
        open: false,
        gvks,
        proto_order: Vec::new(),
    }
}

fn list_of(item: TypeId) -> Shape {
    Shape::List(Box::new(Shape::Object(item)))
}

fn add_kind(set: &mut TypeSet, kind: &str, measured: Field) {
    let metadata = plain("metadata", reference(set, OBJECT_META));
    let fields = vec![metadata, plain("timestamp", Shape::Time), plain("window", Shape::String), measured];
    let object = push(set, ty(kind, with_type_meta(fields), vec![Gvk::new(GROUP, VERSION, kind)]));
    let list = format!("{kind}List");
    let fields = vec![plain("metadata", reference(set, LIST_META)), plain("items", list_of(object))];
    push(set, ty(&list, with_type_meta(fields), vec![Gvk::new(GROUP, VERSION, &list)]));
}

/// Adds the types to a set. Returns their descriptions: definition, field (empty for the type itself), text.
pub(super) fn add_types(set: &mut TypeSet) -> Vec<(String, &'static str, &'static str)> {
    let usage = || plain("usage", Shape::Map(Box::new(Shape::Quantity)));
    let container = push(set, ty("ContainerMetrics", vec![plain("name", Shape::String), usage()], Vec::new()));
    add_kind(set, "PodMetrics", plain("containers", list_of(container)));
    add_kind(set, "NodeMetrics", usage());
    PROSE.iter().map(|(name, field, text)| (format!("{PREFIX}{name}"), *field, *text)).collect()
}
