//! What microVMs cost: usage records in, an itemised bill out.
//!
//! Rates are the seeds' (us-east-1): per vCPU-hour, per GB-hour, per GB-hour of disk beyond 20 GiB, and per hour of control plane. Each
//! microVM is billed by the second, rounded up, for at least one minute. Money is exact until it is printed.

use std::collections::BTreeMap;

use isopod_types::own::UsageRecord;
use jiff::Timestamp;
use rust_decimal::Decimal;

/// Seconds for which a microVM is billed at least.
pub const MINIMUM_SECONDS: i64 = 60;

/// Prices in dollars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Per vCPU and hour.
    pub vcpu_hour: Decimal,
    /// Per GB of memory and hour.
    pub memory_gb_hour: Decimal,
    /// Per GB of additional disk and hour.
    pub storage_gb_hour: Decimal,
    /// Per hour of control plane.
    pub control_plane_hour: Decimal,
    /// Part of the price that spot capacity costs.
    pub spot_factor: Decimal,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            vcpu_hour: Decimal::new(4048, 5),
            memory_gb_hour: Decimal::new(4445, 6),
            storage_gb_hour: Decimal::new(111, 6),
            control_plane_hour: Decimal::new(10, 2),
            spot_factor: Decimal::new(30, 2),
        }
    }
}

/// By what the bill is itemised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// Namespace.
    Namespace,
    /// Namespace and pod name.
    Pod,
    /// Value of a label.
    Label(String),
}

/// One line of the bill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// MicroVMs in this line.
    pub microvms: u64,
    /// vCPU-seconds.
    pub vcpu_seconds: Decimal,
    /// GB-seconds of memory.
    pub gb_seconds: Decimal,
    /// Dollars for vCPU.
    pub vcpu_cost: Decimal,
    /// Dollars for memory.
    pub memory_cost: Decimal,
    /// Dollars for disk beyond the free part.
    pub storage_cost: Decimal,
}

impl Line {
    /// Dollars in all.
    pub fn cost(&self) -> Decimal {
        self.vcpu_cost + self.memory_cost + self.storage_cost
    }

    fn add(&mut self, other: &Self) {
        self.microvms += other.microvms;
        self.vcpu_seconds += other.vcpu_seconds;
        self.gb_seconds += other.gb_seconds;
        self.vcpu_cost += other.vcpu_cost;
        self.memory_cost += other.memory_cost;
        self.storage_cost += other.storage_cost;
    }
}

/// The bill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Lines by group.
    pub lines: BTreeMap<String, Line>,
    /// Sum of the lines.
    pub total: Line,
    /// Seconds of control plane.
    pub control_plane_seconds: i64,
    /// Dollars for the control plane.
    pub control_plane_cost: Decimal,
}

/// Whole seconds between two times, rounded up.
fn seconds_between(start: Timestamp, end: Timestamp) -> i64 {
    let nanos = end.duration_since(start).as_nanos().max(0);
    i64::try_from((nanos + 999_999_999) / 1_000_000_000).unwrap_or(i64::MAX)
}

/// Seconds of a record that fall into the time from `since`; the minimum counts where the record begins.
fn billed_seconds(start: Timestamp, end: Timestamp, since: Option<Timestamp>) -> i64 {
    match since {
        Some(since) if since > start => seconds_between(since, end),
        _ => seconds_between(start, end).max(MINIMUM_SECONDS),
    }
}

/// What one record costs; nothing when it lies before `since`.
pub fn line(record: &UsageRecord, rates: &Rates, since: Option<Timestamp>, now: Timestamp) -> Option<Line> {
    let spec = &record.spec;
    let start = spec.start_time?;
    let end = spec.end_time.unwrap_or(now).max(start);
    if since.is_some_and(|since| end <= since) {
        return None;
    }
    let seconds = Decimal::from(billed_seconds(start, end, since));
    let vcpu_seconds = seconds * Decimal::from(spec.vcpu_millis) / Decimal::from(1000);
    let gb_seconds = seconds * Decimal::from(spec.memory_mib) / Decimal::from(1024);
    let storage_seconds = seconds * Decimal::from(spec.ephemeral_storage_gib);
    let factor = if spec.capacity_type == "FARGATE_SPOT" { rates.spot_factor } else { Decimal::ONE };
    let hour = Decimal::from(3600);
    Some(Line {
        microvms: 1,
        vcpu_seconds,
        gb_seconds,
        vcpu_cost: vcpu_seconds * rates.vcpu_hour * factor / hour,
        memory_cost: gb_seconds * rates.memory_gb_hour * factor / hour,
        storage_cost: storage_seconds * rates.storage_gb_hour / hour,
    })
}

fn group(record: &UsageRecord, by: &GroupBy) -> String {
    let spec = &record.spec;
    match by {
        GroupBy::Namespace => spec.pod_namespace.clone(),
        GroupBy::Pod => format!("{}/{}", spec.pod_namespace, spec.pod_name),
        GroupBy::Label(key) => spec.pod_labels.get(key).cloned().unwrap_or_else(|| "<none>".into()),
    }
}

