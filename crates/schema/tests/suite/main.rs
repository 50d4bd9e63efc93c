//! Tests of the public interface of the schema crate, one module per module.

mod apply;
mod arbitrary;
mod custom;
mod decode;
mod defaults;
mod discovery;
mod golden;
mod laws;
mod openapi;
mod patch;
mod protobuf;
mod selector;
mod status;
mod tables;
mod validate;
mod validate_update;

use isopod_schema::{Kind, Table};

/// The kind behind `group/version/plural`.
fn kind(path: &str) -> &'static Kind {
    let mut parts = path.rsplit('/');
    let (plural, version, group) = (parts.next(), parts.next().unwrap_or("v1"), parts.next().unwrap_or_default());
    Table::builtin().resource(group, version, plural.expect("a plural")).expect(path)
}
