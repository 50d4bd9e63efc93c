//! Options of lists and watches (facts, sections 1.8 and 1.9): which state they are of, where they begin, what may not be
//! said together. Also the tokens with which long lists go on. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isopod_schema::{FieldError, Status};
use serde_json::{Value, json};

use crate::query::Query;

/// Which state a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Now,
    NotOlderThan(u64),
    Exactly(u64),
}

/// Where a list begins and how long it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) state: State,
    /// None with 0.
    pub(crate) limit: usize,
    /// Key after the prefix.
    pub(crate) start: String,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The present state as ADDED, then what happens.
    State { not_before: Option<u64>, end_mark: bool },
    /// What happened after a revision.
    After(u64),
    /// What happens from now on.
    Now,
}

/// The `resourceVersion` parameter; 0 and absent are the same to callers of this.
///
/// # Errors
/// 400 when it is no number.
pub(crate) fn revision(query: &Query) -> Result<Option<u64>, Status> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    let parsed = text.parse::<u64>().map(|revision| Some(revision).filter(|revision| *revision > 0));
    parsed.map_err(|_| Status::bad_request(format!(
        "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
    )))
}

const MATCH: &str = "resourceVersionMatch";

fn forbidden(path: &str, text: impl Into<String>) -> FieldError {
    FieldError::forbidden(path, text)
}

fn refused(errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid_kind("meta.k8s.io", "ListOptions", "", errors)) }
}

