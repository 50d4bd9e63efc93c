//! Operators between values.

use std::cmp::Ordering;
use std::rc::Rc;

use jiff::SignedDuration;

use super::EvalError;
use super::value::Cel;

/// How two values are ordered; none when they are not.
pub(super) fn compare(a: &Cel<'_>, b: &Cel<'_>) -> Option<Ordering> {
    match (a, b) {
        (Cel::Int(a), Cel::Int(b)) => Some(a.cmp(b)),
        (Cel::Uint(a), Cel::Uint(b)) => Some(a.cmp(b)),
        (Cel::Int(a), Cel::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Cel::Uint(a), Cel::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Cel::Double(a), Cel::Double(b)) => a.partial_cmp(b),
        (Cel::Double(a), b) => a.partial_cmp(&number(b)?),
        (a, Cel::Double(b)) => number(a)?.partial_cmp(b),
        (Cel::Text(a), Cel::Text(b)) => Some(a.cmp(b)),
        (Cel::Bytes(a), Cel::Bytes(b)) => Some(a.cmp(b)),
        (Cel::Bool(a), Cel::Bool(b)) => Some(a.cmp(b)),
        (Cel::Duration(a), Cel::Duration(b)) => Some(a.cmp(b)),
        (Cel::Time(a), Cel::Time(b)) => Some(a.cmp(b)),
        (Cel::Quantity(a), Cel::Quantity(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn number(value: &Cel<'_>) -> Option<f64> {
    match value {
        Cel::Int(number) => Some(*number as f64),
        Cel::Uint(number) => Some(*number as f64),
        Cel::Double(number) => Some(*number),
        _ => None,
    }
}

pub(super) fn overload<T>(name: &str, args: &[&Cel<'_>]) -> Result<T, EvalError> {
    let types: Vec<&str> = args.iter().map(|arg| arg.type_name()).collect();
    Err(EvalError::Overload(format!("{name} applied to ({})", types.join(", "))))
}

fn range<T>(value: Option<T>) -> Result<T, EvalError> {
    value.ok_or_else(|| EvalError::Other("return error for overflow".into()))
}

/// A comparison, an arithmetic operator or `in`.
pub(super) fn binary<'a>(name: &'static str, a: &Cel<'a>, b: &Cel<'a>) -> Result<Cel<'a>, EvalError> {
    let ordered = |wanted: fn(Ordering) -> bool| match compare(a, b) {
        Some(ordering) => Ok(Cel::Bool(wanted(ordering))),
        None => overload(&format!("_{name}_"), &[a, b]),
    };
    match name {
        "==" => Ok(Cel::Bool(a == b)),
        "!=" => Ok(Cel::Bool(a != b)),
        "<" => ordered(Ordering::is_lt),
        "<=" => ordered(Ordering::is_le),
        ">" => ordered(Ordering::is_gt),
        ">=" => ordered(Ordering::is_ge),
        "in" => match b {
            Cel::List(items) => Ok(Cel::Bool(items.iter().any(|item| item == *a))),
            Cel::Map(map) => Ok(Cel::Bool(map.get(a).is_some())),
            _ => overload("@in", &[a, b]),
        },
        "+" => add(a, b),
        "-" => subtract(a, b),
        _ => multiply(name, a, b),
    }
}

fn add<'a>(a: &Cel<'a>, b: &Cel<'a>) -> Result<Cel<'a>, EvalError> {
    Ok(match (a, b) {
        (Cel::Int(a), Cel::Int(b)) => Cel::Int(range(a.checked_add(*b))?),
        (Cel::Uint(a), Cel::Uint(b)) => Cel::Uint(range(a.checked_add(*b))?),
        (Cel::Double(a), Cel::Double(b)) => Cel::Double(a + b),
        (Cel::Text(a), Cel::Text(b)) => Cel::text(format!("{a}{b}")),
        (Cel::Bytes(a), Cel::Bytes(b)) => Cel::Bytes(Rc::new([a.as_slice(), b.as_slice()].concat())),
        (Cel::List(a), Cel::List(b)) => Cel::list(a.iter().chain(b.iter()).collect()),
        (Cel::Duration(a), Cel::Duration(b)) => Cel::Duration(range(a.checked_add(*b))?),
        (Cel::Time(time), Cel::Duration(by)) | (Cel::Duration(by), Cel::Time(time)) => {
            Cel::Time(range(time.checked_add(SignedDuration::from_nanos(*by)).ok())?)
        }
        _ => return overload("_+_", &[a, b]),
    })
}

fn subtract<'a>(a: &Cel<'a>, b: &Cel<'a>) -> Result<Cel<'a>, EvalError> {
    Ok(match (a, b) {
        (Cel::Int(a), Cel::Int(b)) => Cel::Int(range(a.checked_sub(*b))?),
        (Cel::Uint(a), Cel::Uint(b)) => Cel::Uint(range(a.checked_sub(*b))?),
        (Cel::Double(a), Cel::Double(b)) => Cel::Double(a - b),
        (Cel::Duration(a), Cel::Duration(b)) => Cel::Duration(range(a.checked_sub(*b))?),
        (Cel::Time(time), Cel::Duration(by)) => {
            Cel::Time(range(time.checked_sub(SignedDuration::from_nanos(*by)).ok())?)
        }
        (Cel::Time(a), Cel::Time(b)) => Cel::Duration(range(i64::try_from(a.duration_since(*b).as_nanos()).ok())?),
        _ => return overload("_-_", &[a, b]),
    })
}

fn multiply<'a>(name: &'static str, a: &Cel<'a>, b: &Cel<'a>) -> Result<Cel<'a>, EvalError> {
    let is_zero = matches!(b, Cel::Int(0) | Cel::Uint(0));
    if is_zero && name == "/" {
        return Err(EvalError::Other("division by zero".into()));
    }
    if is_zero && name == "%" {
        return Err(EvalError::Other("modulus by zero".into()));
    }
    Ok(match (name, a, b) {
        ("*", Cel::Int(a), Cel::Int(b)) => Cel::Int(range(a.checked_mul(*b))?),
        ("*", Cel::Uint(a), Cel::Uint(b)) => Cel::Uint(range(a.checked_mul(*b))?),
        ("*", Cel::Double(a), Cel::Double(b)) => Cel::Double(a * b),
        ("/", Cel::Int(a), Cel::Int(b)) => Cel::Int(range(a.checked_div(*b))?),
        ("/", Cel::Uint(a), Cel::Uint(b)) => Cel::Uint(a / b),
        ("/", Cel::Double(a), Cel::Double(b)) => Cel::Double(a / b),
        ("%", Cel::Int(a), Cel::Int(b)) => Cel::Int(range(a.checked_rem(*b))?),
        ("%", Cel::Uint(a), Cel::Uint(b)) => Cel::Uint(a % b),
        _ => return overload(&format!("_{name}_"), &[a, b]),
    })
}

pub(super) fn negate<'a>(value: &Cel<'a>) -> Result<Cel<'a>, EvalError> {
    Ok(match value {
        Cel::Int(number) => Cel::Int(range(number.checked_neg())?),
        Cel::Double(number) => Cel::Double(-number),
        Cel::Duration(nanos) => Cel::Duration(range(nanos.checked_neg())?),
        _ => return overload("-_", &[value]),
    })
}
