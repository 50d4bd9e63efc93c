//! Any text as a token, any claims as those of somebody else's token, any file that says whom to believe: nobody becomes
//! somebody whom the claims do not name.
#![no_main]

use isopod_apiserver::fuzzing;
use isopod_schema::authentication::Authentication;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn file(text: &str) -> String {
    let text = Value::from(text);
    format!(
        r#"{{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{{
        "issuer": {{"url": "https://i.example.com", "audiences": ["a"]}},
        "claimValidationRules": [{{"expression": {text}}}], "userValidationRules": [{{"expression": {text}}}],
        "claimMappings": {{"username": {{"expression": {text}}}, "groups": {{"expression": {text}}},
            "extra": [{{"key": "example.com/k", "valueExpression": {text}}}]}}}}]}}"#
    )
}

const PLAIN: &str = r#"{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
    "issuer": {"url": "https://i.example.com", "audiences": ["a"]}, "claimValidationRules": [{"claim": "x", "requiredValue": "y"}],
    "claimMappings": {"username": {"claim": "sub", "prefix": "i:"}, "groups": {"claim": "groups", "prefix": "i:"}}}]}"#;

fuzz_target!(|input: (&str, &[u8])| {
    let (text, claims) = input;
    fuzzing::token(text, claims);
    drop(Authentication::parse(text, "https://own"));
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else { return };
    for (file, is_plain) in [(file(text), false), (PLAIN.to_owned(), true)] {
        let Ok(known) = Authentication::parse(&file, "https://own") else {
            assert!(!is_plain, "{file}");
            continue;
        };
        let Ok(found) = known.jwt[0].identity(&claims) else { continue };
        assert!(!found.name.is_empty());
        if is_plain {
            let named = claims["sub"].as_str().map(|sub| format!("i:{sub}"));
            assert_eq!(Some(&found.name), named.as_ref(), "{claims}");
            assert!(claims["x"] == "y" && found.groups.iter().all(|group| group.starts_with("i:")), "{found:?}");
        }
    }
});
