//! Tokens to a tree. Macros are recognised here, so that evaluation knows their variables.

use regex::Regex;

use super::CompileError;
use super::lexer::{Kind, Token, tokens};
use super::macros::{self, Macro};
use super::value::unescape;

/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 100;

/// Deepest tree, which is what evaluation needs a stack for; a row of operators is as deep as it is long.
const MAX_TREE_DEPTH: usize = 250;
/// Most tokens of an expression.
const MAX_TOKENS: usize = 4000;

/// A node with its place in the text.
#[derive(Debug)]
pub(super) struct Expr {
    pub(super) at: usize,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    Name(String),
    /// `of.field`; optional: `of.?field`.
    Select {
        of: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(of.field)`.
    Has {
        of: Box<Expr>,
        field: String,
    },
    /// `of[index]`; optional: `of[?index]`.
    Index {
        of: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// An operator.
    Operator {
        name: &'static str,
        args: Vec<Expr>,
    },
    /// A function, with the expression of a literal pattern compiled.
    Call {
        name: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
        regex: Option<Regex>,
    },
    /// Items; optional ones are left out when they have no value.
    List(Vec<(bool, Expr)>),
    Map(Vec<(bool, Expr, Expr)>),
    Macro(Box<Macro>),
    /// `Object.spec{field: value}`: an object of a named type; optional fields are left out when they have no value.
    Message {
        ty: String,
        fields: Vec<(bool, String, Expr)>,
    },
}

impl Expr {
    /// A chain of names, as types have.
    fn type_name(&self) -> Option<String> {
        match &self.node {
            Node::Name(name) => Some(name.clone()),
            Node::Select { of, field, optional: false } => Some(format!("{}.{field}", of.type_name()?)),
            _ => None,
        }
    }

    /// The variable is used somewhere.
    pub(super) fn mentions(&self, variable: &str) -> bool {
        matches!(&self.node, Node::Name(name) if name == variable) || self.below().any(|expr| expr.mentions(variable))
    }

    /// The tree is deeper than this.
    fn is_deeper(&self, limit: usize) -> bool {
        limit == 0 || self.below().any(|expr| expr.is_deeper(limit - 1))
    }

    /// The nodes right below.
    fn below(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        match &self.node {
            Node::Literal(_) | Node::Name(_) => Box::new(std::iter::empty()),
            Node::Select { of, .. } | Node::Has { of, .. } => Box::new(std::iter::once(&**of)),
            Node::Index { of, index, .. } => Box::new([&**of, &**index].into_iter()),
            Node::Operator { args, .. } => Box::new(args.iter()),
            Node::Call { target, args, .. } => Box::new(target.iter().map(|target| &**target).chain(args)),
            Node::List(items) => Box::new(items.iter().map(|(_, item)| item)),
            Node::Map(fields) => Box::new(fields.iter().flat_map(|(_, key, value)| [key, value])),
            Node::Macro(found) => Box::new(found.parts()),
            Node::Message { fields, .. } => Box::new(fields.iter().map(|(_, _, value)| value)),
        }
    }
}

pub(super) struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

/// Parses a whole text.
pub(super) fn parse(source: &str) -> Result<Expr, CompileError> {
    let tokens = tokens(source)?;
    if tokens.len() > MAX_TOKENS {
        return Err(CompileError::new(source, 0, format!("expressions may have {MAX_TOKENS} tokens at most")));
    }
    let mut parser = Parser { source, tokens, next: 0, depth: 0 };
    let expr = parser.expression()?;
    if expr.is_deeper(MAX_TREE_DEPTH) {
        return Err(CompileError::new(source, 0, format!("expressions may be {MAX_TREE_DEPTH} steps deep at most")));
    }
    match &parser.peek().kind {
        Kind::End => Ok(expr),
        _ => Err(parser.unexpected()),
    }
}

fn operator(at: usize, name: &'static str, args: Vec<Expr>) -> Expr {
    Expr { at, node: Node::Operator { name, args } }
}

/// Binary operators by precedence, loosest first.
const LEVELS: [&[&str]; 5] =
    [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+", "-"], &["*", "/", "%"]];

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    pub(super) fn fail(&self, at: usize, text: impl Into<String>) -> CompileError {
        CompileError::new(self.source, at, text)
    }

    fn unexpected(&self) -> CompileError {
        let shown = match &self.peek().kind {
            Kind::End => "<EOF>".to_owned(),
            Kind::Mark(mark) => (*mark).to_owned(),
            Kind::Name(name) => name.clone(),
            _ => "literal".to_owned(),
        };
        self.fail(self.peek().at, format!("Syntax error: unexpected '{shown}'"))
    }

    fn eat(&mut self, mark: &str) -> bool {
        let found = self.peek().kind
            == Kind::Mark(match MARKS.iter().find(|known| **known == mark) {
                Some(known) => known,
                None => return false,
            });
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, mark: &str) -> Result<(), CompileError> {
        if self.eat(mark) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expression(&mut self) -> Result<Expr, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fail(self.peek().at, format!("expressions may be nested {MAX_DEPTH} deep at most")));
        }
        let condition = self.level(0)?;
        let at = self.peek().at;
        let result = if self.eat("?") {
            let yes = self.level(0)?;
            self.expect(":")?;
            let no = self.expression()?;
            operator(at, "?:", vec![condition, yes, no])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(result)
    }

    fn level(&mut self, level: usize) -> Result<Expr, CompileError> {
        let Some(names) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.level(level + 1)?;
        loop {
            let at = self.peek().at;
            let name = match &self.peek().kind {
                Kind::Mark(mark) => names.iter().find(|name| *name == mark),
                Kind::Name(word) if word == "in" => names.iter().find(|name| **name == "in"),
                _ => None,
            };
            let Some(name) = name else { return Ok(left) };
            self.next += 1;
            let right = self.level(level + 1)?;
            left = operator(at, name, vec![left, right]);
        }
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        let at = self.peek().at;
        for (mark, name) in [("!", "!"), ("-", "neg")] {
            let mut count = 0usize;
            while self.eat(mark) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            if mark == "-" && count % 2 == 1 && self.peek().kind == Kind::IntMin {
                self.next += 1;
                return self.members(Expr { at, node: Node::Literal(Literal::Int(i64::MIN)) });
            }
            let operand = self.member()?;
            return Ok(if count % 2 == 1 { operator(at, name, vec![operand]) } else { operand });
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, CompileError> {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut of: Expr) -> Result<Expr, CompileError> {
        for _ in 0..MAX_DEPTH {
            let at = self.peek().at;
            if self.eat(".") {
                let optional = self.eat("?");
                let Kind::Name(field) = self.peek().kind.clone() else { return Err(self.unexpected()) };
                self.next += 1;
                of = if !optional && self.eat("(") {
                    let args = self.list(")")?;
                    macros::member(self, at, of, field, args)?
                } else {
                    Expr { at, node: Node::Select { of: Box::new(of), field, optional } }
                };
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = Box::new(self.expression()?);
                self.expect("]")?;
                of = Expr { at, node: Node::Index { of: Box::new(of), index, optional } };
            } else if let (Kind::Mark("{"), Some(ty)) = (&self.peek().kind, of.type_name()) {
                self.next += 1;
                of = Expr { at: of.at, node: Node::Message { ty, fields: self.fields()? } };
            } else {
                return Ok(of);
            }
        }
        Err(self.fail(of.at, format!("expressions may be nested {MAX_DEPTH} deep at most")))
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, CompileError> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(self.expression()?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        let token = self.take();
        let literal = |literal| Ok(Expr { at: token.at, node: Node::Literal(literal) });
        match token.kind {
            Kind::Int(number) => literal(Literal::Int(number)),
            Kind::Uint(number) => literal(Literal::Uint(number)),
            Kind::Double(number) => literal(Literal::Double(number)),
            Kind::Text(text) => literal(Literal::Text(text)),
            Kind::Bytes(bytes) => literal(Literal::Bytes(bytes)),
            Kind::Name(name) if name == "true" || name == "false" => literal(Literal::Bool(name == "true")),
            Kind::Name(name) if name == "null" => literal(Literal::Null),
            Kind::Name(name) if name != "in" => {
                if !self.eat("(") {
                    return Ok(Expr { at: token.at, node: Node::Name(name) });
                }
                let args = self.list(")")?;
                macros::global(self, token.at, name, args)
            }
            Kind::Mark("(") => {
                let inside = self.expression()?;
                self.expect(")")?;
                Ok(inside)
            }
            Kind::Mark("[") => self.list_literal(token.at),
            Kind::Mark("{") => self.map_literal(token.at),
            _ => {
                self.next -= 1;
                Err(self.unexpected())
            }
        }
    }

    fn fields(&mut self) -> Result<Vec<(bool, String, Expr)>, CompileError> {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let Kind::Name(name) = self.peek().kind.clone() else { return Err(self.unexpected()) };
            self.next += 1;
            self.expect(":")?;
            fields.push((optional, unescape(&name).into_owned(), self.expression()?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(fields)
    }

    fn list_literal(&mut self, at: usize) -> Result<Expr, CompileError> {
        let mut items = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push((optional, self.expression()?));
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr { at, node: Node::List(items) })
    }

    fn map_literal(&mut self, at: usize) -> Result<Expr, CompileError> {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expression()?;
            self.expect(":")?;
            fields.push((optional, key, self.expression()?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr { at, node: Node::Map(fields) })
    }
}

const MARKS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];