/// Refuses what may not be said together about a list, or a deletion of many.
///
/// # Errors
/// 422 with every reason.
pub(crate) fn check_list(query: &Query) -> Result<(), Status> {
    let mut errors = Vec::new();
    if let Some(asked) = query.get(MATCH) {
        if query.get("resourceVersion").is_none() {
            errors.push(forbidden(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if query.get("continue").is_some() {
            errors.push(forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(asked, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(MATCH, asked, &["Exact", "NotOlderThan"]));
        }
        if asked == "Exact" && query.get("resourceVersion") == Some("0") {
            errors.push(forbidden(MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
    }
    if query.has("sendInitialEvents") {
        errors.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    refused(&errors)
}

fn check_watch(query: &Query) -> Result<(), Status> {
    let (asked, initial) = (query.get(MATCH), query.has("sendInitialEvents"));
    let mut errors = Vec::new();
    if initial && asked != Some("NotOlderThan") {
        errors.push(forbidden(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    if let Some(asked) = asked {
        if !initial {
            let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(forbidden(MATCH, text));
        }
        if asked != "NotOlderThan" {
            errors.push(FieldError::not_supported(MATCH, asked, &["NotOlderThan"]));
        }
        if query.get("continue").is_some() {
            errors.push(forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    refused(&errors)
}

impl Page {
    /// # Errors
    /// 400, 422.
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        check_list(query)?;
        let limit = usize::try_from(query.number::<i64>("limit")?.unwrap_or(0)).unwrap_or(0);
        let asked = revision(query)?;
        if let Some(token) = query.get("continue") {
            if asked.is_some() {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            return Self::following(token, limit);
        }
        let (limit, state) = match (query.get(MATCH), asked) {
            (Some("Exact"), Some(revision)) => (limit, State::Exactly(revision)),
            // Whoever takes any state gets all of it.
            (_, None) if query.get("resourceVersion").is_some() => (0, State::Now),
            (_, None) => (limit, State::Now),
            // Without a match rule a limit turns "at least this" into "exactly this", so that pages agree.
            (None, Some(revision)) if limit > 0 => (limit, State::Exactly(revision)),
            (_, Some(revision)) => (limit, State::NotOlderThan(revision)),
        };
        Ok(Self { state, limit, start: String::new() })
    }

    fn following(token: &str, limit: usize) -> Result<Self, Status> {
        let bad = || Status::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let start = token["start"].as_str().map(|start| start.strip_prefix('/').unwrap_or(start)).ok_or_else(bad)?;
        if token["v"] != "meta.k8s.io/v1" || start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad());
        }
        let state = match token["rv"].as_i64() {
            None | Some(0) => return Err(bad()),
            Some(revision) => u64::try_from(revision).map_or(State::Now, State::Exactly),
        };
        Ok(Self { state, limit, start: start.into() })
    }

    /// The token with which the list goes on at the newest state, whatever that has become.
    pub(crate) fn inconsistent_token(&self) -> String {
        encode_token(&self.start, -1)
    }
}

/// The token with which a list goes on behind a key, in the same state.
pub(crate) fn token_after(key: &str, revision: u64) -> String {
    encode_token(&format!("{key}\0"), i64::try_from(revision).unwrap_or(i64::MAX))
}

fn encode_token(start: &str, revision: i64) -> String {
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string())
}

impl Start {
    /// # Errors
    /// 400, 422.
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        check_watch(query)?;
        let revision = revision(query)?;
        Ok(match (query.has("sendInitialEvents"), query.flag("sendInitialEvents"), revision) {
            // The end of the state is told by a bookmark, and only to those who know bookmarks.
            (true, true, not_before) => Self::State { not_before, end_mark: query.flag("allowWatchBookmarks") },
            (_, _, Some(revision)) => Self::After(revision),
            (true, false, None) => Self::Now,
            (false, _, None) => Self::State { not_before: None, end_mark: false },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_of_the_state_that_was_asked_for() {
        fn check(query: &str, expected: (State, usize)) {
            let page = Page::parse(&Query::parse(query)).unwrap();
            assert_eq!((page.state, page.limit), expected, "{query}");
        }
        check("", (State::Now, 0));
        check("limit=2", (State::Now, 2));
        check("limit=-1", (State::Now, 0));
        check("resourceVersion=", (State::Now, 0));
        check("resourceVersion=0", (State::Now, 0));
        check("resourceVersion=0&limit=2", (State::Now, 0));
        check("resourceVersion=0&limit=2&resourceVersionMatch=NotOlderThan", (State::Now, 0));
        check("resourceVersion=7", (State::NotOlderThan(7), 0));
        check("resourceVersion=7&limit=2", (State::Exactly(7), 2));
        check("resourceVersion=7&limit=2&resourceVersionMatch=NotOlderThan", (State::NotOlderThan(7), 2));
        check("resourceVersion=7&resourceVersionMatch=Exact", (State::Exactly(7), 0));
        check(&format!("limit=2&continue={}", token_after("ns/a", 9)), (State::Exactly(9), 2));
        check(&format!("resourceVersion=0&continue={}", token_after("ns/a", 9)), (State::Exactly(9), 0));
        check(&format!("continue={}", encode_token("ns/a", -1)), (State::Now, 0));
    }

    #[test]
    fn a_watch_begins_where_it_was_asked_to() {
        fn check(query: &str, expected: Start) {
            assert_eq!(Start::parse(&Query::parse(query)).unwrap(), expected, "{query}");
        }
        const INITIAL: &str = "resourceVersionMatch=NotOlderThan&sendInitialEvents";
        let state = |not_before, end_mark| Start::State { not_before, end_mark };
        check("", state(None, false));
        check("resourceVersion=0", state(None, false));
        check("resourceVersion=7", Start::After(7));
        check(&format!("{INITIAL}=true"), state(None, false));
        check(&format!("{INITIAL}=true&allowWatchBookmarks=true"), state(None, true));
        check(&format!("{INITIAL}=1&allowWatchBookmarks=1&resourceVersion=0"), state(None, true));
        check(&format!("{INITIAL}&allowWatchBookmarks&resourceVersion=7"), state(Some(7), true));
        check(&format!("{INITIAL}=false&allowWatchBookmarks=true"), Start::Now);
        check(&format!("{INITIAL}=false&resourceVersion=0"), Start::Now);
        check(&format!("{INITIAL}=false&resourceVersion=7"), Start::After(7));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let forged = |start: Value, revision: Value, version: &str| {
            URL_SAFE_NO_PAD.encode(json!({"v": version, "rv": revision, "start": start}).to_string())
        };
        for token in [
            forged("".into(), 5.into(), "meta.k8s.io/v1"),
            forged("a".into(), 0.into(), "meta.k8s.io/v1"),
            forged("a".into(), "5".into(), "meta.k8s.io/v1"),
            forged("a".into(), json!(1e300), "meta.k8s.io/v1"),
            forged(json!(["a"]), 5.into(), "meta.k8s.io/v1"),
            forged("a".into(), 5.into(), "meta.k8s.io/v2"),
            forged("../secrets/a".into(), 5.into(), "meta.k8s.io/v1"),
            forged("a/../b".into(), 5.into(), "meta.k8s.io/v1"),
            forged("a//b".into(), 5.into(), "meta.k8s.io/v1"),
            forged("a/".into(), 5.into(), "meta.k8s.io/v1"),
            forged("//a".into(), 5.into(), "meta.k8s.io/v1"),
            URL_SAFE_NO_PAD.encode("[1"),
            URL_SAFE_NO_PAD.encode(b"\xff\xfe"),
            "*".into(),
        ] {
            let refused = Page::parse(&Query::parse(&format!("continue={token}"))).unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (400, "continue key is not valid"), "{token}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn tokens_are_read_as_written_and_nothing_makes_reading_panic(
            key in "[a-z0-9]{1,9}(/[a-z0-9]{1,9})?", revision in 1u64..1 << 62, at in 0usize..200, byte in any::<u8>(),
            noise in any::<Vec<u8>>(),
        ) {
            let token = token_after(&key, revision);
            let page = Page::following(&token, 3).unwrap();
            prop_assert_eq!((page.state, page.start), (State::Exactly(revision), format!("{key}\0")));
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
            let length = bytes.len();
            bytes[at % length] ^= byte;
            for bytes in [bytes, noise] {
                if let Ok(page) = Page::following(&URL_SAFE_NO_PAD.encode(bytes), 3) {
                    prop_assert!(!page.start.is_empty() && !page.start.split('/').any(|part| part == ".."));
                }
            }
        }
    }
}
