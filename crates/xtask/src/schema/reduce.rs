//! Joins OpenAPI definitions (shapes, required, strategies), Go sources (pointers, omitempty, protobuf tags, closed sets) and
//! apply defaults into facts, and splits off the prose.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::facts::{Facts, Field, Type};
use super::go::{Member, Package};
use super::overlay;
use super::ssa::Defaults;

type Packages = BTreeMap<String, Package>;

/// Definitions that are scalars or free values, with their shape letter.
const SPECIAL: [(&str, &str); 11] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "q"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "x"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "t"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "u"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "w"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "f"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "j"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "j"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "A"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "B"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "C"),
];

/// Descriptions only: definition to field to text, the definition's own under the empty name.
pub fn prose(definitions: &Value) -> Value {
    let mut all = Map::new();
    for (name, definition) in definitions.as_object().into_iter().flatten() {
        let mut texts = Map::new();
        let mut put = |key: &str, of: &Value| {
            of.get("description").into_iter().for_each(|text| drop(texts.insert(key.into(), text.clone())))
        };
        put("", definition);
        for (field, property) in definition.get("properties").and_then(Value::as_object).into_iter().flatten() {
            put(field, property);
        }
        all.insert(name.clone(), texts.into());
    }
    all.into()
}

/// Everything but the prose, for stable versions.
pub fn facts(definitions: &Value, packages: &Packages, defaults: &Defaults) -> Result<Facts> {
    let definitions = definitions.as_object().context("definitions are not an object")?;
    let mut names: Vec<&String> =
        definitions.keys().filter(|name| is_stable(name) && special(name).is_none()).collect();
    names.sort();
    let ids: BTreeMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut reducer =
        Reducer { packages, defaults, ids, enums: BTreeMap::new(), facts: Facts::default(), missing: BTreeSet::new() };
    for name in names {
        let ty = reducer.ty(name, &definitions[name]).with_context(|| name.clone())?;
        reducer.facts.types.push(ty);
    }
    if !reducer.missing.is_empty() {
        bail!(
            "fields without Go facts: {:?}\nhint: versions of wheel and packages differ, or go.rs misread a file",
            reducer.missing
        );
    }
    Ok(reducer.facts)
}

fn special(name: &str) -> Option<&'static str> {
    SPECIAL.iter().find(|(known, _)| *known == name).map(|(_, letter)| *letter)
}

/// The version segment of a definition name is not alpha or beta.
fn is_stable(name: &str) -> bool {
    !name.split('.').any(|part| part.starts_with('v') && (part.contains("alpha") || part.contains("beta")))
}

/// What Go says about one JSON field.
struct GoField<'a> {
    member: &'a Member,
    package: &'a str,
    tags: Vec<u64>,
    wire: char,
}

/// All JSON fields of a struct, inlined ones included.
fn members<'a>(
    packages: &'a Packages,
    package: &str,
    name: &str,
    via: &[u64],
    out: &mut BTreeMap<String, GoField<'a>>,
) {
    let Some((package, content)) = packages.get_key_value(package) else { return };
    for member in content.structs.get(name).into_iter().flatten() {
        let (tags, wire) = proto(member, via);
        if member.inline() {
            let (package, name) = resolve(packages, package, &member.ty);
            members(packages, &package, &name, &tags, out);
        } else if let Some(json) =
            member.tag("json").and_then(|json| json.split(',').next()).filter(|json| *json != "-")
        {
            out.insert(json.to_owned(), GoField { member, package, tags, wire });
        }
    }
}

/// Package prefix and bare name of a Go type expression (pointers and lists stripped).
fn resolve(packages: &Packages, package: &str, ty: &str) -> (String, String) {
    let bare = ty.trim_start_matches(['*', '[', ']']);
    let Some((alias, name)) = bare.split_once('.') else { return (package.to_owned(), bare.to_owned()) };
    let path = packages.get(package).and_then(|package| package.imports.get(alias)).cloned().unwrap_or_default();
    (path.replace("k8s.io/", "io.k8s.").replace('/', "."), name.to_owned())
}

struct Reducer<'a> {
    packages: &'a Packages,
    defaults: &'a Defaults,
    ids: BTreeMap<&'a str, usize>,
    enums: BTreeMap<String, usize>,
    facts: Facts,
    missing: BTreeSet<String>,
}

impl<'a> Reducer<'a> {
    fn ty(&mut self, name: &str, definition: &Value) -> Result<Type> {
        let (package, go_name) = name.rsplit_once('.').context("definition without a package")?;
        let mut go = BTreeMap::new();
        members(self.packages, package, go_name, &[], &mut go);
        let required = definition.get("required").cloned().unwrap_or(json!([]));
        let mut fields = Vec::new();
        for (field, property) in definition.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let is_required = required.as_array().is_some_and(|list| list.contains(&json!(field)));
            fields.push(self.field(name, field, property, is_required, go.get(field.as_str()))?);
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let atomic = definition.get("x-kubernetes-map-type") == Some(&json!("atomic"));
        Ok(Type { name: name.into(), atomic, gvks: gvks(definition), fields })
    }

