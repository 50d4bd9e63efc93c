//! Power cuts: a disk that forgets an arbitrary part of what was not synced. Every acknowledged write must survive,
//! every write that was not must be whole or absent, and revisions must have no holes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::sync::{Arc, Mutex};

use isopod_store::{CommitError, Expect, Limits, ListQuery, Outcome, StorageBackend, Store, Value, Write};

/// What is on the platter, and what the operating system still holds.
#[derive(Debug, Default)]
struct Platter {
    synced: Vec<u8>,
    cached: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    syncs_left: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

/// A small generator, so that a failing seed can be named.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

impl Disk {
    /// Cuts the power: of the unsynced writes an arbitrary subset reaches the platter, torn at 512 bytes.
    fn power_cut(&self, dice: &mut Dice) -> Self {
        let platter = self.0.lock().unwrap();
        let mut bytes = platter.synced.clone();
        bytes.resize(platter.cached.len().max(bytes.len()), 0);
        for (offset, data) in &platter.unsynced {
            for (number, sector) in data.chunks(512).enumerate() {
                let start = *offset as usize + number * 512;
                if dice.roll(2) == 0 && start + sector.len() <= bytes.len() {
                    bytes[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        let survived = Platter { synced: bytes.clone(), cached: bytes, ..Platter::default() };
        Self(Arc::new(Mutex::new(survived)))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let start = offset as usize;
        out.copy_from_slice(&platter.cached[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().cached.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        if let Some(left) = &mut platter.syncs_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        }
        platter.synced = platter.cached.clone();
        platter.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        let start = offset as usize;
        platter.cached[start..start + data.len()].copy_from_slice(data);
        platter.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

fn value_of(number: u64) -> Value {
    Value::plain(number.to_le_bytes().repeat(100 + number as usize % 64))
}

async fn live_through(seed: u64) {
    let mut dice = Dice(seed);
    let mut disk = Disk::default();
    let mut acknowledged = 0u64;
    for life in 0..5 {
        let Ok(store) = Store::open_on(disk.clone(), Limits::default()) else {
            panic!("seed {seed}, life {life}: the store does not open after a power cut")
        };
        let survived = check_whole(&store, acknowledged, seed);
        disk.0.lock().unwrap().syncs_left = Some(2 + dice.roll(30) as u32);
        acknowledged = survived + write_until_failure(&store, survived).await;
        if dice.roll(3) == 0 {
            let _ = store.compact(acknowledged.min(store.revision())).await;
        }
        let next = disk.power_cut(&mut dice);
        drop(store);
        disk = next;
    }
}

/// Keys are numbered by the write that made them: what is there must be 1..=n, whole, with n at least what was
/// acknowledged.
fn check_whole(store: &Store, acknowledged: u64, seed: u64) -> u64 {
    let listed = store.list(&ListQuery::default()).unwrap();
    assert!(listed.entries.len() as u64 >= acknowledged, "seed {seed}: acknowledged writes were lost");
    for (number, entry) in (1u64..).zip(&listed.entries) {
        assert_eq!(*entry.key, *format!("t/{number:08}"), "seed {seed}: a hole");
        assert_eq!(entry.mod_revision, number, "seed {seed}");
        assert_eq!(entry.value, number.to_le_bytes().repeat(100 + number as usize % 64), "seed {seed}: torn");
    }
    assert_eq!(listed.revision, listed.entries.len() as u64);
    listed.revision
}

async fn write_until_failure(store: &Store, from: u64) -> u64 {
    for written in 0..64 {
        let number = from + written + 1;
        let write = Write::put(format!("t/{number:08}"), Expect::Absent, value_of(number));
        match store.commit(write).await {
            Ok(Outcome::Committed(_)) => {}
            Ok(Outcome::Lost(_)) => panic!("the key {number} cannot exist"),
            Err(_) => return written,
        }
    }
    64
}

#[tokio::test]
async fn power_cuts_lose_no_acknowledged_write() {
    for seed in 0..60 {
        live_through(seed).await;
    }
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_shown_or_accepted() {
    let disk = Disk::default();
    let store = Store::open_on(disk.clone(), Limits::default()).unwrap();
    disk.0.lock().unwrap().syncs_left = Some(0);
    for _ in 0..2 {
        let failed = store.commit(Write::put("t/x", Expect::Any, Value::plain("x"))).await;
        assert!(matches!(failed, Err(CommitError::Disk(_))), "{failed:?}");
        assert_eq!(store.get("t/x"), None);
        assert_eq!(store.revision(), 0);
        disk.0.lock().unwrap().syncs_left = None;
    }
}
