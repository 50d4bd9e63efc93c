//! Functions of texts. Positions count characters, not bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use super::EvalError;
use super::functions::count;
use super::operators::overload;
use super::value::Cel;

type Outcome<'a> = Result<Cel<'a>, EvalError>;

fn out_of_range<'a>(at: i64) -> Outcome<'a> {
    Err(EvalError::Other(format!("index out of range: {at}")))
}

/// Calls a member function of a text.
pub(super) fn call<'a>(name: &str, text: &Cow<'a, str>, args: &[Cel<'a>], regex: Option<&Regex>) -> Outcome<'a> {
    match (name, args) {
        ("size", []) => Ok(Cel::Int(count(text.chars().count()))),
        ("contains", [Cel::Text(part)]) => Ok(Cel::Bool(text.contains(&**part))),
        ("startsWith", [Cel::Text(part)]) => Ok(Cel::Bool(text.starts_with(&**part))),
        ("endsWith", [Cel::Text(part)]) => Ok(Cel::Bool(text.ends_with(&**part))),
        ("matches" | "find" | "findAll", [Cel::Text(pattern), rest @ ..]) => match regex {
            Some(regex) => with_regex(name, text, regex, rest),
            None => {
                let compiled = crate::crd::regex(pattern)
                    .map_err(|_| EvalError::Other(format!("invalid regular expression: {pattern}")))?;
                with_regex(name, text, &compiled, rest)
            }
        },
        ("lowerAscii", []) => Ok(Cel::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Cel::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Cel::text(text.trim())),
        ("reverse", []) => Ok(Cel::text(text.chars().rev().collect::<String>())),
        ("charAt", [Cel::Int(at)]) => match usize::try_from(*at).ok().filter(|at| *at <= text.chars().count()) {
            Some(at) => Ok(Cel::text(text.chars().nth(at).map(String::from).unwrap_or_default())),
            None => out_of_range(*at),
        },
        ("substring", [Cel::Int(from)]) => substring(text, *from, count(text.chars().count())),
        ("substring", [Cel::Int(from), Cel::Int(to)]) => substring(text, *from, *to),
        ("indexOf" | "lastIndexOf", [Cel::Text(part), rest @ ..]) => position(name, text, part, rest),
        ("replace", [Cel::Text(from), Cel::Text(to)]) => Ok(Cel::text(text.replace(&**from, to))),
        ("replace", [Cel::Text(from), Cel::Text(to), Cel::Int(most)]) => Ok(Cel::text(match usize::try_from(*most) {
            Ok(most) => text.replacen(&**from, to, most),
            Err(_) => text.replace(&**from, to),
        })),
        ("split", [Cel::Text(by), rest @ ..]) => split(text, by, rest),
        ("format", [Cel::List(values)]) => format(text, &values.iter().collect::<Vec<_>>()),
        _ => overload(name, &args.iter().collect::<Vec<_>>()),
    }
}

fn with_regex<'a>(name: &str, text: &str, regex: &Regex, rest: &[Cel<'a>]) -> Outcome<'a> {
    let most = match rest.first() {
        Some(Cel::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    Ok(match name {
        "matches" => Cel::Bool(regex.is_match(text)),
        "find" => Cel::text(regex.find(text).map(|found| found.as_str()).unwrap_or_default()),
        _ => Cel::list(regex.find_iter(text).take(most).map(|found| Cel::text(found.as_str())).collect()),
    })
}

fn substring<'a>(text: &str, from: i64, to: i64) -> Outcome<'a> {
    let length = count(text.chars().count());
    if from < 0 || to > length || from > to {
        return out_of_range(if from < 0 || from > to { from } else { to });
    }
    let (skip, take) = (usize::try_from(from).unwrap_or(0), usize::try_from(to - from).unwrap_or(0));
    Ok(Cel::text(text.chars().skip(skip).take(take).collect::<String>()))
}

fn position<'a>(name: &str, text: &str, part: &str, rest: &[Cel<'a>]) -> Outcome<'a> {
    let characters = |bytes: usize| count(text[..bytes].chars().count());
    let from = match rest.first() {
        Some(Cel::Int(from)) => *from,
        _ if name == "indexOf" => 0,
        _ => count(text.chars().count()),
    };
    if from < 0 || from > count(text.chars().count()) {
        return out_of_range(from);
    }
    let found = text.match_indices(part).map(|(at, _)| characters(at));
    Ok(Cel::Int(
        match name {
            "indexOf" => found.into_iter().find(|at| *at >= from),
            _ => found.filter(|at| *at <= from).last(),
        }
        .unwrap_or(-1),
    ))
}