/// When and how a bill is made.
#[derive(Clone, Debug)]
pub struct Billing<'a> {
    /// Prices.
    pub rates: &'a Rates,
    /// How lines are grouped.
    pub by: &'a GroupBy,
    /// Begin of the billed time; none: everything.
    pub since: Option<Timestamp>,
    /// End of the billed time.
    pub now: Timestamp,
    /// Since when the control plane exists.
    pub control_plane_start: Timestamp,
}

/// The bill for these records.
pub fn bill(records: &[UsageRecord], billing: &Billing<'_>) -> Bill {
    let mut bill = Bill::default();
    for record in records {
        if let Some(line) = line(record, billing.rates, billing.since, billing.now) {
            bill.total.add(&line);
            bill.lines.entry(group(record, billing.by)).or_default().add(&line);
        }
    }
    let start = billing.since.map_or(billing.control_plane_start, |since| since.max(billing.control_plane_start));
    bill.control_plane_seconds = seconds_between(start, billing.now);
    bill.control_plane_cost =
        Decimal::from(bill.control_plane_seconds) * billing.rates.control_plane_hour / Decimal::from(3600);
    bill
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::{need, tier};
    use isopod_types::Quantity;
    use isopod_types::own::UsageRecordSpec;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A record of a pod with one container of these requests.
    fn record(cpu: &str, memory: &str, start: i64, end: Option<i64>) -> UsageRecord {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let spec = serde_json::from_value(json!({"containers": [container]})).unwrap();
        let tier = tier(need(&spec, Quantity::ZERO)).unwrap();
        UsageRecord {
            spec: UsageRecordSpec {
                pod_namespace: "default".into(),
                pod_name: "p".into(),
                pod_labels: [("client".to_owned(), "acme".to_owned())].into(),
                vcpu_millis: tier.vcpu_millis,
                memory_mib: tier.memory_mib,
                start_time: Some(at(start)),
                end_time: end.map(at),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn bill_of(records: &[UsageRecord], by: GroupBy, since: Option<i64>, now: i64) -> Bill {
        let billing = Billing {
            rates: &Rates::default(),
            by: &by,
            since: since.map(at),
            now: at(now),
            control_plane_start: at(0),
        };
        bill(records, &billing)
    }

    #[test]
    fn the_seeds_worked_example() {
        let month = 720 * 3600;
        let records = vec![record("500m", "1Gi", 0, Some(month)); 10];
        let bill = bill_of(&records, GroupBy::Namespace, None, month);
        assert_eq!(bill.total.vcpu_cost.round_dp(2).to_string(), "145.73");
        assert_eq!(bill.total.memory_cost.round_dp(2).to_string(), "32.00");
        assert_eq!(bill.total.cost().round_dp(2).to_string(), "177.73");
        assert_eq!(bill.control_plane_cost.round_dp(2).to_string(), "72.00");
    }

    #[test]
    fn the_seeds_sidecar_example_is_billed_as_one_vcpu_and_two_gb() {
        let containers = [("500m", "1Gi"), ("100m", "128Mi")];
        let containers = containers
            .map(|(cpu, memory)| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}));
        let spec = serde_json::from_value(json!({"containers": containers})).unwrap();
        let tier = tier(need(&spec, Quantity::ZERO)).unwrap();
        assert_eq!((tier.vcpu_millis, tier.memory_mib), (1000, 2048));
    }

    #[test]
    fn seconds_have_a_minimum_and_open_records_count_until_now() {
        for (start, end, since, now, vcpu_seconds) in [
            (0, Some(10), None, 100, Some(30)),
            (0, Some(61), None, 100, Some(31)),
            (0, None, None, 200, Some(100)),
            (0, Some(100), Some(50), 200, Some(25)),
            (0, Some(100), Some(100), 200, None),
            (60, Some(70), Some(50), 200, Some(30)),
        ] {
            let found = line(&record("500m", "1Gi", start, end), &Rates::default(), since.map(at), at(now));
            let expected = vcpu_seconds.map(|s| Decimal::from(s).round_dp(0));
            assert_eq!(
                found.map(|l| l.vcpu_seconds.round_dp_with_strategy(0, rust_decimal::RoundingStrategy::AwayFromZero)),
                expected
            );
        }
    }

    #[test]
    fn lines_follow_the_grouping() {
        let records = [record("500m", "1Gi", 0, Some(60))];
        for (by, key) in [
            (GroupBy::Namespace, "default"),
            (GroupBy::Pod, "default/p"),
            (GroupBy::Label("client".into()), "acme"),
            (GroupBy::Label("team".into()), "<none>"),
        ] {
            assert_eq!(bill_of(&records, by, None, 100).lines.keys().next().unwrap(), key);
        }
    }

    #[test]
    fn spot_costs_less() {
        let mut spot = record("1", "2Gi", 0, Some(3600));
        spot.spec.capacity_type = "FARGATE_SPOT".into();
        let line = line(&spot, &Rates::default(), None, at(3600)).unwrap();
        assert_eq!(line.vcpu_cost, Decimal::new(4048, 5) * Decimal::new(3, 1));
    }
}
