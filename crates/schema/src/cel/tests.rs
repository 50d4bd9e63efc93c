//! Expressions and what becomes of them.

use serde_json::{Value, json};

use super::{Budget, Cel, EvalError, Program, Type, of_document};
use crate::crd::Schema;

fn schema() -> Schema {
    Schema::read(&json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "f": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "string"}},
        "numbers": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "objects": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
        "time": {"type": "string", "format": "date-time"}, "span": {"type": "string", "format": "duration"},
        "any": {"x-kubernetes-int-or-string": true}, "a-b": {"type": "string"}, "namespace": {"type": "string"},
        "absent": {"type": "string"}, "nothing": {"type": "string", "nullable": true},
    }}))
}

fn document() -> Value {
    json!({
        "n": 5, "f": 2, "s": "Hello, wörld", "b": true, "list": ["a", "b", "c"], "numbers": [3, 1, 2],
        "map": {"x": 1, "y": 2}, "objects": [{"name": "p", "v": 1}, {"name": "q", "v": 2}],
        "time": "2026-03-04T05:06:07Z", "span": "1h30m", "any": "50%", "a-b": "dashed", "namespace": "ns", "nothing": null,
        "metadata": {"name": "me"}, "kind": "Thing",
    })
}

fn evaluate(source: &str, budget: u64) -> Result<String, String> {
    let (schema, document) = (schema(), document());
    let variables = [("self", Type::of(&schema, true))];
    let program = Program::compile(source, &variables, &Type::Dyn).map_err(|error| error.to_string())?;
    let value = program.evaluate(vec![("self", of_document(&document, Some(&schema)))], &mut Budget(budget));
    value.map(|value| shown(&value)).map_err(|error| error.to_string())
}

fn shown(value: &Cel<'_>) -> String {
    match value {
        Cel::List(list) => format!("[{}]", list.iter().map(|item| shown(&item)).collect::<Vec<_>>().join(", ")),
        Cel::Map(map) => format!("{{{}}}", map.keys().iter().map(shown).collect::<Vec<_>>().join(", ")),
        Cel::Null => "null".into(),
        Cel::Optional(None) => "none".into(),
        Cel::Optional(Some(value)) => format!("some {}", shown(value)),
        other => super::strings::shown(other).unwrap_or_else(|| other.type_name().to_owned()),
    }
}

