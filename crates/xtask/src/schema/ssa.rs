//! Reads the server-side-apply schema that client-go carries as YAML inside a Go file: only the defaults of fields are taken.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

const FILES: [&str; 2] = [
    "k8s.io/client-go/applyconfigurations/internal/internal.go",
    "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration/internal/internal.go",
];

/// Defaults by definition name and field name. Zero values (`""`, `0`, `{}`, `false`) are left out: they only restate that a
/// field is not optional.
pub type Defaults = BTreeMap<String, BTreeMap<String, Value>>;

/// Reads both files.
pub fn read(sources: &Path) -> Result<Defaults> {
    let mut defaults = Defaults::new();
    for file in FILES {
        let path = sources.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let yaml = text.split("typed.YAMLObject(`").nth(1).and_then(|rest| rest.split('`').next());
        collect(yaml.with_context(|| format!("{}: no embedded schema", path.display()))?, &mut defaults);
    }
    Ok(defaults)
}

/// The YAML is machine-written: types at column 0, fields at column 4, their defaults at column 6.
fn collect(yaml: &str, defaults: &mut Defaults) {
    let (mut ty, mut field) = (String::new(), String::new());
    for line in yaml.lines() {
        if let Some(name) = line.strip_prefix("- name: ") {
            ty = name.to_owned();
        } else if let Some(name) = line.strip_prefix("    - name: ") {
            field = name.to_owned();
        } else if let Some(text) = line.strip_prefix("      default: ") {
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
            if !is_zero(&value) {
                defaults.entry(ty.clone()).or_default().insert(field.clone(), value);
            }
        }
    }
}

fn is_zero(value: &Value) -> bool {
    [Value::from(""), Value::from(0), Value::from(false), serde_json::json!({})].contains(value)
}
