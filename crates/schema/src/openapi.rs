//! OpenAPI documents built from the table: v3 (index and one document per group version), v2 as JSON and as gnostic
//! protobuf.
//!
//! Built when first asked for and kept; descriptions are there when the build had the prose file.

mod custom;
mod gnostic;
mod merge;
mod paths;
mod prose;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::table::{Kind, Table};

pub use merge::part;

/// Version in the documents' heads.
const VERSION: &str = "v1.36.0";

/// Content type of [`Documents::v2_protobuf`]. Clients ask for it with `v2@v1.0` in place of `v2.v1.0`, but kubectl 1.20
/// refuses an answer that is labelled so.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Which OpenAPI is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    /// What a reference to a definition begins with.
    const fn reference(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }
}

/// The documents of one table.
#[derive(Debug)]
pub struct Documents {
    table: Arc<Table>,
    index: OnceLock<Document>,
    /// Shared between tables whose kinds of the group version are the same.
    groups: BTreeMap<String, Arc<OnceLock<Document>>>,
    v2_json: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

/// One OpenAPI document, encoded.
#[derive(Debug, Clone)]
pub struct Document {
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// SHA-512 of the bytes in upper-case hexadecimal: ETag and `hash` parameter.
    pub hash: Arc<str>,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        let hash: String = Sha512::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { bytes: bytes.into(), hash: hash.into() }
    }

    /// A document that is made elsewhere.
    pub fn json(value: &Value) -> Self {
        // Writing a Value into memory cannot fail: its keys are texts.
        Self::new(serde_json::to_vec(value).unwrap_or_default())
    }
}

/// `api/v1` or `apis/group/version`.
fn key(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

/// The very same rows make up a group version in both tables.
fn same_kinds(one: &Table, other: &Table, key: &str) -> bool {
    let of = |table: &Table| -> Vec<*const Kind> {
        table.kinds().filter(|kind| self::key(kind) == key).map(std::ptr::from_ref).collect()
    };
    of(one) == of(other)
}

impl Documents {
    /// For a table. Documents of group versions that are the same in the table of `before` are taken over.
    pub fn new(table: Arc<Table>, before: Option<&Self>) -> Self {
        let keys: BTreeSet<String> = table.kinds().map(key).collect();
        let known = |key: &String| {
            let before = before.filter(|before| same_kinds(&before.table, &table, key))?;
            before.groups.get(key).cloned()
        };
        let groups = keys.into_iter().map(|key| (key.clone(), known(&key).unwrap_or_default())).collect();
        Self { table, index: OnceLock::new(), groups, v2_json: OnceLock::new(), v2_protobuf: OnceLock::new() }
    }

    /// Keys of the v3 documents, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// `/openapi/v3`: the index as JSON.
    pub fn v3_index(&self) -> Document {
        let index = || {
            let entry = |key: &String| {
                let hash = self.v3(key).map(|document| document.hash).unwrap_or_default();
                (key.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{key}?hash={hash}")}))
            };
            let paths: Map<String, Value> = self.groups.keys().map(entry).collect();
            Document::json(&json!({"paths": paths}))
        };
        self.index.get_or_init(index).clone()
    }

    /// `/openapi/v3/{key}` as JSON; `key` is such as `api/v1` or `apis/apps/v1`. None when there is no such document.
    pub fn v3(&self, key: &str) -> Option<Document> {
        let slot = self.groups.get(key)?;
        let build = || {
            let kinds: Vec<&Kind> = self.table.kinds().filter(|kind| self::key(kind) == key).collect();
            Document::json(&v3_document(&self.table, &kinds))
        };
        Some(slot.get_or_init(build).clone())
    }

    /// `/openapi/v2` as JSON.
    pub fn v2_json(&self) -> Document {
        self.v2_json.get_or_init(|| Document::json(&v2_document(&self.table))).clone()
    }

    /// `/openapi/v2` with [`part`]s of other servers' documents: as JSON and as [`V2_PROTOBUF`].
    pub fn v2_with<'a>(&self, parts: impl IntoIterator<Item = &'a Value>) -> (Document, Document) {
        let mut whole = v2_document(&self.table);
        parts.into_iter().for_each(|part| merge::add(&mut whole, part));
        (Document::json(&whole), Document::new(gnostic::document(&whole)))
    }

    /// `/openapi/v2` as [`V2_PROTOBUF`].
    pub fn v2_protobuf(&self) -> Document {
        self.v2_protobuf.get_or_init(|| Document::new(gnostic::document(&v2_document(&self.table)))).clone()
    }
}

fn v3_document(table: &Table, kinds: &[&Kind]) -> Value {
    let mut builder = schemas::Builder::new(table, Dialect::V3);
    let mut all = Map::new();
    for kind in kinds {
        paths::add(kind, &mut builder, &mut all);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": all,
        "components": {"schemas": builder.finish()},
    })
}

fn v2_document(table: &Table) -> Value {
    let mut builder = schemas::Builder::new(table, Dialect::V2);
    let mut all = Map::new();
    for kind in table.kinds() {
        paths::add(kind, &mut builder, &mut all);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": all,
        "definitions": builder.finish(),
    })
}
