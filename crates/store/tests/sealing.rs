//! What the disk holds of chosen keys, and what happens when seals change.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use isopod_store::{Expect, Limits, OpenError, Sealer, Store, Value, Write};

/// A toy: every byte of keys below `secret/` is combined with the last one of `keys`, whose number comes first.
struct Toy(Vec<u8>);

impl Sealer for Toy {
    fn seal(&self, key: &str, _: u64, value: &[u8], sealed: &mut Vec<u8>) -> bool {
        if self.wants(key) {
            let mask = *self.0.last().unwrap();
            sealed.push(mask);
            sealed.extend(value.iter().map(|byte| byte ^ mask));
        }
        self.wants(key)
    }

    fn open(&self, _: &str, _: u64, sealed: &[u8]) -> Option<(Vec<u8>, bool)> {
        let (mask, rest) = sealed.split_first()?;
        let known = self.0.contains(mask).then(|| rest.iter().map(|byte| byte ^ mask).collect())?;
        Some((known, self.0.last() == Some(mask)))
    }

    fn wants(&self, key: &str) -> bool {
        !self.0.is_empty() && key.starts_with("secret/")
    }
}

/// Opens with these keys, or without a sealer; waits until the store's last handle, and its writer's thread, have gone.
fn open(path: &Path, keys: Option<&[u8]>) -> Result<Store, OpenError> {
    for _ in 0..6_000 {
        let sealer = keys.map(|keys| Arc::new(Toy(keys.to_vec())) as Arc<dyn Sealer>);
        match Store::open_sealed(path, Limits::default(), sealer) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(5)),
            opened => return opened,
        }
    }
    panic!("the store was not given back");
}

fn disk_holds(path: &Path, text: &str) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn chosen_keys_are_sealed_on_disk_and_keys_can_be_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path, Some(&[7])).unwrap();
    for (key, value) in [("secret/a", "a-very-secret-value"), ("plain/a", "a-very-plain-value")] {
        store.commit(Write::put(key, Expect::Any, Value::plain(value))).await.unwrap();
    }
    let revision = store.revision();
    assert_eq!(store.get("secret/a").unwrap().value, "a-very-secret-value");
    drop(store);
    assert!(!disk_holds(&path, "a-very-secret-value") && disk_holds(&path, "a-very-plain-value"));

    // With a new key first written anew, the old one is not needed any more; nobody sees a new revision.
    for keys in [&[7, 9][..], &[9]] {
        let store = open(&path, Some(keys)).unwrap();
        assert_eq!(store.get("secret/a").unwrap().value, "a-very-secret-value");
        assert_eq!(store.revision(), revision);
        drop(store);
    }
    assert!(matches!(open(&path, Some(&[7])), Err(OpenError::Damaged { .. })));
    assert!(matches!(open(&path, None), Err(OpenError::Damaged { .. })));
}

#[tokio::test]
async fn what_was_written_without_seals_is_sealed_when_it_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path, None).unwrap();
    store.commit(Write::put("secret/a", Expect::Any, Value::plain("early"))).await.unwrap();
    drop(store);
    for keys in [&[3][..], &[3]] {
        let store = open(&path, Some(keys)).unwrap();
        assert_eq!(store.get("secret/a").unwrap().value, "early");
        drop(store);
    }
    assert!(open(&path, None).is_err(), "it is sealed now");
}
