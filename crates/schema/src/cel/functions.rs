//! Functions: CEL's own and the extensions that Kubernetes has.

use std::rc::Rc;

use isopod_types::Quantity;
use jiff::tz::TimeZone;
use regex::Regex;

use super::EvalError;
use super::network::{self, Url};
use super::operators::{compare, overload};
use super::strings;
use super::value::{Cel, List};

/// What a function yields, as far as that is known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Time,
    Texts,
    Other(&'static str),
    /// An optional of the first argument.
    Optional,
    /// What it was called on.
    Target,
    /// What is in what it was called on.
    Inner,
}

/// One function: name, types it is called on separated by `|` (empty: none), fewest and most arguments, result.
pub(super) struct Signature {
    name: &'static str,
    on: &'static str,
    args: (usize, usize),
    pub(super) returns: Returns,
}

impl Signature {
    pub(super) fn takes(&self, count: usize) -> bool {
        (self.args.0..=self.args.1).contains(&count)
    }

    pub(super) fn on(&self, ty: &str) -> bool {
        let short = ty.rsplit('.').next().unwrap_or(ty);
        self.on.split('|').any(|known| known == short || (known == "map" && short == "object"))
    }
}

const fn f(name: &'static str, on: &'static str, min: usize, max: usize, returns: Returns) -> Signature {
    Signature { name, on, args: (min, max), returns }
}

const QUANTITY: Returns = Returns::Other("kubernetes.Quantity");
const IP: Returns = Returns::Other("net.IP");
const CIDR: Returns = Returns::Other("net.CIDR");
const URL: Returns = Returns::Other("kubernetes.URL");
const ANY: usize = 64;

#[rustfmt::skip]
static GLOBAL: [Signature; 40] = [
    f("size", "", 1, 1, Returns::Int), f("int", "", 1, 1, Returns::Int), f("uint", "", 1, 1, Returns::Uint),
    f("double", "", 1, 1, Returns::Double), f("string", "", 1, 1, Returns::Text), f("bool", "", 1, 1, Returns::Bool),
    f("bytes", "", 1, 1, Returns::Bytes), f("dyn", "", 1, 1, Returns::Dyn), f("type", "", 1, 1, Returns::Other("type")),
    f("duration", "", 1, 1, Returns::Duration), f("timestamp", "", 1, 1, Returns::Time),
    f("matches", "", 2, 2, Returns::Bool), f("quantity", "", 1, 1, QUANTITY), f("isQuantity", "", 1, 1, Returns::Bool),
    f("ip", "", 1, 1, IP), f("isIP", "", 1, 1, Returns::Bool), f("ip.isCanonical", "", 1, 1, Returns::Bool),
    f("cidr", "", 1, 1, CIDR), f("isCIDR", "", 1, 1, Returns::Bool), f("url", "", 1, 1, URL),
    f("isURL", "", 1, 1, Returns::Bool), f("optional.of", "", 1, 1, Returns::Optional),
    f("optional.none", "", 0, 0, Returns::Optional), f("optional.ofNonZeroValue", "", 1, 1, Returns::Optional),
    f("math.greatest", "", 1, ANY, Returns::Dyn), f("math.least", "", 1, ANY, Returns::Dyn),
    f("math.abs", "", 1, 1, Returns::Dyn), f("math.ceil", "", 1, 1, Returns::Double),
    f("math.floor", "", 1, 1, Returns::Double), f("math.round", "", 1, 1, Returns::Double),
    f("math.trunc", "", 1, 1, Returns::Double), f("math.sign", "", 1, 1, Returns::Dyn),
    f("sets.contains", "", 2, 2, Returns::Bool), f("sets.equivalent", "", 2, 2, Returns::Bool),
    f("sets.intersects", "", 2, 2, Returns::Bool), f("base64.encode", "", 1, 1, Returns::Text),
    f("base64.decode", "", 1, 1, Returns::Bytes), f("strings.quote", "", 1, 1, Returns::Text),
    f("lists.range", "", 1, 1, Returns::Dyn), f("jsonpatch.escapeKey", "", 1, 1, Returns::Text),
];

