//! Any request to a whole server in memory: method, path, query, media types, token and body. It answers each, and never that
//! it broke.
#![no_main]

use isopod_apiserver::fuzzing::Server;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SERVER: Server = Server::open();
}

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const PATHS: [&str; 8] = [
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/x",
    "/api/v1/namespaces/default/pods",
    "/apis/apps/v1/namespaces/default/deployments/x/scale",
    "/apis/authentication.k8s.io/v1/tokenreviews",
    "/api/v1/namespaces/default/serviceaccounts/default/token",
    "/apis",
    "/",
];
const MEDIA: [&str; 7] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
];

/// Request by choice of parts, then free texts.
type Input<'a> = ((u8, u8, u8), &'a str, &'a str, &'a str, &'a [u8]);

fuzz_target!(|input: Input<'_>| {
    let ((method, path, media), more, accept, token, body) = input;
    let of = |list: &[&'static str], at: u8| list[usize::from(at) % list.len()];
    let uri = format!("{}{more}", of(&PATHS, path));
    let headers = [("content-type", of(&MEDIA, media)), ("accept", accept), ("authorization", token)];
    SERVER.with(|server| {
        if let Some(code) = server.answer(of(&METHODS, method), &uri, &headers, body) {
            assert_ne!(code, 500, "{uri}");
        }
    });
});
