//! Discovery documents, from the table.

use serde_json::Value;

use crate::table::Table;

/// Version of the aggregated discovery format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`.
    V2beta1,
}

/// `/api`: APIVersions. `server_address` is `host:port` as clients reach it.
pub fn api_versions(server_address: &str) -> Value {
    let _ = server_address;
    todo!()
}

/// `/apis`: APIGroupList.
pub fn api_group_list(table: &Table) -> Value {
    let _ = table;
    todo!()
}

/// `/apis/{group}`: APIGroup; none when the group does not exist.
pub fn api_group(table: &Table, group: &str) -> Option<Value> {
    let _ = (table, group);
    todo!()
}

/// `/api/v1` and `/apis/{group}/{version}`: APIResourceList; none when the group version does not exist.
pub fn api_resource_list(table: &Table, group: &str, version: &str) -> Option<Value> {
    let _ = (table, group, version);
    todo!()
}

/// The aggregated document of `/api` (`core` true) or `/apis` (`core` false).
pub fn aggregated(table: &Table, format: Aggregated, core: bool) -> Value {
    let _ = (table, format, core);
    todo!()
}
