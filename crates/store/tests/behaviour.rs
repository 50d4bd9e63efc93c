//! Concurrency, watching, limits and reopening.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use isopod_store::{
    CommitError, CompactError, Entry, Expect, Limits, ListQuery, OpenError, Outcome, Scope, Store, Value, WatchError,
    Write,
};

async fn put(store: &Store, key: &str, value: &'static str) -> Arc<Entry> {
    match store.commit(Write::put(key, Expect::Any, Value::plain(value))).await.unwrap() {
        Outcome::Committed(entry) => entry,
        Outcome::Lost(current) => panic!("an unconditional put lost to {current:?}"),
    }
}

fn durable() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), Limits::default()).unwrap();
    (directory, store)
}

async fn increment(store: Store, times: u32) {
    for _ in 0..times {
        let mut current = store.get("n/counter").unwrap();
        loop {
            let number: u64 = std::str::from_utf8(&current.value).unwrap().parse().unwrap();
            let value = Value::plain((number + 1).to_string());
            let write = Write::put("n/counter", Expect::Revision(current.mod_revision), value);
            match store.commit(write).await.unwrap() {
                Outcome::Committed(_) => break,
                Outcome::Lost(now) => current = now.expect("nobody deletes the counter"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_compare_and_set_loses_no_increment() {
    let (_directory, durable) = durable();
    for store in [durable, Store::memory(Limits::default())] {
        put(&store, "n/counter", "0").await;
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(increment(store.clone(), 25))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(store.get("n/counter").unwrap().value, "200");
        assert_eq!(store.revision(), 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watchers_that_start_at_any_time_see_every_event_once_in_order() {
    let (_directory, store) = durable();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..400 {
                put(&store, &format!("w/{}", number % 7), "x").await;
            }
        }
    });
    let mut readers = Vec::new();
    for _ in 0..20 {
        let listed = store.list(&ListQuery { prefix: "w/".into(), ..ListQuery::default() }).unwrap();
        let mut watch = store.watch(Scope::Prefix("w/".into()), listed.revision).unwrap();
        readers.push(tokio::spawn(async move {
            let mut expected = listed.revision + 1;
            while expected <= 400 {
                assert_eq!(watch.next().await.unwrap().unwrap().revision(), expected);
                expected += 1;
            }
        }));
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    for reader in readers {
        tokio::time::timeout(Duration::from_secs(10), reader).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_slow_watcher_is_told_and_others_are_not_held_up() {
    let store = Store::memory(Limits { watch_queue: 4, ..Limits::default() });
    let mut slow = store.watch(Scope::Prefix("t/".into()), 0).unwrap();
    let mut fast = store.watch(Scope::Prefix("t/".into()), 0).unwrap();
    for revision in 1..=10 {
        put(&store, "t/x", "x").await;
        assert_eq!(fast.next().await.unwrap().unwrap().revision(), revision);
    }
    for revision in 1..=4 {
        assert_eq!(slow.next().await.unwrap().unwrap().revision(), revision);
    }
    assert_eq!(slow.next().await, Some(Err(WatchError::Lagged { queue: 4 })));
    assert_eq!(slow.next().await, None);
    assert_eq!(store.stats().watchers, 1);
    let mut resumed = store.watch(Scope::Prefix("t/".into()), 4).unwrap();
    assert_eq!(resumed.next().await.unwrap().unwrap().revision(), 5);
}

#[tokio::test]
async fn a_watcher_ends_when_the_store_closes() {
    let store = Store::memory(Limits::default());
    let mut watch = store.watch(Scope::Prefix(String::new()), 0).unwrap();
    drop(store);
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn rings_that_overflow_refuse_old_starts() {
    let store = Store::memory(Limits { events_per_topic: 3, ..Limits::default() });
    put(&store, "other/x", "x").await;
    for _ in 0..5 {
        put(&store, "t/x", "x").await;
    }
    let refused = store.watch(Scope::Prefix("t/".into()), 2).unwrap_err();
    assert_eq!(refused, WatchError::Compacted { asked: 2, oldest: 3 });
    assert!(store.watch(Scope::Prefix("t/".into()), 3).is_ok());
    assert!(store.watch(Scope::Prefix("other/".into()), 0).is_ok(), "another topic keeps its own history");
}

#[tokio::test]
async fn the_revision_is_stamped_into_values_and_last_states() {
    let (directory, store) = durable();
    put(&store, "t/other", "x").await;
    let stamped = Value::stamped("rev=;", 4);
    store.commit(Write::put("t/x", Expect::Absent, stamped.clone())).await.unwrap();
    assert_eq!(store.get("t/x").unwrap().value, "rev=2;");
    drop(store);
    let store = Store::open(&directory.path().join("store"), Limits::default()).unwrap();
    assert_eq!(store.get("t/x").unwrap().value, "rev=2;");
    let gone = store.commit(Write::delete("t/x", Expect::Revision(2), Some(stamped))).await.unwrap();
    let Outcome::Committed(last) = gone else { panic!("the delete lost") };
    assert_eq!((last.value.as_ref(), last.mod_revision), (b"rev=3;".as_ref(), 3));
}

#[tokio::test]
async fn lists_page_in_key_order_at_one_revision() {
    let store = Store::memory(Limits::default());
    for number in 0..5 {
        put(&store, &format!("p/{number}"), "x").await;
    }
    put(&store, "q/0", "x").await;
    let mut query = ListQuery { prefix: "p/".into(), limit: 2, at: Some(5), ..ListQuery::default() };
    let mut pages = Vec::new();
    put(&store, "p/9", "later").await;
    loop {
        let page = store.list(&query).unwrap();
        pages.push((page.entries.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>(), page.remaining));
        let Some(last) = page.entries.last().filter(|_| page.remaining > 0) else { break };
        query.start = format!("{}\0", last.key);
    }
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(pages, [(names(&["p/0", "p/1"]), 3), (names(&["p/2", "p/3"]), 1), (names(&["p/4"]), 0)]);
}

#[tokio::test]
async fn limits_are_named_when_exceeded() {
    let store = Store::memory(Limits { key_bytes: 4, value_bytes: 3, ..Limits::default() });
    let long_key = store.commit(Write::put("t/long", Expect::Any, Value::plain(""))).await;
    assert_eq!(long_key, Err(CommitError::TooLarge { what: "key", found_bytes: 6, limit_bytes: 4 }));
    let large_value = store.commit(Write::put("t/x", Expect::Any, Value::plain("four"))).await;
    assert_eq!(large_value, Err(CommitError::TooLarge { what: "value", found_bytes: 4, limit_bytes: 3 }));
    assert_eq!(store.compact(1).await, Err(CompactError::Future { asked: 1, current: 0 }));
}

#[tokio::test]
async fn history_is_compacted_when_it_takes_too_much_memory() {
    let store = Store::memory(Limits { history_bytes: 1_000, ..Limits::default() });
    for _ in 0..1_000 {
        put(&store, "t/x", "some value of more than twenty bytes").await;
    }
    let stats = store.stats();
    assert!(stats.history_bytes <= 1_100, "{stats:?}");
    assert_eq!((stats.keys, stats.revision), (1, 1_000));
    assert!(stats.compacted > 900, "{stats:?}");
}

#[tokio::test]
async fn a_waiter_wakes_at_its_revision() {
    let store = Store::memory(Limits::default());
    let waiter = tokio::spawn({
        let store = store.clone();
        async move {
            store.reached(3).await;
            store.revision()
        }
    });
    for _ in 0..3 {
        put(&store, "t/x", "x").await;
        tokio::task::yield_now().await;
    }
    assert_eq!(waiter.await.unwrap(), 3);
}

#[tokio::test]
async fn ten_thousand_keys_survive_and_the_file_is_exclusive() {
    let (directory, store) = durable();
    let path = directory.path().join("store");
    let tasks: Vec<_> = (0..100)
        .map(|group| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    put(&store, &format!("pods/ns{group}/p{number}"), "some pod").await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(matches!(Store::open(&path, Limits::default()), Err(OpenError::InUse { .. })));
    drop(store);
    let store = Store::open(&path, Limits::default()).unwrap();
    let listed = store.list(&ListQuery { prefix: "pods/".into(), ..ListQuery::default() }).unwrap();
    let revisions: BTreeSet<_> = listed.entries.iter().map(|entry| entry.mod_revision).collect();
    assert_eq!((listed.entries.len(), revisions.len(), listed.revision), (10_000, 10_000, 10_000));
}

#[tokio::test]
async fn a_memo_is_derived_once() {
    let store = Store::memory(Limits::default());
    let entry = put(&store, "t/x", "four").await;
    assert_eq!(entry.memo(|bytes| bytes.len()).as_deref(), Some(&4));
    assert_eq!(store.get("t/x").unwrap().memo(|_| 0usize).as_deref(), Some(&4));
    assert_eq!(entry.memo(|_| "another type"), None);
}
