//! An issuer of tokens in this process, over TLS.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use isopod_apiserver::UserInfo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::site::Site;

struct Issuer {
    url: String,
    ca: String,
    key: KeyPair,
    /// How often the keys were asked for.
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn open() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let key = KeyPair::generate().unwrap();
        let point = &key.der_bytes()[1..];
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[..32]), URL_SAFE_NO_PAD.encode(&point[32..]));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "alg": "ES256", "x": x, "y": y}]});
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, keys, discovery, counter) =
                    (acceptor.clone(), keys.clone(), discovery.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let document = match request.uri().path() {
                            "/keys" => {
                                counter.fetch_add(1, Ordering::SeqCst);
                                keys.clone()
                            }
                            _ => discovery.clone(),
                        };
                        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(document.to_string())))) }
                    });
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { url, ca: made.cert.pem(), key, asked }
    }

    fn token(&self, id: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims =
            json!({"iss": self.url, "aud": "kubernetes", "sub": "jane", "groups": ["devs"], "exp": 4_000_000_000_u64});
        change(&mut claims);
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn configuration(&self) -> String {
        let issuer = json!({"url": self.url, "audiences": ["kubernetes"], "certificateAuthority": self.ca});
        let mappings = json!({
            "username": {"expression": "'oidc:' + claims.sub"}, "groups": {"claim": "groups", "prefix": "oidc:"},
        });
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{"issuer": issuer, "claimMappings": mappings}], "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
        })
        .to_string()
    }
}

/// What the server makes of a token.
async fn review(site: &Site, token: &str) -> Value {
    let body = json!({"spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let request = Request::post(path).header("content-type", "application/json").body(body.to_string()).unwrap();
    let (_, _, text) = site.ask(&UserInfo::new("admin", ["system:masters"]), request).await;
    serde_json::from_str::<Value>(&text.unwrap()).unwrap()["status"].clone()
}

async fn line(site: &Site, path: &str, token: &str) -> String {
    let mut stream = site.connect().await;
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_others_become_users() {
    let issuer = Issuer::open().await;
    let site = Site::with_file("authentication.yaml", &issuer.configuration()).await;
    let good = review(&site, &issuer.token("one", |_| {})).await;
    assert_eq!((&good["authenticated"], &good["user"]["username"]), (&json!(true), &json!("oidc:jane")), "{good}");
    assert_eq!(good["user"]["groups"], json!(["oidc:devs", "system:authenticated"]));
    let stranger = Issuer::open().await;
    let forged = Issuer { url: issuer.url.clone(), ..stranger };
    let unsigned = {
        let token = issuer.token("one", |_| {});
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"one"}"#);
        format!("{header}.{}.", token.split('.').nth(1).unwrap())
    };
    let symmetric = {
        let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
        let claims = json!({"iss": issuer.url, "aud": "kubernetes", "sub": "root", "exp": 4_000_000_000_u64});
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(b"guess")).unwrap()
    };
    let table = [
        (issuer.token("one", |claims| claims["exp"] = 1.into()), "expired"),
        (issuer.token("one", |claims| claims["exp"] = Value::Null), "has no end"),
        (issuer.token("one", |claims| claims["nbf"] = 3_900_000_000_u64.into()), "not valid yet"),
        (issuer.token("one", |claims| claims["aud"] = "other".into()), "expected audience"),
        (forged.token("one", |_| {}), "InvalidSignature"),
        (unsigned, ""),
        (symmetric, "HS256 are not accepted"),
    ];
    for (token, part) in table {
        let status = review(&site, &token).await;
        assert_eq!(status["authenticated"], Value::Null);
        assert!(status["error"].as_str().unwrap().contains(part), "{part}: {status}");
    }
    let token = issuer.token("one", |_| {});
    let refused = line(&site, "/api/v1/pods", &token).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("User \\\"oidc:jane\\\" cannot list"), "{refused}");
    assert!(line(&site, "/api/v1/pods", &format!("{token}x")).await.starts_with("HTTP/1.1 401"));
    assert!(line(&site, "/livez", "").await.starts_with("HTTP/1.1 200"));
    assert!(line(&site, "/version", "").await.starts_with("HTTP/1.1 401"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_when_needed_and_no_oftener() {
    let issuer = Issuer::open().await;
    let site = Site::with_file("authentication.yaml", &issuer.configuration()).await;
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
    let (good, unknown) = (issuer.token("one", |_| {}), issuer.token("two", |_| {}));
    let reviews = futures::future::join_all((0..20).map(|_| review(&site, &good))).await;
    assert!(reviews.iter().all(|status| status["authenticated"] == true));
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "once for all who wait");
    for status in futures::future::join_all((0..20).map(|_| review(&site, &unknown))).await {
        assert!(status["error"].as_str().unwrap().contains("has no such key"), "{status}");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "whatever tokens come");
}
