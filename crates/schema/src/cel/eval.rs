//! Evaluation: a walk over the tree that pays for each step.

use std::borrow::Cow;
use std::rc::Rc;

use super::macros::{Kind, Macro};
use super::parser::{Expr, Literal, Node};
use super::value::{Cel, Map};
use super::{Budget, EvalError, functions, operators};

/// Longest text, list or map that an expression may make.
const MAX_MADE: usize = 1 << 20;

pub(super) struct Machine<'a, 'b> {
    variables: Vec<(&'a str, Cel<'a>)>,
    budget: &'b mut Budget,
}

type Outcome<'a> = Result<Cel<'a>, EvalError>;

fn missing<'a>(name: &str) -> Outcome<'a> {
    Err(EvalError::NoSuchKey(name.to_owned()))
}

impl<'a, 'b> Machine<'a, 'b> {
    pub(super) fn new(variables: Vec<(&'a str, Cel<'a>)>, budget: &'b mut Budget) -> Self {
        Self { variables, budget }
    }

    pub(super) fn eval(&mut self, expr: &'a Expr) -> Outcome<'a> {
        self.budget.spend(1)?;
        match &expr.node {
            Node::Literal(literal) => Ok(constant(literal)),
            Node::Name(name) => self.variable(name),
            Node::Select { of, field, optional } => {
                let of = self.eval(of)?;
                select(&of, field, *optional)
            }
            Node::Has { of, field } => match self.eval(of)? {
                Cel::Map(map) => Ok(Cel::Bool(map.field(field).is_some())),
                Cel::Optional(value) => Ok(Cel::Bool(match value.as_deref() {
                    Some(Cel::Map(map)) => map.field(field).is_some(),
                    _ => false,
                })),
                other => operators::overload("has()", &[&other]),
            },
            Node::Index { of, index, optional } => {
                let (of, key) = (self.eval(of)?, self.eval(index)?);
                index_of(&of, &key, *optional)
            }
            Node::Operator { name, args } => self.operator(name, args),
            Node::Call { name, target, args, regex } => {
                let target = target.as_ref().map(|target| self.eval(target)).transpose()?;
                let args: Vec<Cel<'a>> = args.iter().map(|arg| self.eval(arg)).collect::<Result<_, _>>()?;
                let size: usize = target.iter().chain(&args).map(Cel::size).sum();
                self.budget.spend(size)?;
                let made = functions::call(name, target, args, regex.as_ref())?;
                self.made(made)
            }
            Node::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (optional, item) in items {
                    match (optional, self.eval(item)?) {
                        (true, Cel::Optional(value)) => list.extend(value.as_deref().cloned()),
                        (_, value) => list.push(value),
                    }
                }
                Ok(Cel::list(list))
            }
            Node::Map(fields) => self.map(fields),
            Node::Macro(found) => self.expand(found),
            Node::Message { fields, .. } => self.message(fields),
        }
    }