    fn field(
        &mut self,
        ty: &str,
        name: &str,
        property: &Value,
        required: bool,
        go: Option<&GoField<'_>>,
    ) -> Result<Field> {
        let mut field = Field { name: name.into(), shape: self.shape(property)?, wire: 'b', ..Field::default() };
        let text = |key: &str| property.get(key).and_then(Value::as_str).map(str::to_owned);
        field.strategy = text("x-kubernetes-patch-strategy");
        field.merge_key = text("x-kubernetes-patch-merge-key");
        field.list = list_type(property);
        field.default = self.defaults.get(ty).and_then(|fields| fields.get(name)).cloned();
        let map_type = text("x-kubernetes-map-type").unwrap_or_default();
        let mut flags = vec![('r', required), ('a', map_type == "atomic"), ('g', map_type == "granular")];
        match go {
            Some(go) => {
                let json = go.member.tag("json").unwrap_or_default();
                flags.extend([('p', go.member.ty.starts_with('*')), ('o', json.contains("omitempty"))]);
                (field.tags, field.wire) = (go.tags.clone(), go.wire);
                field.values = self.values(go);
                field.default = field
                    .default
                    .or_else(|| go.member.marker("default").and_then(|text| serde_json::from_str(text).ok()));
            }
            None => flags.extend(self.overlay(ty, &mut field)),
        }
        field.flags = flags.into_iter().filter(|(_, set)| *set).map(|(letter, _)| letter).collect();
        Ok(field)
    }

    /// Facts written by hand, or the note that some are missing.
    fn overlay(&mut self, ty: &str, field: &mut Field) -> Vec<(char, bool)> {
        let is_type_meta = ["apiVersion", "kind"].contains(&field.name.as_str());
        let known = ty
            .strip_prefix(overlay::PREFIX)
            .and_then(|short| overlay::FIELDS.iter().find(|row| row.0 == short && row.1 == field.name));
        match known {
            Some((_, _, tag, wire, pointer)) => {
                (field.tags, field.wire) = (vec![*tag], *wire);
                vec![('p', *pointer), ('o', !field.name.is_empty())]
            }
            None if is_type_meta => vec![('o', true)],
            None => {
                self.missing.insert(format!("{ty}.{}", field.name));
                Vec::new()
            }
        }
    }

    /// Position of the closed set a field's Go type is, if it is one.
    fn values(&mut self, go: &GoField<'_>) -> Option<usize> {
        let (prefix, name) = resolve(self.packages, go.package, &go.member.ty);
        let package = self.packages.get(&prefix)?;
        if !package.enums.contains(&name) {
            return None;
        }
        let mut values = package.constants.get(&name)?.clone();
        values.sort();
        values.dedup();
        let version = prefix.rsplit('.').next().unwrap_or_default();
        let key = format!("{prefix}.{name}");
        let next = self.facts.enums.len();
        let at = *self.enums.entry(key).or_insert(next);
        if at == next {
            self.facts.enums.push((format!("{version}.{name}"), values));
        }
        Some(at)
    }

    fn shape(&self, property: &Value) -> Result<String> {
        if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return match (special(name), self.ids.get(name)) {
                (Some(letter), _) => Ok(letter.to_owned()),
                (None, Some(id)) => Ok(format!("#{id}")),
                (None, None) => bail!("reference to {name}, which is not stable"),
            };
        }
        let ty = match property.get("type") {
            Some(Value::Array(options)) => options.iter().filter_map(Value::as_str).find(|option| *option != "null"),
            Some(Value::String(one)) => Some(one.as_str()),
            _ => None,
        };
        let format = property.get("format").and_then(Value::as_str).unwrap_or_default();
        Ok(match (ty, format) {
            (Some("string"), "byte") => "y".into(),
            (Some("string"), _) => "s".into(),
            (Some("integer"), "int64") => "l".into(),
            (Some("integer"), _) => "i".into(),
            (Some("number"), _) => "d".into(),
            (Some("boolean"), _) => "b".into(),
            (Some("array"), _) => format!("[{}", self.shape(property.get("items").context("array without items")?)?),
            (Some("object"), _) => match property.get("additionalProperties") {
                Some(values) => format!("{{{}", self.shape(values)?),
                None => "j".into(),
            },
            other => bail!("unknown type {other:?}"),
        })
    }
}

/// Path of protobuf tags and the wire letter.
fn proto(member: &Member, via: &[u64]) -> (Vec<u64>, char) {
    let Some(tag) = member.tag("protobuf") else { return (Vec::new(), 'b') };
    let mut parts = tag.split(',');
    let wire = match parts.next() {
        Some("varint") => 'v',
        Some("fixed64") => 'f',
        _ => 'b',
    };
    let number = parts.next().and_then(|number| number.parse().ok());
    (via.iter().copied().chain(number).collect(), wire)
}

fn list_type(property: &Value) -> Option<String> {
    let ty = property.get("x-kubernetes-list-type").and_then(Value::as_str)?;
    let keys = property.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
    Some(if keys.is_empty() { ty.to_owned() } else { format!("{ty}:{}", keys.join(",")) })
}

fn gvks(definition: &Value) -> Vec<[String; 3]> {
    let list = definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    let text = |gvk: &Value, key: &str| gvk.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let all = list.into_iter().flatten().map(|gvk| [text(gvk, "group"), text(gvk, "version"), text(gvk, "kind")]);
    all.filter(|gvk| !gvk[1].contains("alpha") && !gvk[1].contains("beta")).collect()
}