fn split<'a>(text: &str, by: &str, rest: &[Cel<'a>]) -> Outcome<'a> {
    let most = match rest.first() {
        Some(Cel::Int(0)) => return Ok(Cel::list(Vec::new())),
        Some(Cel::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let parts: Vec<Cel<'a>> = match by {
        "" => text.chars().map(|letter| Cel::text(letter.to_string())).collect(),
        by => text.splitn(most, by).map(Cel::text).collect(),
    };
    Ok(Cel::list(parts))
}

/// The items of a list of texts, joined.
pub(super) fn join<'a>(items: &[Cel<'a>], separator: Option<&Cel<'a>>) -> Outcome<'a> {
    let separator = match separator {
        None => "",
        Some(Cel::Text(text)) => text,
        Some(wrong) => return overload("join", &[wrong]),
    };
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        let Cel::Text(text) = item else { return overload("join", &[item]) };
        texts.push(&**text);
    }
    Ok(Cel::text(texts.join(separator)))
}

/// A value as text, for the types that have one.
pub(super) fn shown(value: &Cel<'_>) -> Option<String> {
    Some(match value {
        Cel::Text(text) => text.to_string(),
        Cel::Bool(value) => value.to_string(),
        Cel::Int(number) => number.to_string(),
        Cel::Uint(number) => number.to_string(),
        Cel::Double(number) => number.to_string(),
        Cel::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Cel::Duration(nanos) => format!("{}s", *nanos as f64 / 1e9),
        Cel::Time(time) => time.to_string(),
        Cel::Quantity(quantity) => quantity.to_string(),
        Cel::Ip(address) => address.to_string(),
        Cel::Cidr(address, length) => format!("{address}/{length}"),
        Cel::Type(name) => (*name).to_owned(),
        _ => return None,
    })
}

/// A value inside a message, also lists and maps.
fn spelled(value: &Cel<'_>) -> String {
    match value {
        Cel::List(list) => format!("[{}]", list.iter().map(|item| spelled(&item)).collect::<Vec<_>>().join(", ")),
        Cel::Map(map) => {
            let pair = |key: &Cel<'_>| {
                format!("{}: {}", spelled(key), map.get(key).map(|value| spelled(&value)).unwrap_or_default())
            };
            format!("{{{}}}", map.keys().iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Cel::Null => "null".into(),
        other => shown(other).unwrap_or_default(),
    }
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o` and `%%`, with a precision.
fn format<'a>(pattern: &str, values: &[Cel<'a>]) -> Outcome<'a> {
    let (mut out, mut next) = (String::new(), values.iter());
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut precision = String::new();
        if letters.next_if_eq(&'.').is_some() {
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                precision.push(digit);
            }
        }
        let clause = letters.next();
        if clause == Some('%') {
            out.push('%');
            continue;
        }
        let Some(value) = next.next() else { return Err(EvalError::Other("format: too few arguments".into())) };
        let digits = precision.parse::<usize>().unwrap_or(6).min(100);
        match (clause, value) {
            (Some('s'), value) => out.push_str(&spelled(value)),
            (Some('d'), Cel::Int(_) | Cel::Uint(_)) => out.push_str(&spelled(value)),
            (Some('f'), Cel::Double(number)) => out.push_str(&format!("{number:.digits$}")),
            (Some('f'), Cel::Int(number)) => out.push_str(&format!("{:.digits$}", *number as f64)),
            (Some('e'), Cel::Double(number)) => out.push_str(&format!("{number:.digits$e}")),
            (Some('b'), Cel::Int(number)) => out.push_str(&format!("{number:b}")),
            (Some('b'), Cel::Bool(value)) => out.push(if *value { '1' } else { '0' }),
            (Some('x'), Cel::Int(number)) => out.push_str(&format!("{number:x}")),
            (Some('X'), Cel::Int(number)) => out.push_str(&format!("{number:X}")),
            (Some('x'), Cel::Text(text)) => out.extend(text.bytes().map(|byte| format!("{byte:02x}"))),
            (Some('o'), Cel::Int(number)) => out.push_str(&format!("{number:o}")),
            (_, value) => return overload("format", &[value]),
        }
    }
    Ok(Cel::text(out))
}

/// Base64 and quotes.
pub(super) fn encoding<'a>(name: &str, value: &Cel<'a>) -> Outcome<'a> {
    match (name, value) {
        ("base64.encode", Cel::Bytes(bytes)) => Ok(Cel::text(STANDARD.encode(bytes.as_slice()))),
        ("base64.decode", Cel::Text(text)) => match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => Ok(Cel::Bytes(std::rc::Rc::new(bytes))),
            Err(error) => Err(EvalError::Other(error.to_string())),
        },
        ("strings.quote", Cel::Text(text)) => Ok(Cel::text(serde_json::Value::from(&**text).to_string())),
        (_, value) => overload(name, &[value]),
    }
}