#[test]
fn expressions_have_values() {
    for (source, expected) in [
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("-self.n % 3", "-2"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0x1F + 1", "32"),
        ("1u + 2u", "3"),
        ("self.f * 1.5", "3"),
        ("self.n > 4 && self.s.startsWith('Hello')", "true"),
        ("self.n < 2.5 || !self.b", "false"),
        ("self.b ? 'yes' : 'no'", "yes"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("'a' in self.list && !('z' in self.list) && 'x' in self.map", "true"),
        ("has(self.n) && !has(self.absent) && !has(self.nothing)", "true"),
        ("self.list[1] + self.list[2]", "bc"),
        ("self.map['y']", "2"),
        ("self.a__dash__b + self.__namespace__", "dashedns"),
        ("self.metadata.name + self.kind", "meThing"),
        ("self.objects.all(o, o.v > 0)", "true"),
        ("self.objects.exists(o, o.name == 'q' && o.v == 2)", "true"),
        ("self.objects.exists_one(o, o.v > 1)", "true"),
        ("self.objects.filter(o, o.v > 1).map(o, o.name)", "[q]"),
        ("self.numbers.map(x, x > 1, x * 10)", "[30, 20]"),
        ("self.map.all(k, v, v < 3 && k != '')", "true"),
        ("self.list.transformList(i, v, v + string(i))", "[a0, b1, c2]"),
        ("self.map.exists(k, k == 'x')", "true"),
        ("cel.bind(x, self.n * 2, x + x)", "20"),
        ("self.?absent.orValue('none')", "none"),
        ("self.?s.hasValue()", "true"),
        ("[1, 2][?5].orValue(7)", "7"),
        ("self.?s.optMap(x, x.size()).orValue(0)", "12"),
        ("size(self.s) + self.list.size() + size(self.map)", "17"),
        ("self.s.matches('^H.*d$') && matches('abc', 'b+')", "true"),
        ("'a1b22'.find('[0-9]+') + '|' + 'a1b22'.findAll('[0-9]+').join('-')", "1|1-22"),
        ("'a,b,c'.split(',').join('+') + 'xyx'.replace('x', 'z') + ' t '.trim()", "a+b+czyzt"),
        ("self.s.substring(7) + self.s.charAt(8) + string(self.s.indexOf('w')) + 'aBc'.upperAscii()", "wörldö7ABC"),
        ("'%s has %d of %.2f'.format(['x', 3, 1.5])", "x has 3 of 1.50"),
        ("self.numbers.isSorted() || self.numbers.sort().isSorted()", "true"),
        ("self.numbers.sum() + self.numbers.max() - self.numbers.min()", "8"),
        ("[1, 2] + [3] == [1, 2, 3] && {'a': 1} == {'a': 1}", "true"),
        ("type(self.n) == int && int('42') + int(2.9) == 44 && string(1.5) == '1.5'", "true"),
        ("quantity('1Gi').isGreaterThan(quantity('512Mi')) && isQuantity('5m') && !isQuantity('x')", "true"),
        ("quantity('1500m').add(quantity('500m')).asInteger()", "2"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))", "true"),
        ("ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isCIDR('10.0.0.0/8')", "true"),
        (
            "url('https://u@example.com:8080/p?a=1&a=2').getPort() + url('https://example.com/p').getEscapedPath()",
            "8080/p",
        ),
        ("isURL('https://example.com') && !isURL('not a url')", "true"),
        ("self.time.getFullYear() + self.time.getMonth() + self.time.getHours()", "2033"),
        ("self.span > duration('1h') && self.span.getMinutes() == 90", "true"),
        ("timestamp('2026-03-04T05:06:07Z') == self.time && self.time + duration('1s') > self.time", "true"),
        ("type(self.any) == string && self.any.matches('^[0-9]+%$')", "true"),
        ("sets.intersects(self.list, ['c', 'd']) && math.greatest(1, 7, 3) == 7", "true"),
        ("b'ab'.size() + r'\\d'.size() + '\\u00e9\\n'.size() // comment", "6"),
        ("[[1, 2], [3]].flatten().distinct().slice(1, 3)", "[2, 3]"),
    ] {
        assert_eq!(evaluate(source, 100_000).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_cannot_be_is_refused_before_it_runs() {
    for (source, expected) in [
        ("self.unknown > 1", "ERROR: <input>:1:5: undefined field 'unknown'"),
        ("self.objects.all(o, o.missing == 1)", "ERROR: <input>:1:22: undefined field 'missing'"),
        ("other == 1", "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')"),
        ("self.s.shout()", "ERROR: <input>:1:7: undeclared reference to 'shout' (in container '')"),
        ("self.n == 'x'", "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.s + 1", "ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(string, int)'"),
        ("self.n.size()", "ERROR: <input>:1:7: found no matching overload for 'size' applied to '(int)'"),
        ("self.n >", "ERROR: <input>:1:9: Syntax error: unexpected '<EOF>'"),
        ("self.s.matches('(')", "ERROR: <input>:1:16: invalid regular expression: ("),
        ("self.metadata.labels", "ERROR: <input>:1:14: undefined field 'labels'"),
        ("1 +\n  nope", "ERROR: <input>:2:3: undeclared reference to 'nope' (in container '')"),
        ("has(self)", "ERROR: <input>:1:1: invalid argument to has() macro"),
    ] {
        assert_eq!(evaluate(source, 1000), Err(expected.to_owned()), "{source}");
    }
}

#[test]
fn failures_are_told() {
    for (source, expected) in [
        ("1 / (self.n - 5) == 1", "division by zero"),
        ("self.list[9] == ''", "index out of bounds: 9"),
        ("self.map['z'] == 1", "no such key: z"),
        ("self.absent == ''", "no such key: absent"),
        ("9223372036854775807 + self.n == 0", "return error for overflow"),
        ("quantity('x').sign() == 0", "quantity: cannot parse \"x\""),
    ] {
        assert_eq!(evaluate(source, 1000), Err(expected.to_owned()), "{source}");
    }
}

#[test]
fn evaluation_ends_when_the_budget_does() {
    let nested =
        "self.numbers.all(a, self.numbers.all(b, self.numbers.all(c, self.numbers.all(d, a + b + c + d > 0))))";
    assert_eq!(evaluate(nested, 10_000).as_deref(), Ok("true"));
    assert_eq!(evaluate(nested, 100), Err(EvalError::Budget.to_string()));
    // Neither side of a junction hides that the budget is gone.
    assert_eq!(evaluate(&format!("{nested} || true"), 100), Err(EvalError::Budget.to_string()));
    let doubling = "cel.bind(a, self.s + self.s, cel.bind(b, a + a, cel.bind(c, b + b, c + c))).size()";
    assert_eq!(evaluate(doubling, 10), Err(EvalError::Budget.to_string()));
}

#[test]
fn deep_and_long_texts_are_refused() {
    for source in [format!("{}1{}", "(".repeat(500), ")".repeat(500)), "!".repeat(20_000), "-".repeat(5000)] {
        assert!(evaluate(&source, 1000).is_err());
    }
    for (count, fits) in [(200, true), (300, false), (1990, false), (5000, false)] {
        assert_eq!(evaluate(&vec!["1"; count].join("+"), 100_000).is_ok(), fits, "{count}");
    }
}

proptest::proptest! {
    /// No text makes the compiler or the evaluation panic.
    #[test]
    fn any_text_is_survived(source in "[a-z0-9.()\\[\\]{}!&|<>=+*/%?:,'\" -]{0,60}") {
        let _ = evaluate(&source, 1000);
        let _ = evaluate(&format!("self.{source}"), 1000);
    }
}