#[rustfmt::skip]
static MEMBER: [Signature; 70] = [
    f("size", "string|bytes|list|map", 0, 0, Returns::Int), f("contains", "string", 1, 1, Returns::Bool),
    f("startsWith", "string", 1, 1, Returns::Bool), f("endsWith", "string", 1, 1, Returns::Bool),
    f("matches", "string", 1, 1, Returns::Bool), f("find", "string", 1, 1, Returns::Text),
    f("findAll", "string", 1, 2, Returns::Texts), f("charAt", "string", 1, 1, Returns::Text),
    f("indexOf", "string|list", 1, 2, Returns::Int), f("lastIndexOf", "string|list", 1, 2, Returns::Int),
    f("lowerAscii", "string", 0, 0, Returns::Text), f("upperAscii", "string", 0, 0, Returns::Text),
    f("replace", "string", 2, 3, Returns::Text), f("split", "string", 1, 2, Returns::Texts),
    f("substring", "string", 1, 2, Returns::Text), f("trim", "string", 0, 0, Returns::Text),
    f("format", "string", 1, 1, Returns::Text), f("reverse", "string|list", 0, 0, Returns::Target),
    f("join", "list", 0, 1, Returns::Text), f("isSorted", "list", 0, 0, Returns::Bool),
    f("sum", "list", 0, 0, Returns::Inner), f("min", "list", 0, 0, Returns::Inner), f("max", "list", 0, 0, Returns::Inner),
    f("distinct", "list", 0, 0, Returns::Target), f("sort", "list", 0, 0, Returns::Target),
    f("slice", "list", 2, 2, Returns::Target), f("flatten", "list", 0, 1, Returns::Dyn),
    f("first", "list", 0, 0, Returns::Dyn), f("last", "list", 0, 0, Returns::Dyn),
    f("orValue", "optional_type", 1, 1, Returns::Inner), f("or", "optional_type", 1, 1, Returns::Target),
    f("hasValue", "optional_type", 0, 0, Returns::Bool), f("value", "optional_type", 0, 0, Returns::Inner),
    f("getFullYear", "Timestamp", 0, 1, Returns::Int), f("getMonth", "Timestamp", 0, 1, Returns::Int),
    f("getDate", "Timestamp", 0, 1, Returns::Int), f("getDayOfMonth", "Timestamp", 0, 1, Returns::Int),
    f("getDayOfWeek", "Timestamp", 0, 1, Returns::Int), f("getDayOfYear", "Timestamp", 0, 1, Returns::Int),
    f("getHours", "Timestamp|Duration", 0, 1, Returns::Int), f("getMinutes", "Timestamp|Duration", 0, 1, Returns::Int),
    f("getSeconds", "Timestamp|Duration", 0, 1, Returns::Int),
    f("getMilliseconds", "Timestamp|Duration", 0, 1, Returns::Int),
    f("sign", "Quantity", 0, 0, Returns::Int), f("isInteger", "Quantity", 0, 0, Returns::Bool),
    f("asInteger", "Quantity", 0, 0, Returns::Int), f("asApproximateFloat", "Quantity", 0, 0, Returns::Double),
    f("compareTo", "Quantity", 1, 1, Returns::Int), f("isGreaterThan", "Quantity", 1, 1, Returns::Bool),
    f("isLessThan", "Quantity", 1, 1, Returns::Bool), f("add", "Quantity", 1, 1, QUANTITY), f("sub", "Quantity", 1, 1, QUANTITY),
    f("family", "IP", 0, 0, Returns::Int), f("isUnspecified", "IP", 0, 0, Returns::Bool),
    f("isLoopback", "IP", 0, 0, Returns::Bool), f("isLinkLocalMulticast", "IP", 0, 0, Returns::Bool),
    f("isLinkLocalUnicast", "IP", 0, 0, Returns::Bool), f("isGlobalUnicast", "IP", 0, 0, Returns::Bool),
    f("containsIP", "CIDR", 1, 1, Returns::Bool), f("containsCIDR", "CIDR", 1, 1, Returns::Bool), f("ip", "CIDR", 0, 0, IP),
    f("masked", "CIDR", 0, 0, CIDR), f("prefixLength", "CIDR", 0, 0, Returns::Int),
    f("getScheme", "URL", 0, 0, Returns::Text), f("getHost", "URL", 0, 0, Returns::Text),
    f("getHostname", "URL", 0, 0, Returns::Text), f("getPort", "URL", 0, 0, Returns::Text),
    f("getEscapedPath", "URL", 0, 0, Returns::Text), f("getQuery", "URL", 0, 0, Returns::Dyn),
    f("string", "IP|CIDR", 0, 0, Returns::Text),
];

