//! Amounts of resources by name, with the notation they were written in: what limits and quotas count with.

use std::collections::BTreeMap;
use std::fmt;

use isopod_types::Quantity;
use serde_json::Value;

/// An amount and how it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How much.
    pub value: Quantity,
    /// Written with powers of 1024.
    pub binary: bool,
}

/// Amounts by name of the resource.
pub type Amounts = BTreeMap<String, Amount>;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { value: Quantity::ZERO, binary: false };

    /// A number of pieces.
    pub const fn count(pieces: i128) -> Self {
        Self { value: Quantity::from_units(pieces), binary: false }
    }

    /// From a quantity in a document; none when it is no quantity.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self { value: text.parse().ok()?, binary: text.ends_with('i') })
    }

    /// Sum; nothing takes the notation of the other.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let binary = if self.value == Quantity::ZERO { other.binary } else { self.binary };
        Self { value: self.value.plus(other.value), binary }
    }

    /// Difference.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { value: Quantity::from_milli(-other.value.milli()), ..other })
    }
}

/// As upstream writes it back: the largest suffix that keeps the number whole.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milli = self.value.milli();
        if milli % 1000 != 0 {
            return write!(f, "{milli}m");
        }
        let (suffixes, base) = match self.binary && (milli / 1000).abs() >= 1024 {
            true => (["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], 1024),
            false if self.binary => (["", "", "", "", "", "", ""], i128::MAX),
            false => (["", "k", "M", "G", "T", "P", "E"], 1000),
        };
        let (mut units, mut at) = (milli / 1000, 0);
        while units != 0 && units % base == 0 && at + 1 < suffixes.len() {
            units /= base;
            at += 1;
        }
        write!(f, "{units}{}", suffixes[at])
    }
}

/// The amounts of a document's map.
pub fn amounts(map: &Value) -> Amounts {
    let fields = map.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?))).collect()
}

/// Adds amounts to amounts.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).copied().unwrap_or_default().plus(*amount);
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        let current = total.entry(name).or_insert(amount);
        if amount.value > current.value {
            *current = amount;
        }
    }
}

/// What a pod asks for as a whole; `which` is `requests` or `limits`. Init containers run one after the other, sidecars
/// stay, and what is said of the whole pod counts instead.
pub fn of_pod(spec: &Value, which: &str) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"][which]);
    let list = |field: &str| spec[field].as_array().map_or(&[][..], Vec::as_slice);
    let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    list("containers").iter().for_each(|container| add(&mut total, &of(container)));
    for container in list("initContainers") {
        let mut while_it_runs = sidecars.clone();
        add(&mut while_it_runs, &of(container));
        if container["restartPolicy"] == "Always" {
            sidecars.clone_from(&while_it_runs);
        }
        raise(&mut peak, while_it_runs);
    }
    add(&mut total, &sidecars);
    raise(&mut total, peak);
    total.extend(amounts(&spec["resources"][which]));
    let overhead = amounts(&spec["overhead"]);
    // A limit that is not there stays away.
    let counts = |name: &String| which == "requests" || total.contains_key(name);
    let overhead: Amounts = overhead.into_iter().filter(|(name, _)| counts(name)).collect();
    add(&mut total, &overhead);
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_written_as_they_came() {
        for (texts, sum) in [
            (&["1Gi", "512Mi"][..], "1536Mi"),
            (&["512", "512"], "1024"),
            (&["512Ki", "512Ki"], "1Mi"),
            (&["500m", "500m"], "1"),
            (&["999", "1"], "1k"),
            (&["0", "1Gi"], "1Gi"),
            (&["100Mi", "-100Mi"], "0"),
            (&["500M"], "500M"),
        ] {
            let total = texts.iter().fold(Amount::ZERO, |total, text| total.plus(Amount::parse(text).unwrap()));
            assert_eq!(total.to_string(), sum, "{texts:?}");
        }
    }

    #[test]
    fn pods_as_a_whole() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}});
        for (spec, expected) in [
            (json!({"containers": [c("1"), c("500m")]}), Some("1500m")),
            (json!({"containers": [c("1")], "initContainers": [c("3"), c("2")]}), Some("3")),
            (json!({"containers": [c("1")], "initContainers": [sidecar, c("2")]}), Some("2100m")),
            (json!({"containers": [c("1")], "initContainers": [sidecar]}), Some("1100m")),
            (json!({"containers": [c("1")], "overhead": {"cpu": "250m"}}), Some("1250m")),
            (json!({"containers": [c("1")], "resources": {"requests": {"cpu": "4"}}}), Some("4")),
            (json!({"containers": [{}]}), None),
        ] {
            let found = of_pod(&spec, "requests").get("cpu").map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{spec}");
        }
    }
}
