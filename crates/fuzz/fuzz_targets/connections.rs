//! Any bytes on whole connections that were upgraded, as a peer writes them, and in pages of proxied servers: each ends, and a
//! page without links stays what it is.
#![no_main]

use isopod_apiserver::fuzzing::Connections;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static CONNECTIONS: Connections = Connections::new();
}

fuzz_target!(|input: (u8, &[u8])| CONNECTIONS.with(|connections| match input.0 % 3 {
    0 => connections.spdy(input.1),
    1 => connections.websocket(input.1),
    _ => {
        let page = Connections::page(input.1);
        assert!(page == input.1 || input.1.contains(&b'/') && page.len() >= input.1.len());
    }
}));
