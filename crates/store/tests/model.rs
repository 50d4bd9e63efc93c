//! The store against the simplest thing that could be right: a map, and a copy of it per revision.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use isopod_store::{EventKind, Expect, Limits, ListError, ListQuery, Outcome, Scope, Store, Value, WatchError, Write};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, expect: Guess, value: u8 },
    Delete { key: u8, expect: Guess },
    Compact { back: u64 },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Guess {
    Any,
    Absent,
    Right,
    Wrong,
}

fn guess() -> impl Strategy<Value = Guess> {
    prop_oneof![Just(Guess::Any), Just(Guess::Absent), Just(Guess::Right), Just(Guess::Wrong)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8u8, guess(), any::<u8>()).prop_map(|(key, expect, value)| Step::Put { key, expect, value }),
        3 => (0..8u8, guess()).prop_map(|(key, expect)| Step::Delete { key, expect }),
        1 => (0..6u64).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
    ]
}

/// Topics `a` and `b`, so that watches over one topic and over all are both met.
fn key_name(key: u8) -> String {
    format!("{}/k{}", if key.is_multiple_of(2) { "a" } else { "b" }, key)
}

type State = BTreeMap<String, (Vec<u8>, u64)>;

struct Model {
    states: Vec<State>,
    events: Vec<(u64, EventKind, String, Option<Vec<u8>>)>,
    compacted: u64,
}

impl Model {
    fn now(&self) -> &State {
        self.states.last().expect("the state at revision 0 is always there")
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn expect(&self, key: &str, guess: Guess) -> (Expect, bool) {
        let current = self.now().get(key).map(|(_, revision)| *revision);
        match guess {
            Guess::Any => (Expect::Any, true),
            Guess::Absent => (Expect::Absent, current.is_none()),
            Guess::Right => (Expect::Revision(current.unwrap_or(7_777)), current.is_some()),
            Guess::Wrong => (Expect::Revision(current.map_or(0, |revision| revision + 1_000)), false),
        }
    }

    fn change(&mut self, key: &str, value: Option<Vec<u8>>) {
        let revision = self.revision() + 1;
        let mut state = self.now().clone();
        let previous = match &value {
            Some(value) => state.insert(key.to_owned(), (value.clone(), revision)),
            None => state.remove(key),
        };
        let kind = if value.is_some() { EventKind::Put } else { EventKind::Delete };
        self.events.push((revision, kind, key.to_owned(), previous.map(|(value, _)| value)));
        self.states.push(state);
    }
}

async fn run(steps: Vec<Step>, durable: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let open = || {
        if durable { Store::open(&path, Limits::default()).unwrap() } else { Store::memory(Limits::default()) }
    };
    let mut store = open();
    let mut model = Model { states: vec![State::new()], events: Vec::new(), compacted: 0 };
    for step in steps {
        match step {
            Step::Put { key, expect, value } => {
                let key = key_name(key);
                let (expect, wins) = model.expect(&key, expect);
                let bytes = vec![b'v', value];
                let outcome =
                    store.commit(Write::put(key.as_str(), expect, Value::plain(bytes.clone()))).await.unwrap();
                check_outcome(&model, &key, wins, &outcome);
                if wins {
                    model.change(&key, Some(bytes));
                }
            }
            Step::Delete { key, expect } => {
                let key = key_name(key);
                let (expect, wins) = model.expect(&key, expect);
                let wins = wins && model.now().contains_key(&key);
                let outcome = store.commit(Write::delete(key.as_str(), expect, None)).await.unwrap();
                check_outcome(&model, &key, wins, &outcome);
                if wins {
                    model.change(&key, None);
                }
            }
            Step::Compact { back } => {
                let target = model.revision().saturating_sub(back);
                store.compact(target).await.unwrap();
                model.compacted = model.compacted.max(target);
            }
            Step::Reopen if durable => {
                drop(store);
                store = open();
            }
            Step::Reopen => {}
        }
        check_state(&store, &model);
    }
    check_watches(&store, &model);
}

fn check_outcome(model: &Model, key: &str, wins: bool, outcome: &Outcome) {
    match outcome {
        Outcome::Committed(entry) => {
            assert!(wins);
            assert_eq!(entry.mod_revision, model.revision() + 1);
        }
        Outcome::Lost(current) => {
            assert!(!wins);
            let current = current.as_ref().map(|entry| (entry.value.to_vec(), entry.mod_revision));
            assert_eq!(current.as_ref(), model.now().get(key));
        }
    }
}

fn check_state(store: &Store, model: &Model) {
    assert_eq!(store.revision(), model.revision());
    for at in 0..=model.revision() {
        let query = ListQuery { at: Some(at), ..ListQuery::default() };
        let listed = store.list(&query);
        if at < model.compacted {
            assert_eq!(listed, Err(ListError::Compacted { asked: at, oldest: model.compacted }));
            continue;
        }
        let listed: State = listed
            .unwrap()
            .entries
            .iter()
            .map(|entry| (entry.key.to_string(), (entry.value.to_vec(), entry.mod_revision)))
            .collect();
        assert_eq!(listed, model.states[at as usize], "state at revision {at}");
    }
    let future = ListQuery { at: Some(model.revision() + 1), ..ListQuery::default() };
    assert!(matches!(store.list(&future), Err(ListError::Future { .. })));
}

fn check_watches(store: &Store, model: &Model) {
    let scopes = [Scope::Prefix(String::new()), Scope::Prefix("a/".into()), Scope::Key("b/k1".into())];
    for scope in scopes {
        for from in 0..=model.revision() {
            let watch = store.watch(scope.clone(), from);
            if from < model.compacted {
                assert!(matches!(watch, Err(WatchError::Compacted { .. })));
                continue;
            }
            let mut watch = watch.unwrap();
            let mut seen = Vec::new();
            while let Some(event) = watch.try_next() {
                let previous = event.previous.as_ref().map(|entry| entry.value.to_vec());
                seen.push((event.revision(), event.kind, event.entry.key.to_string(), previous));
            }
            let covered = |key: &str| match &scope {
                Scope::Prefix(prefix) => key.starts_with(prefix.as_str()),
                Scope::Key(wanted) => key == wanted,
            };
            let wanted: Vec<_> =
                model.events.iter().filter(|event| event.0 > from && covered(&event.2)).cloned().collect();
            assert_eq!(seen, wanted, "watch of {scope:?} from {from}");
            assert_eq!(watch.progress(), model.revision());
        }
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_store_equals_the_model(steps in prop::collection::vec(step(), 1..60)) {
        block_on(run(steps, false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn durable_store_equals_the_model_over_restarts(steps in prop::collection::vec(step(), 1..40)) {
        block_on(run(steps, true));
    }
}