/// The function with this name, called on something or on nothing.
pub(super) fn signature(name: &str, is_member: bool) -> Option<&'static Signature> {
    let all: &[Signature] = if is_member { &MEMBER } else { &GLOBAL };
    all.iter().find(|signature| signature.name == name)
}

/// A function that is called on nothing, by its whole name.
pub(super) fn is_global(name: &str) -> bool {
    signature(name, false).is_some()
}

type Outcome<'a> = Result<Cel<'a>, EvalError>;

fn other<T>(text: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Other(text.into()))
}

/// Calls a function.
pub(super) fn call<'a>(name: &str, target: Option<Cel<'a>>, args: Vec<Cel<'a>>, regex: Option<&Regex>) -> Outcome<'a> {
    let Some(target) = target else { return global(name, &args, regex) };
    match (&target, name) {
        (Cel::Text(text), _) => strings::call(name, text, &args, regex),
        (Cel::List(list), _) => list_function(name, list, &target, &args),
        (Cel::Map(map), "size") => Ok(Cel::Int(count(map.len()))),
        (Cel::Bytes(bytes), "size") => Ok(Cel::Int(count(bytes.len()))),
        (Cel::Optional(value), _) => optional(name, value.as_deref(), &target, &args),
        (Cel::Time(_) | Cel::Duration(_), _) => time_part(name, &target, &args),
        (Cel::Quantity(quantity), _) => quantity_function(name, *quantity, &args),
        (Cel::Ip(address), "string") => Ok(Cel::text(address.to_string())),
        (Cel::Ip(address), _) => network::of_address(name, *address),
        (Cel::Cidr(address, length), _) => range_function(name, (*address, *length), &args),
        (Cel::Url(url), _) => Ok(url.get(name)),
        _ => overload(name, &[&target]),
    }
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn global<'a>(name: &str, args: &[Cel<'a>], regex: Option<&Regex>) -> Outcome<'a> {
    match (name, args) {
        ("optional.none", []) => Ok(Cel::Optional(None)),
        ("matches", [Cel::Text(text), pattern]) => strings::call("matches", text, std::slice::from_ref(pattern), regex),
        ("math.greatest" | "math.least", args) => extreme(name, args),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [Cel::List(a), Cel::List(b)]) => {
            let within = |a: &List<'a>, b: &List<'a>| b.iter().all(|item| a.iter().any(|other| other == item));
            Ok(Cel::Bool(match name {
                "sets.contains" => within(a, b),
                "sets.equivalent" => within(a, b) && within(b, a),
                _ => a.iter().any(|item| b.iter().any(|other| other == item)),
            }))
        }
        (_, [value]) => of_one(name, value),
        _ => overload(name, &args.iter().collect::<Vec<_>>()),
    }
}

fn extreme<'a>(name: &str, args: &[Cel<'a>]) -> Outcome<'a> {
    let items: Vec<Cel<'a>> = match args {
        [Cel::List(list)] => list.iter().collect(),
        args => args.to_vec(),
    };
    best(&items, name.ends_with("greatest") || name == "max")
}

fn best<'a>(items: &[Cel<'a>], greatest: bool) -> Outcome<'a> {
    let mut items = items.iter();
    let Some(first) = items.next() else { return other("min/max called on empty list") };
    let mut best = first;
    for item in items {
        match compare(item, best) {
            Some(ordering) if ordering.is_gt() == greatest && ordering.is_ne() => best = item,
            Some(_) => {}
            None => return overload("min/max", &[item, best]),
        }
    }
    Ok(best.clone())
}

