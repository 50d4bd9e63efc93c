//! `isopod cost`: what microVMs have cost.

use anyhow::{Context, bail};
use clap::Args;
use isopod_planner::usage::{Bill, Billing, GroupBy, Line, Rates, bill};
use isopod_types::own::UsageRecord;
use jiff::{Span, Timestamp, Zoned};
use serde::Deserialize;

use crate::args::ClusterName;
use crate::cluster::{self, Places};
use crate::progress::table;

/// Flags of `cost`.
#[derive(Debug, Args)]
pub(crate) struct CostArgs {
    #[command(flatten)]
    cluster: ClusterName,
    /// `namespace`, `pod`, or `label KEY`.
    #[arg(long, num_args = 1..=2, default_value = "namespace", value_names = ["WHAT", "KEY"])]
    by: Vec<String>,
    /// Only from this time on: a time such as 2026-01-31T00:00:00Z, or how long ago, such as 2h, 7d, 30m.
    #[arg(long)]
    since: Option<String>,
}

fn group_by(words: &[String]) -> anyhow::Result<GroupBy> {
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["namespace"] => Ok(GroupBy::Namespace),
        ["pod"] => Ok(GroupBy::Pod),
        ["label", key] => Ok(GroupBy::Label(key.to_owned())),
        ["label"] => bail!("--by label needs a key\nhint: --by label app"),
        _ => bail!("--by {:?} is not known\nhint: --by namespace, --by pod or --by label KEY", words.join(" ")),
    }
}

/// A time, or a span before now.
fn parse_since(text: &str, now: &Zoned) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let hint = || format!("--since {text:?} is neither a time nor a duration\nhint: 2026-01-31T00:00:00Z, 2h, 7d");
    let span: Span = text.parse().with_context(hint)?;
    Ok(now.checked_sub(span).with_context(hint)?.timestamp())
}

fn money(amount: rust_decimal::Decimal) -> String {
    format!("${:.4}", amount.round_dp(4))
}

fn row(name: &str, line: &Line) -> Vec<String> {
    let number = |amount: rust_decimal::Decimal| format!("{:.2}", amount.round_dp(2));
    vec![
        name.to_owned(),
        line.microvms.to_string(),
        number(line.vcpu_seconds),
        number(line.gb_seconds),
        money(line.vcpu_cost),
        money(line.memory_cost),
        money(line.storage_cost),
        money(line.cost()),
    ]
}

fn print(bill: &Bill, by: &GroupBy) {
    let first = match by {
        GroupBy::Namespace => "NAMESPACE",
        GroupBy::Pod => "POD",
        GroupBy::Label(_) => "LABEL",
    };
    let mut rows: Vec<Vec<String>> = bill.lines.iter().map(|(name, line)| row(name, line)).collect();
    rows.push(row("TOTAL", &bill.total));
    table(&[first, "MICROVMS", "VCPU-SECONDS", "GB-SECONDS", "VCPU", "MEMORY", "DISK", "COST"], &rows);
    println!();
    println!("control plane: {} s, {}", bill.control_plane_seconds, money(bill.control_plane_cost));
    println!("in all: {}", money(bill.total.cost() + bill.control_plane_cost));
}

/// Prints the bill.
pub(crate) async fn run(places: &Places, args: CostArgs) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<UsageRecord>,
    }
    let by = group_by(&args.by)?;
    let since = args.since.as_deref().map(|text| parse_since(text, &Zoned::now())).transpose()?;
    let cluster = places.find(&args.cluster)?;
    let client = cluster::client(&cluster).await?;
    let request = http::Request::get("/apis/isopod.dev/v1alpha1/usagerecords").body(Vec::new())?;
    let list: List = client.request(request).await?;
    let billing = Billing {
        rates: &Rates::default(),
        by: &by,
        since,
        now: Timestamp::now(),
        control_plane_start: cluster.read()?.created,
    };
    print(&bill(&list.items, &billing), &by);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let now: Zoned = "2026-01-31T12:00:00[UTC]".parse().unwrap();
        for (text, expected) in [
            ("2h", "2026-01-31T10:00:00Z"),
            ("7d", "2026-01-24T12:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_since(text, &now).unwrap().to_string(), expected);
        }
        assert!(parse_since("soon", &now).is_err());
    }

    #[test]
    fn groupings_are_read() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(group_by(&words("label app")).unwrap(), GroupBy::Label("app".into()));
        assert!(group_by(&words("label")).is_err() && group_by(&words("moon")).is_err());
    }
}