    fn message(&mut self, fields: &'a [(bool, String, Expr)]) -> Outcome<'a> {
        let mut made = Vec::with_capacity(fields.len());
        for (optional, name, value) in fields {
            let value = match (optional, self.eval(value)?) {
                (true, Cel::Optional(value)) => value.as_deref().cloned(),
                (_, value) => Some(value),
            };
            made.extend(value.map(|value| (Cel::Text(Cow::Borrowed(name.as_str())), value)));
        }
        Ok(Cel::Map(Map::Made(Rc::new(made))))
    }

    /// Pays for what was made, and refuses it when it is too large.
    fn made(&mut self, value: Cel<'a>) -> Outcome<'a> {
        let size = match &value {
            Cel::Text(text) => text.len(),
            Cel::List(list) => list.len(),
            _ => 0,
        };
        if size > MAX_MADE {
            return Err(EvalError::Budget);
        }
        self.budget.spend(value.size())?;
        Ok(value)
    }

    fn variable(&self, name: &'a str) -> Outcome<'a> {
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        Ok(Cel::Type(match name {
            "bool" => "bool",
            "bytes" => "bytes",
            "double" => "double",
            "int" => "int",
            "list" => "list",
            "map" => "map",
            "null_type" => "null_type",
            "string" => "string",
            "uint" => "uint",
            _ => "type",
        }))
    }

    fn map(&mut self, fields: &'a [(bool, Expr, Expr)]) -> Outcome<'a> {
        let mut made: Vec<(Cel<'a>, Cel<'a>)> = Vec::with_capacity(fields.len());
        for (optional, key, value) in fields {
            let key = self.eval(key)?;
            let value = match (optional, self.eval(value)?) {
                (true, Cel::Optional(value)) => value.as_deref().cloned(),
                (_, value) => Some(value),
            };
            if made.iter().any(|(known, _)| *known == key) {
                return Err(EvalError::Other("Failed with repeated key".into()));
            }
            made.extend(value.map(|value| (key, value)));
        }
        Ok(Cel::Map(Map::Made(Rc::new(made))))
    }

    fn operator(&mut self, name: &'static str, args: &'a [Expr]) -> Outcome<'a> {
        match name {
            "&&" => self.junction(args, false),
            "||" => self.junction(args, true),
            "?:" => match self.eval(&args[0])? {
                Cel::Bool(yes) => self.eval(&args[if yes { 1 } else { 2 }]),
                other => operators::overload("_?_:_", &[&other]),
            },
            "!" => match self.eval(&args[0])? {
                Cel::Bool(value) => Ok(Cel::Bool(!value)),
                other => operators::overload("!_", &[&other]),
            },
            "neg" => operators::negate(&self.eval(&args[0])?),
            _ => {
                let (a, b) = (self.eval(&args[0])?, self.eval(&args[1])?);
                self.budget.spend(a.size().min(b.size()).max(if name == "in" || name == "+" {
                    b.size()
                } else {
                    0
                }))?;
                let made = operators::binary(name, &a, &b)?;
                if name == "+" { self.made(made) } else { Ok(made) }
            }
        }
    }

    /// `&&` and `||`: a side that decides alone decides, whatever becomes of the other.
    fn junction(&mut self, args: &'a [Expr], decisive: bool) -> Outcome<'a> {
        let mut failed = None;
        for arg in args {
            match self.eval(arg) {
                Ok(Cel::Bool(value)) if value == decisive => return Ok(Cel::Bool(decisive)),
                Ok(Cel::Bool(_)) => {}
                Ok(other) => {
                    failed =
                        failed.or(operators::overload::<()>(if decisive { "_||_" } else { "_&&_" }, &[&other]).err())
                }
                Err(EvalError::Budget) => return Err(EvalError::Budget),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Cel::Bool(!decisive)), Err)
    }

    fn expand(&mut self, found: &'a Macro) -> Outcome<'a> {
        let of = self.eval(&found.of)?;
        match (found.kind, of) {
            (Kind::Bind, value) => self.with(found, value, None, |machine| machine.eval(&found.body)),
            (Kind::OptMap | Kind::OptFlatMap, Cel::Optional(value)) => {
                let Some(value) = value.as_deref().cloned() else { return Ok(Cel::Optional(None)) };
                let result = self.with(found, value, None, |machine| machine.eval(&found.body))?;
                Ok(if found.kind == Kind::OptMap { Cel::optional(Some(result)) } else { result })
            }
            (_, Cel::List(list)) => {
                let items = (0..list.len()).map(|at| {
                    let value = list.get(at).unwrap_or(Cel::Null);
                    match found.second {
                        Some(_) => (Cel::Int(i64::try_from(at).unwrap_or(i64::MAX)), Some(value)),
                        None => (value, None),
                    }
                });
                self.fold(found, items)
            }
            (_, Cel::Map(map)) => {
                let items = map.keys().into_iter().map(|key| {
                    let value = found.second.as_ref().and_then(|_| map.get(&key));
                    (key, value)
                });
                self.fold(found, items)
            }
            (_, other) => operators::overload("comprehension", &[&other]),
        }
    }

    /// Runs something with the macro's variables set.
    fn with(
        &mut self,
        found: &'a Macro,
        first: Cel<'a>,
        second: Option<Cel<'a>>,
        run: impl FnOnce(&mut Self) -> Outcome<'a>,
    ) -> Outcome<'a> {
        let depth = self.variables.len();
        self.variables.push((&found.first, first));
        if let (Some(name), Some(value)) = (&found.second, second) {
            self.variables.push((name, value));
        }
        let result = run(self);
        self.variables.truncate(depth);
        result
    }

    fn fold(&mut self, found: &'a Macro, items: impl Iterator<Item = (Cel<'a>, Option<Cel<'a>>)>) -> Outcome<'a> {
        let (mut made, mut pairs, mut count, mut failed) = (Vec::new(), Vec::new(), 0u32, None);
        for (first, second) in items {
            self.budget.spend(1)?;
            if let Some(filter) = &found.filter {
                let kept = self.with(found, first.clone(), second.clone(), |machine| machine.eval(filter))?;
                if kept != Cel::Bool(true) {
                    continue;
                }
            }
            let result = self.with(found, first.clone(), second, |machine| machine.eval(&found.body));
            match (found.kind, result) {
                (Kind::Map, result) => made.push(result?),
                (Kind::TransformMap, result) => pairs.push((first, result?)),
                (_, Err(EvalError::Budget)) => return Err(EvalError::Budget),
                (Kind::All | Kind::Exists, Err(error)) => failed = failed.or(Some(error)),
                (_, Err(error)) => return Err(error),
                (Kind::All, Ok(Cel::Bool(false))) => return Ok(Cel::Bool(false)),
                (Kind::Exists, Ok(Cel::Bool(true))) => return Ok(Cel::Bool(true)),
                (Kind::ExistsOne, Ok(Cel::Bool(true))) => count += 1,
                (Kind::Filter, Ok(Cel::Bool(true))) => made.push(first),
                (_, Ok(Cel::Bool(_))) => {}
                (_, Ok(other)) => return operators::overload("comprehension", &[&other]),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(match found.kind {
            Kind::All => Cel::Bool(true),
            Kind::Exists => Cel::Bool(false),
            Kind::ExistsOne => Cel::Bool(count == 1),
            Kind::TransformMap => Cel::Map(Map::Made(Rc::new(pairs))),
            _ => Cel::list(made),
        })
    }
}

fn constant(literal: &Literal) -> Cel<'_> {
    match literal {
        Literal::Null => Cel::Null,
        Literal::Bool(value) => Cel::Bool(*value),
        Literal::Int(number) => Cel::Int(*number),
        Literal::Uint(number) => Cel::Uint(*number),
        Literal::Double(number) => Cel::Double(*number),
        Literal::Text(text) => Cel::Text(Cow::Borrowed(text)),
        Literal::Bytes(bytes) => Cel::Bytes(Rc::new(bytes.clone())),
    }
}

/// What is below an optional, or the value itself; and whether it was optional.
fn opened<'c, 'a>(value: &'c Cel<'a>) -> (Option<&'c Cel<'a>>, bool) {
    match value {
        Cel::Optional(inner) => (inner.as_deref(), true),
        other => (Some(other), false),
    }
}

fn select<'a>(of: &Cel<'a>, field: &str, optional: bool) -> Outcome<'a> {
    let (inner, was_optional) = opened(of);
    let found = match inner {
        None => None,
        Some(Cel::Map(map)) => map.field(field),
        Some(other) => return operators::overload("field selection", &[other]),
    };
    if optional || was_optional {
        return Ok(Cel::optional(found));
    }
    found.map_or_else(|| missing(field), Ok)
}

fn index_of<'a>(of: &Cel<'a>, key: &Cel<'a>, optional: bool) -> Outcome<'a> {
    let (inner, was_optional) = opened(of);
    let found = match (inner, key) {
        (None, _) => None,
        (Some(Cel::List(list)), Cel::Int(at)) => usize::try_from(*at).ok().and_then(|at| list.get(at)),
        (Some(Cel::List(list)), Cel::Uint(at)) => usize::try_from(*at).ok().and_then(|at| list.get(at)),
        (Some(Cel::Map(map)), key) => map.get(key),
        (Some(other), key) => return operators::overload("_[_]", &[other, key]),
    };
    if optional || was_optional {
        return Ok(Cel::optional(found));
    }
    match (found, key) {
        (Some(found), _) => Ok(found),
        (None, Cel::Int(at)) => Err(EvalError::Other(format!("index out of bounds: {at}"))),
        (None, Cel::Text(name)) => missing(name),
        (None, other) => missing(other.type_name()),
    }
}