fn of_one<'a>(name: &str, value: &Cel<'a>) -> Outcome<'a> {
    match (name, value) {
        ("dyn", value) => Ok(value.clone()),
        ("type", value) => Ok(Cel::Type(value.type_name())),
        ("size", Cel::Text(text)) => Ok(Cel::Int(count(text.chars().count()))),
        ("size", Cel::List(list)) => Ok(Cel::Int(count(list.len()))),
        ("size", Cel::Map(map)) => Ok(Cel::Int(count(map.len()))),
        ("size", Cel::Bytes(bytes)) => Ok(Cel::Int(count(bytes.len()))),
        ("optional.of", value) => Ok(Cel::optional(Some(value.clone()))),
        ("optional.ofNonZeroValue", value) => Ok(Cel::optional((!is_zero(value)).then(|| value.clone()))),
        ("int" | "uint" | "double" | "string" | "bool" | "bytes" | "duration" | "timestamp", value) => {
            convert(name, value)
        }
        ("math.abs" | "math.ceil" | "math.floor" | "math.round" | "math.trunc" | "math.sign", value) => {
            round(name, value)
        }
        ("lists.range", Cel::Int(end)) if (0..=100_000).contains(end) => {
            Ok(Cel::list((0..*end).map(Cel::Int).collect()))
        }
        ("base64.encode" | "base64.decode" | "strings.quote", value) => strings::encoding(name, value),
        ("jsonpatch.escapeKey", Cel::Text(text)) => Ok(Cel::text(text.replace('~', "~0").replace('/', "~1"))),
        (_, Cel::Text(text)) => parse(name, text),
        ("ip", Cel::Cidr(address, _)) => Ok(Cel::Ip(*address)),
        (_, other) => overload(name, &[other]),
    }
}

fn is_zero(value: &Cel<'_>) -> bool {
    match value {
        Cel::Null | Cel::Bool(false) | Cel::Int(0) | Cel::Uint(0) | Cel::Duration(0) | Cel::Optional(None) => true,
        Cel::Double(number) => *number == 0.0,
        Cel::Text(text) => text.is_empty(),
        Cel::Bytes(bytes) => bytes.is_empty(),
        Cel::List(list) => list.len() == 0,
        Cel::Map(map) => map.len() == 0,
        _ => false,
    }
}

/// Kubernetes' types from their texts, and whether a text is one.
fn parse<'a>(name: &str, text: &str) -> Outcome<'a> {
    let ip = || network::address(text);
    let range = || network::range(text);
    let url = || Url::parse(text).map(|url| Cel::Url(Rc::new(url)));
    let quantity = || text.parse::<Quantity>().ok();
    let made = match name {
        "isIP" => return Ok(Cel::Bool(ip().is_some())),
        "isCIDR" => return Ok(Cel::Bool(range().is_some())),
        "isURL" => return Ok(Cel::Bool(url().is_some())),
        "isQuantity" => return Ok(Cel::Bool(quantity().is_some())),
        "ip.isCanonical" => ip().map(|address| Cel::Bool(address.to_string() == text)),
        "ip" => ip().map(Cel::Ip),
        "cidr" => range().map(|(address, length)| Cel::Cidr(address, length)),
        "url" => url(),
        "quantity" => quantity().map(Cel::Quantity),
        _ => return Err(EvalError::Overload(name.to_owned())),
    };
    made.map_or_else(|| other(format!("{name}: cannot parse {text:?}")), Ok)
}

fn convert<'a>(name: &str, value: &Cel<'a>) -> Outcome<'a> {
    let bad = || other(format!("{name}: cannot convert a value of type {}", value.type_name()));
    let whole = |number: f64| (number.is_finite() && number.abs() < 9.2e18).then_some(number as i64);
    let made = match (name, value) {
        ("int", Cel::Int(_)) | ("uint", Cel::Uint(_)) | ("double", Cel::Double(_)) | ("bool", Cel::Bool(_)) => {
            Some(value.clone())
        }
        ("int", Cel::Uint(number)) => i64::try_from(*number).ok().map(Cel::Int),
        ("int", Cel::Double(number)) => whole(*number).map(Cel::Int),
        ("int", Cel::Text(text)) => text.parse().ok().map(Cel::Int),
        ("int", Cel::Time(time)) => Some(Cel::Int(time.as_second())),
        ("uint", Cel::Int(number)) => u64::try_from(*number).ok().map(Cel::Uint),
        ("uint", Cel::Double(number)) => whole(*number).and_then(|number| u64::try_from(number).ok()).map(Cel::Uint),
        ("uint", Cel::Text(text)) => text.parse().ok().map(Cel::Uint),
        ("double", Cel::Int(number)) => Some(Cel::Double(*number as f64)),
        ("double", Cel::Uint(number)) => Some(Cel::Double(*number as f64)),
        ("double", Cel::Text(text)) => text.parse().ok().map(Cel::Double),
        ("bool", Cel::Text(text)) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Some(Cel::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Some(Cel::Bool(false)),
            _ => None,
        },
        ("bytes", Cel::Text(text)) => Some(Cel::Bytes(Rc::new(text.as_bytes().to_vec()))),
        ("bytes", Cel::Bytes(_)) | ("duration", Cel::Duration(_)) | ("timestamp", Cel::Time(_)) => Some(value.clone()),
        ("duration", Cel::Text(text)) => crate::crd::nanoseconds(text).map(Cel::Duration),
        ("timestamp", Cel::Text(text)) => text.parse().ok().map(Cel::Time),
        ("timestamp", Cel::Int(seconds)) => jiff::Timestamp::from_second(*seconds).ok().map(Cel::Time),
        ("string", value) => strings::shown(value).map(Cel::text),
        _ => None,
    };
    made.map_or_else(bad, Ok)
}

