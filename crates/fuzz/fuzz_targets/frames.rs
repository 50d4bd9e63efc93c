//! Any bytes on connections that were upgraded: SPDY frames with their headers, however they are cut, and messages of the
//! WebSocket channels.
#![no_main]

use isopod_apiserver::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let piece = usize::from(input.0) + 1;
    assert_eq!(fuzzing::spdy_frames(input.1, piece), fuzzing::spdy_frames(input.1, usize::MAX));
    fuzzing::channel_message(input.1);
});
