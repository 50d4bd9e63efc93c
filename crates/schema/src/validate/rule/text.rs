//! Forms of text that only some fields ask for.

use crate::names;

/// `'.'`s apart, a domain, a slash and a path: `acme.io/foo`.
pub(super) fn domain_path(text: &str) -> Vec<String> {
    let rule = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/%:.?#[]@!$&'()*+,;=-_~".contains(&byte);
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.is_empty()) else {
        return vec![rule.into()];
    };
    let mut wrong = names::subdomain(domain);
    wrong.extend((!path.bytes().all(allowed)).then(|| rule.to_owned()));
    wrong
}

/// A qualified name without regard to case.
pub(super) fn qualified_lower(text: &str) -> Vec<String> {
    names::qualified(&text.to_lowercase())
}

/// A host that may begin with `*.`.
pub(super) fn host(text: &str) -> Vec<String> {
    match text.strip_prefix("*.") {
        Some(rest) => names::subdomain(rest),
        None => names::subdomain(text),
    }
}

/// Names of request verbs, resources and the like: `*` or a label.
pub(super) fn namespace_or_all(text: &str) -> Vec<String> {
    let wrong = if text == "*" { Vec::new() } else { names::label(text) };
    let lead = "each member of this list must be '*' or a DNS-1123 label;";
    wrong.into_iter().map(|reason| format!("{lead} {reason}")).collect()
}

/// A path of a request, which may end in `*`.
pub(super) fn request_path(text: &str) -> Vec<String> {
    let wrong = match text {
        "" => "must not be empty",
        "/" | "*" => return Vec::new(),
        text if !text.starts_with('/') => "must start with slash",
        text if text.contains(' ') => "must not contain white-space",
        text if text.contains("//") => "must not contain double slash",
        text if text.trim_end_matches('*').contains('*') || text.ends_with("**") => {
            "wildcard can only do suffix matching"
        }
        _ => return Vec::new(),
    };
    vec![wrong.into()]
}

/// An identifier of a CEL variable.
pub(super) fn identifier(text: &str) -> Vec<String> {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let valid =
        text.bytes().next().is_some_and(letter) && text.bytes().all(|byte| letter(byte) || byte.is_ascii_digit());
    if valid { Vec::new() } else { vec!["must be a valid CEL identifier".into()] }
}

/// `type` of a limit.
pub(super) fn limit_type(text: &str) -> Vec<String> {
    let known = ["Pod", "Container", "PersistentVolumeClaim"].contains(&text);
    let mut wrong = names::qualified(text);
    if wrong.is_empty() && !known && !text.contains('/') {
        wrong.push("must be a standard limit type or fully qualified".into());
    }
    wrong
}

/// A kind, as a DNS label but for its case.
pub(super) fn kind(text: &str) -> Vec<String> {
    let lead = "may have mixed case, but should otherwise match:";
    names::label_1035(&text.to_lowercase()).into_iter().map(|reason| format!("{lead} {reason}")).collect()
}

/// Group and version of a parameter.
pub(super) fn version(text: &str) -> Vec<String> {
    match text.split_once('/') {
        Some((group, version)) => names::subdomain(group).into_iter().chain(names::label_1035(version)).collect(),
        None => names::label_1035(text),
    }
}

/// At most 256 characters.
pub(super) fn node_id(text: &str) -> Vec<String> {
    if text.len() > 256 { vec!["must be 256 characters or less".into()] } else { Vec::new() }
}

/// A resource name with a domain that is not Kubernetes' own.
pub(super) fn extended_resource(text: &str) -> Vec<String> {
    let named = text.contains('/') && !text.contains("kubernetes.io/") && names::qualified(text).is_empty();
    if named { Vec::new() } else { vec!["must be a valid extended resource name".into()] }
}

/// A path below a web server's root, each part a name.
pub(super) fn service_path(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.is_empty() {
        return wrong;
    }
    if !text.starts_with('/') {
        wrong.push("must start with a '/'".into());
    }
    let steps = text.strip_prefix('/').unwrap_or(text);
    let steps: Vec<&str> = steps.strip_suffix('/').unwrap_or(steps).split('/').collect();
    if steps == [""] {
        return wrong;
    }
    if !text.starts_with('/') && steps.len() > 1 {
        wrong.push("segment[0] may not be empty".into());
        return wrong;
    }
    for (at, step) in steps.iter().enumerate() {
        match *step {
            "" => wrong.push(format!("segment[{at}] may not be empty")),
            step => wrong.extend(names::subdomain(step).into_iter().map(|reason| format!("segment[{at}]: {reason}"))),
        }
    }
    wrong
}

/// The name of an iSCSI target.
pub(super) fn iqn(text: &str) -> Vec<String> {
    let known = ["iqn.", "eui.", "naa."].iter().any(|lead| text.starts_with(lead));
    if known { Vec::new() } else { vec!["must be valid format starting with iqn, eui, or naa".into()] }
}

/// A domain that names are looked up in; underscores are common there.
pub(super) fn search(text: &str) -> Vec<String> {
    let plain = text.strip_suffix('.').unwrap_or(text);
    if plain.len() > names::MAX_SUBDOMAIN_LENGTH {
        return vec![format!("must be no more than {} characters", names::MAX_SUBDOMAIN_LENGTH)];
    }
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let label = |label: &str| {
        let inner = label.strip_prefix('_').unwrap_or(label);
        edge(inner.bytes().next())
            && edge(inner.bytes().last())
            && inner.bytes().all(|byte| edge(Some(byte)) || b"-_".contains(&byte))
    };
    if text == "." || plain.split('.').all(label) {
        return Vec::new();
    }
    vec![r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')".into()]
}
