//! Any writes by three managers to one object, by apply, by force and by update: the laws of server-side apply hold after
//! each (they are written down, and told a few hundred stories, in the tests of the schema crate).
#![no_main]

#[path = "../../schema/tests/suite/arbitrary.rs"]
mod arbitrary;
#[path = "../../schema/tests/suite/laws.rs"]
mod laws;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| laws::hold(usize::from(input.0) % laws::KINDS, input.1));
