//! Names: the formats Kubernetes allows, and names made from `generateName`.
//!
//! Draws no random numbers: random bytes are an argument.

/// Longest DNS-1123 subdomain.
pub const MAX_SUBDOMAIN_LENGTH: usize = 253;
/// Longest DNS label.
pub const MAX_LABEL_LENGTH: usize = 63;
/// Length of the random end of a generated name.
pub const SUFFIX_LENGTH: usize = 5;

const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const MAX_PREFIX_LENGTH: usize = MAX_LABEL_LENGTH - SUFFIX_LENGTH;

/// A name from a `generateName` prefix (cut to 58 bytes) and random bytes.
pub fn generate(prefix: &str, random: [u8; SUFFIX_LENGTH]) -> String {
    let mut end = prefix.len().min(MAX_PREFIX_LENGTH);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], suffix(random))
}

/// The random end alone, as also used in names of ReplicaSets' pods.
pub fn suffix(random: [u8; SUFFIX_LENGTH]) -> String {
    random.iter().map(|byte| char::from(SUFFIX_ALPHABET[usize::from(*byte) % SUFFIX_ALPHABET.len()])).collect()
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// A lower-case label without a length limit: letters, digits and inner dashes.
fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(|byte| is_lower_alphanumeric(*byte)))
        && bytes.iter().all(|byte| is_lower_alphanumeric(*byte) || *byte == b'-')
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// The limit of names is told in characters, that of labels and qualified names in bytes, as upstream has it.
fn checked(text: &str, limit: usize, valid: bool, rule: &str) -> Vec<String> {
    let long = (text.len() > limit).then(|| format!("must be no more than {limit} characters"));
    long.into_iter().chain((!valid).then(|| rule.to_owned())).collect()
}

/// What is wrong with a DNS-1123 subdomain; empty when nothing is.
pub fn subdomain(text: &str) -> Vec<String> {
    checked(text, MAX_SUBDOMAIN_LENGTH, text.split('.').all(is_label_text), SUBDOMAIN)
}

/// What is wrong with a DNS-1123 label.
pub fn label(text: &str) -> Vec<String> {
    let is_dotted = text.contains('.') && text.split('.').all(is_label_text);
    let rule = if is_dotted { "must not contain dots" } else { LABEL };
    checked(text, MAX_LABEL_LENGTH, is_label_text(text), rule)
}

/// What is wrong with a DNS-1035 label (starts with a letter).
pub fn label_1035(text: &str) -> Vec<String> {
    let valid = is_label_text(text) && text.starts_with(|first: char| first.is_ascii_lowercase());
    checked(text, MAX_LABEL_LENGTH, valid, LABEL_1035)
}

/// What is wrong with a name that only has to be one path segment.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// The same limit as it is told of parts of names.
fn in_bytes(text: &str) -> String {
    text.strip_suffix(" characters").map_or_else(|| text.to_owned(), |limit| format!("{limit} bytes"))
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// What is wrong with a qualified name (label key, annotation key, finalizer, resource name).
pub fn qualified(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (prefix, name) = match parts.as_slice() {
        [name] => (None, *name),
        [prefix, name] => (Some(*prefix), *name),
        _ => {
            let hint = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') {hint}"
            )];
        }
    };
    let mut wrong: Vec<String> = match prefix {
        Some("") => vec!["prefix part must be non-empty".into()],
        Some(prefix) => subdomain(prefix).into_iter().map(|text| format!("prefix part {}", in_bytes(&text))).collect(),
        None => Vec::new(),
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".into());
    } else if name.len() > MAX_LABEL_LENGTH {
        wrong.push(format!("name part {}", too_long(MAX_LABEL_LENGTH)));
    }
    wrong.extend((!is_qualified_part(name)).then(|| QUALIFIED.to_owned()));
    wrong
}

/// What is wrong with a label value.
pub fn label_value(text: &str) -> Vec<String> {
    let valid = text.is_empty() || is_qualified_part(text);
    let long = (text.len() > MAX_LABEL_LENGTH).then(|| too_long(MAX_LABEL_LENGTH));
    long.into_iter().chain((!valid).then(|| LABEL_VALUE.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_the_prefix_and_end_in_the_alphabet() {
        fn check(prefix: &str, random: [u8; 5], expected: &str) {
            assert_eq!(generate(prefix, random), expected);
        }
        check("web-", [0, 1, 2, 3, 4], "web-bcdfg");
        check("", [26, 27, 255, 53, 54], "9bq9b");
        check(&"a".repeat(80), [0; 5], &format!("{}bbbbb", "a".repeat(58)));
        check(&"é".repeat(40), [0; 5], &format!("{}bbbbb", "é".repeat(29)));
    }

    #[test]
    fn formats() {
        fn check(validate: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
            for text in good {
                assert_eq!(validate(text), Vec::<String>::new(), "{text}");
            }
            for text in bad {
                assert!(!validate(text).is_empty(), "{text}");
            }
        }
        let long = "a".repeat(64);
        check(subdomain, &["a", "a.b-c.9", &long], &["", "A", "a..b", "-a", "a-", "a_b", &"a".repeat(254), "a.", "é"]);
        check(label, &["a", "9-a"], &["a.b", "", &long, "a-"]);
        check(label_1035, &["a", "a9"], &["9a", "a.b", ""]);
        check(path_segment, &["system:node", "A b"], &[".", "..", "a/b", "50%"]);
        check(qualified, &["a", "A_b.c", "x.io/Name"], &["", "/a", "x.io/", "a/b/c", "-a", "X/a", &long]);
        check(label_value, &["", "A", "1.2_3-x"], &["-", "a b", &long]);
    }
}