fn round<'a>(name: &str, value: &Cel<'a>) -> Outcome<'a> {
    Ok(match (name, value) {
        ("math.abs", Cel::Int(number)) => {
            Cel::Int(number.checked_abs().ok_or_else(|| EvalError::Other("integer overflow".into()))?)
        }
        ("math.abs", Cel::Double(number)) => Cel::Double(number.abs()),
        ("math.sign", Cel::Int(number)) => Cel::Int(number.signum()),
        ("math.sign", Cel::Double(number)) => Cel::Double(if *number == 0.0 { 0.0 } else { number.signum() }),
        ("math.ceil", Cel::Double(number)) => Cel::Double(number.ceil()),
        ("math.floor", Cel::Double(number)) => Cel::Double(number.floor()),
        ("math.round", Cel::Double(number)) => Cel::Double(number.round()),
        ("math.trunc", Cel::Double(number)) => Cel::Double(number.trunc()),
        _ => return overload(name, &[value]),
    })
}

fn list_function<'a>(name: &str, list: &List<'a>, whole: &Cel<'a>, args: &[Cel<'a>]) -> Outcome<'a> {
    let items: Vec<Cel<'a>> = list.iter().collect();
    let position = |found: Option<usize>| Ok(Cel::Int(found.map_or(-1, count)));
    match (name, args) {
        ("size", []) => Ok(Cel::Int(count(items.len()))),
        ("join", args) => strings::join(&items, args.first()),
        ("indexOf", [wanted]) => position(items.iter().position(|item| item == wanted)),
        ("lastIndexOf", [wanted]) => position(items.iter().rposition(|item| item == wanted)),
        ("isSorted", []) => {
            Ok(Cel::Bool(items.windows(2).all(|two| compare(&two[0], &two[1]).is_some_and(|order| order.is_le()))))
        }
        ("sum", []) => {
            let zero = match items.first() {
                Some(Cel::Double(_)) => Cel::Double(0.0),
                Some(Cel::Uint(_)) => Cel::Uint(0),
                Some(Cel::Duration(_)) => Cel::Duration(0),
                _ => Cel::Int(0),
            };
            items.iter().try_fold(zero, |sum, item| super::operators::binary("+", &sum, item))
        }
        ("min" | "max", []) => best(&items, name == "max"),
        ("distinct", []) => {
            let mut kept: Vec<Cel<'a>> = Vec::new();
            items.into_iter().for_each(|item| {
                if !kept.contains(&item) {
                    kept.push(item)
                }
            });
            Ok(Cel::list(kept))
        }
        ("sort", []) => {
            let mut sorted = items;
            sorted.sort_by(|a, b| compare(a, b).unwrap_or(std::cmp::Ordering::Equal));
            Ok(Cel::list(sorted))
        }
        ("reverse", []) => Ok(Cel::list(items.into_iter().rev().collect())),
        ("slice", [Cel::Int(from), Cel::Int(to)]) => {
            let bounds = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            let part = bounds.and_then(|(from, to)| items.get(from..to));
            part.map_or_else(|| other("slice: indexes out of range"), |part| Ok(Cel::list(part.to_vec())))
        }
        ("flatten", _) => {
            let flat = items.into_iter().flat_map(|item| match item {
                Cel::List(inner) => inner.iter().collect(),
                single => vec![single],
            });
            Ok(Cel::list(flat.collect()))
        }
        ("first", []) => Ok(Cel::optional(items.first().cloned())),
        ("last", []) => Ok(Cel::optional(items.last().cloned())),
        _ => overload(name, &[whole]),
    }
}

