//! Macros: calls that bind variables or test for presence, turned into nodes of their own when they are parsed.

use super::CompileError;
use super::functions;
use super::parser::{Expr, Literal, Node, Parser};
use crate::crd::regex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    All,
    Exists,
    ExistsOne,
    Filter,
    /// `map` and `transformList`.
    Map,
    TransformMap,
    /// `cel.bind(name, value, body)`.
    Bind,
    OptMap,
    OptFlatMap,
}

/// `of.KIND(first, [second,] [filter,] body)`.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) kind: Kind,
    pub(super) of: Expr,
    pub(super) first: String,
    /// With two variables, the first is the index or key and this one the value.
    pub(super) second: Option<String>,
    pub(super) filter: Option<Expr>,
    pub(super) body: Expr,
}

impl Macro {
    pub(super) fn parts(&self) -> impl Iterator<Item = &Expr> {
        [Some(&self.of), self.filter.as_ref(), Some(&self.body)].into_iter().flatten()
    }
}

/// Kind, number of variables, and whether a filter stands before the body, by name and number of arguments.
fn shape(name: &str, count: usize) -> Option<(Kind, usize, bool)> {
    Some(match (name, count) {
        ("all", 2) => (Kind::All, 1, false),
        ("all", 3) => (Kind::All, 2, false),
        ("exists", 2) => (Kind::Exists, 1, false),
        ("exists", 3) => (Kind::Exists, 2, false),
        ("exists_one" | "existsOne", 2) => (Kind::ExistsOne, 1, false),
        ("exists_one" | "existsOne", 3) => (Kind::ExistsOne, 2, false),
        ("filter", 2) => (Kind::Filter, 1, false),
        ("map", 2) => (Kind::Map, 1, false),
        ("map", 3) => (Kind::Map, 1, true),
        ("transformList", 3) => (Kind::Map, 2, false),
        ("transformList", 4) => (Kind::Map, 2, true),
        ("transformMap", 3) => (Kind::TransformMap, 2, false),
        ("transformMap", 4) => (Kind::TransformMap, 2, true),
        ("optMap", 2) => (Kind::OptMap, 1, false),
        ("optFlatMap", 2) => (Kind::OptFlatMap, 1, false),
        _ => return None,
    })
}

fn variable(parser: &Parser<'_>, expr: Expr) -> Result<String, CompileError> {
    match expr.node {
        Node::Name(name) => Ok(name),
        _ => Err(parser.fail(expr.at, "argument must be a simple name")),
    }
}

/// A call on something: a macro, a function of a namespace such as `math.greatest`, or a member function.
pub(super) fn member(
    parser: &Parser<'_>,
    at: usize,
    of: Expr,
    name: String,
    mut args: Vec<Expr>,
) -> Result<Expr, CompileError> {
    if let Node::Name(space) = &of.node {
        let full = format!("{space}.{name}");
        if full == "cel.bind" && args.len() == 3 {
            let (body, value) = (args.remove(2), args.remove(1));
            let first = variable(parser, args.remove(0))?;
            let bound = Macro { kind: Kind::Bind, of: value, first, second: None, filter: None, body };
            return Ok(Expr { at, node: Node::Macro(Box::new(bound)) });
        }
        if functions::is_global(&full) {
            return call(parser, at, full, None, args);
        }
    }
    let Some((kind, variables, filtered)) = shape(&name, args.len()) else {
        return call(parser, at, name, Some(Box::new(of)), args);
    };
    let mut args = args.into_iter();
    let mut next = || args.next().unwrap_or(Expr { at, node: Node::Literal(Literal::Null) });
    let first = variable(parser, next())?;
    let second = if variables == 2 { Some(variable(parser, next())?) } else { None };
    let filter = filtered.then(&mut next);
    let found = Macro { kind, of, first, second, filter, body: next() };
    Ok(Expr { at, node: Node::Macro(Box::new(found)) })
}

/// A call on nothing: `has` or a function.
pub(super) fn global(parser: &Parser<'_>, at: usize, name: String, mut args: Vec<Expr>) -> Result<Expr, CompileError> {
    if name != "has" || args.len() != 1 {
        return call(parser, at, name, None, args);
    }
    match args.remove(0).node {
        Node::Select { of, field, optional: false } => Ok(Expr { at, node: Node::Has { of, field } }),
        _ => Err(parser.fail(at, "invalid argument to has() macro")),
    }
}

fn call(
    parser: &Parser<'_>,
    at: usize,
    name: String,
    target: Option<Box<Expr>>,
    args: Vec<Expr>,
) -> Result<Expr, CompileError> {
    let pattern = match (name.as_str(), target.is_some()) {
        ("matches" | "find" | "findAll", true) => args.first(),
        ("matches", false) => args.get(1),
        _ => None,
    };
    let compiled = match pattern.map(|pattern| (&pattern.node, pattern.at)) {
        Some((Node::Literal(Literal::Text(text)), at)) => {
            Some(regex(text).map_err(|_| parser.fail(at, format!("invalid regular expression: {text}")))?)
        }
        _ => None,
    };
    Ok(Expr { at, node: Node::Call { name, target, args, regex: compiled } })
}
