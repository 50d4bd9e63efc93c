//! Text to tokens.

use super::CompileError;

/// One token with where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Name(String),
    Int(i64),
    /// A number one beyond the largest, which only a minus makes valid.
    IntMin,
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Operators and brackets.
    Mark(&'static str),
    End,
}

const MARKS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=", ";",
];

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

/// All tokens of a text; the last one is the end.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, CompileError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.at;
        let kind = lexer.next()?;
        let is_end = kind == Kind::End;
        tokens.push(Token { at, kind });
        if is_end {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn fail(&self, text: impl Into<String>) -> CompileError {
        CompileError::new(self.source, self.at, text)
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            let length = rest.len() - trimmed.len();
            let comment = if trimmed.starts_with("//") { trimmed.find('\n').unwrap_or(trimmed.len()) } else { 0 };
            self.at += length + comment;
            if comment == 0 {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<Kind, CompileError> {
        let Some(first) = self.rest().chars().next() else { return Ok(Kind::End) };
        if let Some((prefix, raw, bytes)) = self.quote_prefix() {
            self.at += prefix;
            return self.text(raw, bytes);
        }
        let is_number = first.is_ascii_digit()
            || (first == '.' && self.rest()[1..].starts_with(|next: char| next.is_ascii_digit()));
        if is_number {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let rest = self.rest();
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
            let name = rest[..end].to_owned();
            self.at += end;
            return Ok(Kind::Name(name));
        }
        if let Some(inside) = self.rest().strip_prefix('`')
            && let Some(end) = inside.find('`')
        {
            let name = inside[..end].to_owned();
            self.at += end + 2;
            return Ok(Kind::Name(name));
        }
        match MARKS.iter().find(|mark| self.rest().starts_with(**mark)) {
            Some(mark) if !["=", ";"].contains(mark) => {
                self.at += mark.len();
                Ok(Kind::Mark(mark))
            }
            _ => Err(self.fail(format!("Syntax error: token recognition error at: '{first}'"))),
        }
    }

    /// Length of what stands before a quote, and whether the text is raw or bytes.
    fn quote_prefix(&self) -> Option<(usize, bool, bool)> {
        let letters: Vec<char> = self.rest().chars().take(3).map(|letter| letter.to_ascii_lowercase()).collect();
        let is_quote = |letter: Option<&char>| matches!(letter, Some('"' | '\''));
        let prefix = letters.iter().take_while(|letter| matches!(letter, 'r' | 'b')).count();
        let valid = is_quote(letters.get(prefix)) && (prefix < 2 || letters[0] != letters[1]);
        valid.then(|| (prefix, letters[..prefix].contains(&'r'), letters[..prefix].contains(&'b')))
    }

    fn text(&mut self, raw: bool, bytes: bool) -> Result<Kind, CompileError> {
        let quote = if self.rest().starts_with("\"\"\"") || self.rest().starts_with("'''") { 3 } else { 1 };
        let mark = self.rest()[..quote].to_owned();
        let begin = self.at + quote;
        let mut at = begin;
        loop {
            let rest = &self.source[at..];
            if rest.starts_with(&mark) {
                break;
            }
            let Some(letter) = rest.chars().next().filter(|letter| quote == 3 || *letter != '\n') else {
                return Err(self.fail("Syntax error: a text is not closed"));
            };
            at += letter.len_utf8();
            if letter == '\\' && !raw {
                at += self.source[at..].chars().next().map_or(0, char::len_utf8);
            }
        }
        let inside = &self.source[begin..at];
        let decoded = if raw { Some(inside.as_bytes().to_vec()) } else { unescape(inside, bytes) };
        let decoded = decoded.ok_or_else(|| self.fail("Syntax error: an escape sequence is not valid"))?;
        self.at = at + quote;
        if bytes {
            return Ok(Kind::Bytes(decoded));
        }
        String::from_utf8(decoded).map(Kind::Text).map_err(|_| self.fail("Syntax error: a text is not UTF-8"))
    }

    fn number(&mut self) -> Result<Kind, CompileError> {
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let end = hex.find(|letter: char| !letter.is_ascii_hexdigit()).unwrap_or(hex.len());
            let number = u64::from_str_radix(&hex[..end], 16).map_err(|_| self.fail("invalid int literal"))?;
            let unsigned = hex[end..].starts_with(['u', 'U']);
            self.at += 2 + end + usize::from(unsigned);
            return Ok(if unsigned { Kind::Uint(number) } else { Kind::Int(number as i64) });
        }
        let digits = |text: &str| text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let mut end = digits(rest);
        let mut is_double = false;
        if rest[end..].starts_with('.') && digits(&rest[end + 1..]) > 0 {
            is_double = true;
            end += 1 + digits(&rest[end + 1..]);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            let count = digits(&rest[end + 1 + sign..]);
            if count > 0 {
                is_double = true;
                end += 1 + sign + count;
            }
        }
        let (text, unsigned) = (rest[..end].to_owned(), rest[end..].starts_with(['u', 'U']));
        self.at += end + usize::from(unsigned && !is_double);
        let kind = match (is_double, unsigned) {
            (true, _) => text.parse().map(Kind::Double).ok(),
            (false, true) => text.parse().map(Kind::Uint).ok(),
            (false, false) if text == "9223372036854775808" => Some(Kind::IntMin),
            (false, false) => text.parse().map(Kind::Int).ok(),
        };
        kind.ok_or_else(|| self.fail("invalid int literal"))
    }
}

/// Resolves escapes. In bytes `\x` and octals are bytes, in text code points.
fn unescape(text: &str, bytes: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut letters = text.chars();
    let put = |out: &mut Vec<u8>, code: u32| -> Option<()> {
        if bytes {
            out.push(u8::try_from(code).ok()?);
        } else {
            out.extend(char::from_u32(code)?.to_string().bytes());
        }
        Some(())
    };
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.extend(letter.to_string().bytes());
            continue;
        }
        let escape = letters.next()?;
        let mut digits = |count: usize, radix: u32| {
            let digits: String = letters.by_ref().take(count).collect();
            (digits.len() == count).then(|| u32::from_str_radix(&digits, radix).ok()).flatten()
        };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' | '?' | '"' | '\'' | '`' => out.push(escape as u8),
            'x' | 'X' => put(&mut out, digits(2, 16)?)?,
            'u' => out.extend(char::from_u32(digits(4, 16)?)?.to_string().bytes()),
            'U' => out.extend(char::from_u32(digits(8, 16)?)?.to_string().bytes()),
            '0'..='3' => {
                let rest = digits(2, 8)?;
                put(&mut out, (escape as u32 - '0' as u32) * 64 + rest)?;
            }
            _ => return None,
        }
    }
    Some(out)
}