fn optional<'a>(name: &str, value: Option<&Cel<'a>>, whole: &Cel<'a>, args: &[Cel<'a>]) -> Outcome<'a> {
    match (name, args) {
        ("orValue", [fallback]) => Ok(value.unwrap_or(fallback).clone()),
        ("or", [fallback]) => Ok(if value.is_some() { whole.clone() } else { fallback.clone() }),
        ("hasValue", []) => Ok(Cel::Bool(value.is_some())),
        ("value", []) => value.cloned().map_or_else(|| other("optional.none() dereference"), Ok),
        _ => overload(name, &[whole]),
    }
}

fn time_part<'a>(name: &str, value: &Cel<'a>, args: &[Cel<'a>]) -> Outcome<'a> {
    if let Cel::Duration(nanos) = value {
        let size = match name {
            "getHours" => 3_600_000_000_000,
            "getMinutes" => 60_000_000_000,
            "getSeconds" => 1_000_000_000,
            "getMilliseconds" => return Ok(Cel::Int(nanos / 1_000_000 % 1000)),
            _ => return overload(name, &[value]),
        };
        return Ok(Cel::Int(nanos / size));
    }
    let Cel::Time(time) = value else { return overload(name, &[value]) };
    let zone = match args.first() {
        None => TimeZone::UTC,
        Some(Cel::Text(zone)) => TimeZone::get(zone).map_err(|error| EvalError::Other(error.to_string()))?,
        Some(wrong) => return overload(name, &[value, wrong]),
    };
    let date = time.to_zoned(zone);
    Ok(Cel::Int(match name {
        "getFullYear" => i64::from(date.year()),
        "getMonth" => i64::from(date.month()) - 1,
        "getDate" => i64::from(date.day()),
        "getDayOfMonth" => i64::from(date.day()) - 1,
        "getDayOfWeek" => i64::from(date.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(date.day_of_year()) - 1,
        "getHours" => i64::from(date.hour()),
        "getMinutes" => i64::from(date.minute()),
        "getSeconds" => i64::from(date.second()),
        "getMilliseconds" => i64::from(date.millisecond()),
        _ => return overload(name, &[value]),
    }))
}

fn quantity_function<'a>(name: &str, quantity: Quantity, args: &[Cel<'a>]) -> Outcome<'a> {
    let milli = quantity.milli();
    let second = match args.first() {
        Some(Cel::Quantity(second)) => *second,
        Some(Cel::Int(number)) => Quantity::from_units(i128::from(*number)),
        Some(wrong) => return overload(name, &[&Cel::Quantity(quantity), wrong]),
        None => Quantity::from_milli(0),
    };
    let order = milli.cmp(&second.milli());
    Ok(match name {
        "sign" => Cel::Int(i64::try_from(milli.signum()).unwrap_or_default()),
        "isInteger" => Cel::Bool(milli % 1000 == 0),
        "asInteger" => match i64::try_from(milli / 1000) {
            Ok(whole) if milli % 1000 == 0 => Cel::Int(whole),
            _ => return other("cannot convert value to integer"),
        },
        "asApproximateFloat" => Cel::Double(milli as f64 / 1000.0),
        "compareTo" => Cel::Int(order as i64),
        "isGreaterThan" => Cel::Bool(order.is_gt()),
        "isLessThan" => Cel::Bool(order.is_lt()),
        "add" => Cel::Quantity(Quantity::from_milli(milli.saturating_add(second.milli()))),
        "sub" => Cel::Quantity(Quantity::from_milli(milli.saturating_sub(second.milli()))),
        _ => return Err(EvalError::Overload(name.to_owned())),
    })
}

fn range_function<'a>(name: &str, range: (std::net::IpAddr, u8), args: &[Cel<'a>]) -> Outcome<'a> {
    let (address, length) = range;
    Ok(match (name, args) {
        ("ip", []) => Cel::Ip(address),
        ("masked", []) => Cel::Cidr(network::masked(address, length), length),
        ("prefixLength", []) => Cel::Int(i64::from(length)),
        ("string", []) => Cel::text(format!("{address}/{length}")),
        ("containsIP", [Cel::Ip(other)]) => Cel::Bool(network::contains(range, *other)),
        ("containsCIDR", [Cel::Cidr(other, inner)]) => Cel::Bool(*inner >= length && network::contains(range, *other)),
        ("containsIP", [Cel::Text(text)]) => return range_function(name, range, &[parse("ip", text)?]),
        ("containsCIDR", [Cel::Text(text)]) => return range_function(name, range, &[parse("cidr", text)?]),
        _ => return Err(EvalError::Overload(name.to_owned())),
    })
}
