//! Status bodies: code, reason and text of each constructor.

use isopod_schema::Status;
use serde_json::json;

use crate::kind;

#[test]
fn texts_are_upstreams() {
    fn check(status: Status, code: u16, reason: &str, message: &str) {
        let body = status.to_value();
        assert_eq!((body["code"].as_u64(), body["reason"].as_str()), (Some(code.into()), Some(reason)));
        assert_eq!(body["message"], message);
    }
    let (pods, deployments) = (kind("pods"), kind("apps/v1/deployments"));
    check(Status::not_found(pods, "x"), 404, "NotFound", "pods \"x\" not found");
    check(Status::not_found(deployments, "x"), 404, "NotFound", "deployments.apps \"x\" not found");
    check(
        Status::already_exists_deleting(pods, "x"),
        409,
        "AlreadyExists",
        "object is being deleted: pods \"x\" already exists",
    );
    check(
        Status::generate_name_exhausted(pods, "x"),
        409,
        "AlreadyExists",
        "pods \"x\" already exists, the server was not able to generate a unique name for the object",
    );
    check(
        Status::stale(pods, "x"),
        409,
        "Conflict",
        "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to the latest version and try again",
    );
    check(Status::forbidden(pods, "x", "no"), 403, "Forbidden", "pods \"x\" is forbidden: no");
    check(
        Status::forbidden_resource("apps", "deployments", "", "no"),
        403,
        "Forbidden",
        "deployments.apps is forbidden: no",
    );
    check(Status::forbidden_path("no"), 403, "Forbidden", "forbidden: no");
    check(Status::unauthorized(), 401, "Unauthorized", "Unauthorized");
    check(Status::too_large(9), 413, "RequestEntityTooLarge", "Request entity too large: limit is 9");
    check(Status::too_old(5, 9), 410, "Expired", "too old resource version: 5 (9)");
    check(Status::version_too_large(9, 5), 504, "Timeout", "Timeout: Too large resource version: 9, current: 5");
    check(
        Status::method_not_allowed(),
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    );
    check(
        Status::not_acceptable(&["a", "b"]),
        406,
        "NotAcceptable",
        "only the following media types are accepted: a, b",
    );
    check(Status::internal("boom"), 500, "InternalError", "Internal error occurred: boom");
}

#[test]
fn details() {
    let status = Status::too_many_requests("slow down", 3).to_value();
    assert_eq!(status["details"], json!({"retryAfterSeconds": 3}));
    let status = Status::not_found(kind("pods"), "x").to_value();
    assert_eq!(status["details"], json!({"name": "x", "kind": "pods"}));
    let body = Status::success(kind("apps/v1/deployments"), "x", "u");
    assert_eq!(body["details"], json!({"name": "x", "group": "apps", "kind": "deployments", "uid": "u"}));
}
