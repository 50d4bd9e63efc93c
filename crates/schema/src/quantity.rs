//! The canonical text of resource quantities, as upstream writes it back.
//!
//! Arithmetic on quantities is [`isopod_types::Quantity`]'s; here only the text matters (`0.5` becomes `500m`, `1024Mi`
//! becomes `1Gi`), because what was stored is what clients read and compare.

/// What upstream says of a text that is no quantity.
pub const INVALID: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// The canonical text; none when it is not a quantity.
pub fn canonical(text: &str) -> Option<String> {
    let _ = text;
    todo!()
}
