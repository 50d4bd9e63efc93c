//! Any request to a whole server in memory: method, path, query, media types, headers, token and body. It answers each, and
//! never that it broke; what was applied is applied again without a change.
#![no_main]

use isopod_apiserver::fuzzing::Server;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SERVER: Server = Server::open();
}

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const PATHS: [&str; 32] = [
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/x",
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/pods/x",
    "/api/v1/namespaces/default/pods/x/eviction",
    "/api/v1/namespaces/default/pods/x/binding",
    "/api/v1/namespaces/default/pods/x/status",
    "/api/v1/namespaces/default/pods/x/proxy/",
    "/api/v1/namespaces/default/services/x",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/serviceaccounts/default/token",
    "/api/v1/namespaces/default/resourcequotas",
    "/api/v1/namespaces",
    "/api/v1/nodes/x",
    "/apis/apps/v1/namespaces/default/deployments/x",
    "/apis/apps/v1/namespaces/default/deployments/x/scale",
    "/apis/batch/v1/namespaces/default/cronjobs",
    "/apis/authentication.k8s.io/v1/tokenreviews",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/apiregistration.k8s.io/v1/apiservices",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    "/apis/networking.k8s.io/v1/servicecidrs",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/events.k8s.io/v1/namespaces/default/events",
    "/openapi/v3",
    "/openapi/v2",
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

/// Headers that anybody may send.
const HEADERS: [&str; 8] = [
    "user-agent",
    "impersonate-user",
    "impersonate-group",
    "impersonate-extra-a%2fb",
    "accept-encoding",
    "if-none-match",
    "audit-id",
    "sec-websocket-protocol",
];

/// Request by choice of parts, then free texts.
type Input<'a> = ((u8, u8, u8, u8), &'a str, &'a str, &'a str, &'a str, &'a [u8]);

fuzz_target!(|input: Input<'_>| {
    let ((method, path, media, header), more, accept, token, text, body) = input;
    let of = |list: &[&'static str], at: u8| list[usize::from(at) % list.len()];
    let (method, uri, media) = (of(&METHODS, method), format!("{}{more}", of(&PATHS, path)), of(&MEDIA, media));
    let headers = [("content-type", media), ("accept", accept), ("authorization", token), (of(&HEADERS, header), text)];
    SERVER.with(|server| {
        let Some((code, first)) = server.answer(method, &uri, &headers, body) else { return };
        assert_ne!(code, 500, "{uri}");
        if method == "PATCH" && media == "application/apply-patch+yaml" && matches!(code, 200 | 201) {
            let again = server.answer(method, &uri, &headers, body);
            assert!(uri.contains("dryRun") || again == Some((200, first)), "{uri} {again:?}");
        }
    });
});
