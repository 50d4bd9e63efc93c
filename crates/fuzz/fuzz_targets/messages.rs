//! Any bytes as each message that the host receives: decoding neither panics nor loses what it decoded.
#![no_main]

use isopod_guest_api::{
    ConnectOutput, Event, ExecOutput, GuestFault, HelloResponse, LogChunk, StartContainerResponse, StatsResponse,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fn check<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(M::decode(&message.encode_to_vec()[..]).as_ref(), Ok(&message));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<HelloResponse>(bytes);
    check::<StartContainerResponse>(bytes);
    check::<Event>(bytes);
    check::<LogChunk>(bytes);
    check::<ExecOutput>(bytes);
    check::<ConnectOutput>(bytes);
    check::<StatsResponse>(bytes);
    check::<GuestFault>(bytes);
});
