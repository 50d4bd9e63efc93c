//! Checks before anything runs: names, fields, functions, and operators between what is known not to go together.

use super::CompileError;
use super::functions::{self, Returns};
use super::macros::{Kind, Macro};
use super::parser::{Expr, Literal, Node};
use super::types::Type;
use super::value::unescape;

/// The type of a whole expression.
pub(super) fn check<'a>(source: &str, expr: &Expr, variables: &[(&str, Type<'a>)]) -> Result<Type<'a>, CompileError> {
    let scopes = variables.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    Checker { source, scopes }.of(expr)
}

struct Checker<'s, 'a> {
    source: &'s str,
    scopes: Vec<(String, Type<'a>)>,
}

/// The type of a step of a JSON patch, which has these fields.
const STEP: &str = "JSONPatch";
const STEP_FIELDS: [&str; 4] = ["op", "path", "from", "value"];

const TYPE_NAMES: [&str; 11] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"];

impl<'a> Checker<'_, 'a> {
    fn fail<T>(&self, at: usize, text: impl Into<String>) -> Result<T, CompileError> {
        Err(CompileError::new(self.source, at, text))
    }

    fn of(&mut self, expr: &Expr) -> Result<Type<'a>, CompileError> {
        Ok(match &expr.node {
            Node::Literal(literal) => literal_type(literal),
            Node::Name(name) => self.name(expr.at, name)?,
            Node::Select { of, field, optional } => {
                let of = self.of(of)?;
                let found = self.field(expr.at, &of, field)?;
                if *optional || matches!(of, Type::Optional(_)) { Type::Optional(Box::new(flat(found))) } else { found }
            }
            Node::Has { of, field } => {
                let of = self.of(of)?;
                self.field(expr.at, &of, field)?;
                Type::Bool
            }
            Node::Index { of, index, optional } => {
                let (of, key) = (self.of(of)?, self.of(index)?);
                let found = self.index(expr.at, &of, &key)?;
                if *optional || matches!(of, Type::Optional(_)) { Type::Optional(Box::new(flat(found))) } else { found }
            }
            Node::Operator { name, args } => self.operator(expr.at, name, args)?,
            Node::Call { name, target, args, .. } => self.call(expr.at, name, target.as_deref(), args)?,
            Node::List(items) => {
                let mut of = None;
                for (_, item) in items {
                    let found = self.of(item)?;
                    of = Some(match of {
                        None => found,
                        Some(before) if Type::fits(&before, &found) => before,
                        Some(_) => Type::Dyn,
                    });
                }
                Type::List(Box::new(of.unwrap_or(Type::Dyn)))
            }
            Node::Map(fields) => {
                for (_, key, value) in fields {
                    self.of(key)?;
                    self.of(value)?;
                }
                Type::Map(Box::new(Type::Dyn))
            }
            Node::Macro(found) => self.expand(expr.at, found)?,
            Node::Message { ty, fields } => {
                self.message(expr.at, ty, fields)?;
                Type::Map(Box::new(Type::Dyn))
            }
        })
    }

    /// Types are known by the name they begin with; below it they are named after their fields.
    fn message(&mut self, at: usize, ty: &str, fields: &[(bool, String, Expr)]) -> Result<(), CompileError> {
        let root = ty.split('.').next().unwrap_or_default();
        if !self.scopes.iter().any(|(known, _)| known == root) {
            return self.fail(at, format!("undeclared reference to '{ty}' (in container '')"));
        }
        for (_, name, value) in fields {
            if ty == STEP && !STEP_FIELDS.contains(&name.as_str()) {
                return self.fail(value.at, format!("undefined field '{name}'"));
            }
            let wanted = format!("{ty}.{name}");
            if ty != STEP
                && let Some(found) = message_types(value).into_iter().find(|found| **found != wanted)
            {
                let text = format!("expected type of field '{name}' is '{wanted}' but provided type is '{found}'");
                return self.fail(value.at, text);
            }
            self.of(value)?;
        }
        Ok(())
    }

    fn name(&self, at: usize, name: &str) -> Result<Type<'a>, CompileError> {
        if let Some((_, ty)) = self.scopes.iter().rev().find(|(known, _)| known == name) {
            return Ok(ty.clone());
        }
        if TYPE_NAMES.contains(&name) {
            return Ok(Type::Other("type"));
        }
        self.fail(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn field(&self, at: usize, of: &Type<'a>, field: &str) -> Result<Type<'a>, CompileError> {
        let undefined = || self.fail(at, format!("undefined field '{field}'"));
        match of {
            Type::Dyn => Ok(Type::Dyn),
            Type::Optional(inner) => self.field(at, inner, field),
            Type::Map(values) => Ok((**values).clone()),
            Type::Metadata => match field {
                "name" | "generateName" => Ok(Type::Text),
                _ => undefined(),
            },
            Type::Object(schema, whole) => {
                let name = unescape(field);
                match (&*name, whole) {
                    ("apiVersion" | "kind", true) => Ok(Type::Text),
                    ("metadata", true) => Ok(Type::Metadata),
                    (name, _) => schema.properties.get(name).map_or_else(undefined, |found| Ok(Type::of(found, false))),
                }
            }
            other => self.fail(at, format!("type '{}' does not support field selection", other.name())),
        }
    }

    fn index(&self, at: usize, of: &Type<'a>, key: &Type<'a>) -> Result<Type<'a>, CompileError> {
        match of {
            Type::Dyn => Ok(Type::Dyn),
            Type::Optional(inner) => self.index(at, inner, key),
            Type::List(item) if key.is_number() || matches!(key, Type::Dyn) => Ok((**item).clone()),
            Type::Map(values) => Ok((**values).clone()),
            other => self.mismatch(at, "_[_]", &[other, key]),
        }
    }

    fn mismatch<T>(&self, at: usize, operator: &str, types: &[&Type<'a>]) -> Result<T, CompileError> {
        let names: Vec<&str> = types.iter().map(|ty| ty.name()).collect();
        self.fail(at, format!("found no matching overload for '{operator}' applied to '({})'", names.join(", ")))
    }

    fn operator(&mut self, at: usize, name: &str, args: &[Expr]) -> Result<Type<'a>, CompileError> {
        let types: Vec<Type<'a>> = args.iter().map(|arg| self.of(arg)).collect::<Result<_, _>>()?;
        let all: Vec<&Type<'a>> = types.iter().collect();
        let shown = match name {
            "!" => "!_".to_owned(),
            "neg" => "-_".to_owned(),
            "?:" => "_?_:_".to_owned(),
            "in" => "@in".to_owned(),
            other => format!("_{other}_"),
        };
        let (first, second) = (all[0], all.get(1).copied().unwrap_or(all[0]));
        let fits = match name {
            "&&" | "||" | "!" => all.iter().all(|ty| ty.fits(&Type::Bool)),
            "?:" => first.fits(&Type::Bool) && second.fits(all[2]),
            "==" | "!=" => first.fits(second),
            "<" | "<=" | ">" | ">=" => first.fits(second) || (first.is_number() && second.is_number()),
            "in" => matches!(second, Type::List(_) | Type::Map(_) | Type::Object(..) | Type::Dyn),
            "neg" => first.is_number() || matches!(first, Type::Dyn | Type::Duration),
            "+" | "-" => {
                let is_time = |ty: &Type<'a>| matches!(ty, Type::Time | Type::Duration);
                let scalar = |ty: &Type<'a>| !matches!(ty, Type::Bool | Type::Object(..) | Type::Map(_) | Type::Null);
                scalar(first) && scalar(second) && (first.fits(second) || (is_time(first) && is_time(second)))
            }
            _ => first.fits(second) && (first.is_number() || matches!(first, Type::Dyn)),
        };
        if !fits {
            return self.mismatch(at, &shown, &all);
        }
        Ok(match name {
            "?:" => {
                if matches!(second, Type::Dyn) {
                    all[2].clone()
                } else {
                    second.clone()
                }
            }
            "neg" => first.clone(),
            "-" if matches!((first, second), (Type::Time, Type::Time)) => Type::Duration,
            "+" | "-" if matches!((first, second), (Type::Duration, Type::Time)) => Type::Time,
            "+" | "-" | "*" | "/" | "%" => {
                if matches!(first, Type::Dyn) {
                    second.clone()
                } else {
                    first.clone()
                }
            }
            _ => Type::Bool,
        })
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Expr>, args: &[Expr]) -> Result<Type<'a>, CompileError> {
        let target = target.map(|target| self.of(target)).transpose()?;
        let mut types = Vec::with_capacity(args.len());
        for arg in args {
            types.push(self.of(arg)?);
        }
        let Some(signature) = functions::signature(name, target.is_some()) else {
            return self.fail(at, format!("undeclared reference to '{name}' (in container '')"));
        };
        let fits = signature.takes(types.len())
            && target.as_ref().is_none_or(|target| matches!(target, Type::Dyn) || signature.on(target.name()));
        if !fits {
            let all: Vec<&Type<'a>> = target.iter().chain(&types).collect();
            return self.mismatch(at, name, &all);
        }
        Ok(match signature.returns {
            Returns::Dyn => Type::Dyn,
            Returns::Bool => Type::Bool,
            Returns::Int => Type::Int,
            Returns::Uint => Type::Uint,
            Returns::Double => Type::Double,
            Returns::Text => Type::Text,
            Returns::Bytes => Type::Bytes,
            Returns::Duration => Type::Duration,
            Returns::Time => Type::Time,
            Returns::Texts => Type::List(Box::new(Type::Text)),
            Returns::Other(name) => Type::Other(name),
            Returns::Optional => Type::Optional(Box::new(types.into_iter().next().unwrap_or(Type::Dyn))),
            Returns::Target => target.unwrap_or(Type::Dyn),
            Returns::Inner => match target {
                Some(Type::List(inner) | Type::Optional(inner)) => *inner,
                _ => Type::Dyn,
            },
        })
    }

    fn expand(&mut self, at: usize, found: &Macro) -> Result<Type<'a>, CompileError> {
        let of = self.of(&found.of)?;
        let (key, value) = match (&of, found.kind) {
            (_, Kind::Bind) => (of.clone(), Type::Dyn),
            (Type::Optional(inner), Kind::OptMap | Kind::OptFlatMap) => ((**inner).clone(), Type::Dyn),
            (_, Kind::OptMap | Kind::OptFlatMap) => (Type::Dyn, Type::Dyn),
            (Type::List(item), _) => (Type::Int, (**item).clone()),
            (Type::Map(values), _) => (Type::Text, (**values).clone()),
            (Type::Object(..) | Type::Dyn, _) => (Type::Dyn, Type::Dyn),
            (other, _) => {
                let name = other.name();
                return self.fail(
                    at,
                    format!(
                        "expression of type '{name}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
            }
        };
        let depth = self.scopes.len();
        match (&found.second, &of, found.kind) {
            (Some(second), ..) => self.scopes.extend([(found.first.clone(), key), (second.clone(), value)]),
            (None, Type::List(_), kind) if kind != Kind::Bind => self.scopes.push((found.first.clone(), value)),
            _ => self.scopes.push((found.first.clone(), key)),
        }
        let filter = found.filter.as_ref().map(|filter| self.of(filter)).transpose()?;
        let body = self.of(&found.body)?;
        self.scopes.truncate(depth);
        let wants_bool = matches!(found.kind, Kind::All | Kind::Exists | Kind::ExistsOne | Kind::Filter);
        if (wants_bool && !body.fits(&Type::Bool)) || filter.is_some_and(|filter| !filter.fits(&Type::Bool)) {
            return self.fail(at, format!("expected type 'bool' but found '{}'", body.name()));
        }
        Ok(match found.kind {
            Kind::All | Kind::Exists | Kind::ExistsOne => Type::Bool,
            Kind::Filter => {
                if matches!(of, Type::List(_)) {
                    of
                } else {
                    Type::List(Box::new(Type::Dyn))
                }
            }
            Kind::Map => Type::List(Box::new(body)),
            Kind::TransformMap => Type::Map(Box::new(body)),
            Kind::Bind | Kind::OptFlatMap => body,
            Kind::OptMap => Type::Optional(Box::new(body)),
        })
    }
}

/// The types of messages that stand here, or in a list here.
fn message_types(expr: &Expr) -> Vec<&str> {
    match &expr.node {
        Node::Message { ty, .. } => vec![ty],
        Node::List(items) => items.iter().flat_map(|(_, item)| message_types(item)).collect(),
        _ => Vec::new(),
    }
}

/// Optional of optional is optional.
fn flat(ty: Type<'_>) -> Type<'_> {
    match ty {
        Type::Optional(inner) => *inner,
        other => other,
    }
}

fn literal_type<'a>(literal: &Literal) -> Type<'a> {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::Text(_) => Type::Text,
        Literal::Bytes(_) => Type::Bytes,
    }
}
