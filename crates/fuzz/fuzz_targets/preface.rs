//! Any bytes in pieces of any size: the scanner neither panics nor grows, finds the same frames however the bytes are cut,
//! and finds a frame that follows them.
#![no_main]

use isopod_guest_api::preface::{Preface, Scanner};
use libfuzzer_sys::fuzz_target;

fn scan(stream: &[u8], piece: usize) -> Vec<(Preface, usize)> {
    let (mut scanner, mut found, mut base) = (Scanner::new(), Vec::new(), 0);
    for part in stream.chunks(piece) {
        let mut at = 0;
        while let Some(hit) = scanner.feed(&part[at..]) {
            at += hit.consumed;
            found.push((hit.preface, base + at));
        }
        base += part.len();
    }
    found
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (piece, mut stream) = (usize::from(input.0) + 1, input.1);
    let last = Preface::reply([0xa5; 16]);
    stream.extend(last.encode());
    let found = scan(&stream, piece);
    assert_eq!(found, scan(&stream, stream.len()));
    assert_eq!(found.last(), Some(&(last, stream.len())));
});
