//! OpenAPI documents built from the table: v3 (index and one document per group version), v2 as JSON and as gnostic
//! protobuf.
//!
//! Built when first asked for and kept; descriptions are there when the build had the prose file.

use std::sync::Arc;

use crate::table::Table;

/// The documents of one table.
#[derive(Debug)]
pub struct Documents {
    table: &'static Table,
}

/// One OpenAPI document, encoded.
#[derive(Debug, Clone)]
pub struct Document {
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// SHA-512 of the bytes in upper-case hexadecimal: ETag and `hash` parameter.
    pub hash: Arc<str>,
}

impl Documents {
    /// For a table.
    pub fn new(table: &'static Table) -> Self {
        Self { table }
    }

    /// `/openapi/v3`: the index as JSON.
    pub fn v3_index(&self) -> Document {
        let _ = self.table;
        todo!()
    }

    /// `/openapi/v3/{key}` as JSON; `key` is such as `api/v1` or `apis/apps/v1`. None when there is no such document.
    pub fn v3(&self, key: &str) -> Option<Document> {
        let _ = key;
        todo!()
    }

    /// `/openapi/v2` as JSON.
    pub fn v2_json(&self) -> Document {
        todo!()
    }

    /// `/openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
    pub fn v2_protobuf(&self) -> Document {
        todo!()
    }
}
