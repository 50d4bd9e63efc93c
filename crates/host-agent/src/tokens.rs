//! The service account tokens of one pod's volumes: each asked for once, and again when the planner says. One that cannot be renewed
//! serves on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isopod_planner::tokens::renew_after;
use isopod_types::pod::Pod;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::api::Api;

/// Delay before a token that was not issued is asked for again.
const RETRY: Duration = Duration::from_secs(10);

/// Audience and lifetime in seconds, as the pod asks for them.
type Wanted = (String, i64);

/// A token as the API issued it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) token: String,
    /// Seconds that it lives, which may be others than were asked for.
    pub(crate) seconds: i64,
}

struct Held {
    token: String,
    renew_at: Instant,
}

/// Tokens by what the pod asks for. Whoever asks while they are being fetched waits for them.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<Wanted, Held>>);

impl Tokens {
    /// All tokens that are wanted, renewed where that is due.
    ///
    /// # Errors
    /// When one that there is not yet is not issued.
    pub(crate) async fn get(
        &self,
        api: &Api,
        pod: &Pod,
        wanted: BTreeSet<Wanted>,
    ) -> Result<BTreeMap<Wanted, String>, kube::Error> {
        let mut held = self.0.lock().await;
        let mut tokens = BTreeMap::new();
        for wanted in wanted {
            let now = Instant::now();
            if held.get(&wanted).is_none_or(|held| held.renew_at <= now) {
                renew(&mut held, &wanted, api.token(pod, &wanted.0, wanted.1).await, pod)?;
            }
            tokens.extend(held.get(&wanted).map(|held| (wanted, held.token.clone())));
        }
        Ok(tokens)
    }

    /// When the first of them is to be renewed.
    pub(crate) async fn next(&self) -> Option<Instant> {
        self.0.lock().await.values().map(|held| held.renew_at).min()
    }
}

fn renew(
    held: &mut BTreeMap<Wanted, Held>,
    wanted: &Wanted,
    issued: Result<Issued, kube::Error>,
    pod: &Pod,
) -> Result<(), kube::Error> {
    let now = Instant::now();
    match (issued, held.get_mut(wanted)) {
        (Ok(Issued { token, seconds }), _) => {
            let renew_at = now + renew_after(seconds).unsigned_abs();
            held.insert(wanted.clone(), Held { token, renew_at });
        }
        (Err(error), Some(old)) => {
            tracing::warn!(pod = pod.metadata.name, %error, "a token was not renewed; trying again");
            old.renew_at = now + RETRY;
        }
        (Err(error), None) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use kube::client::Body;
    use serde_json::json;

    /// An API that issues token after token, each with its number, and none while the lifetime is 0.
    fn api(lifetime: &Arc<AtomicI64>) -> Api {
        let (lifetime, count) = (lifetime.clone(), Arc::new(AtomicI64::new(0)));
        let serve = tower::service_fn(move |_: http::Request<Body>| {
            let seconds = lifetime.load(Ordering::Relaxed);
            let token = format!("token-{}", count.fetch_add(1, Ordering::Relaxed));
            let (code, answer) = match seconds {
                0 => (503, json!({"kind": "Status", "status": "Failure", "code": 503, "message": "not now"})),
                _ => (201, json!({"spec": {"expirationSeconds": seconds}, "status": {"token": token}})),
            };
            let answer = http::Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            std::future::ready(answer)
        });
        Api::new(kube::Client::new(serve, "default"), "host-1".into())
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_renewed_in_time_and_serve_on_when_they_cannot_be() {
        let lifetime = Arc::new(AtomicI64::new(0));
        let (api, tokens, pod) = (api(&lifetime), Tokens::default(), Pod::default());
        let wanted = ("vault".to_owned(), 600);
        assert!(tokens.get(&api, &pod, [wanted.clone()].into()).await.is_err());
        let begun = Instant::now();
        for (at_seconds, lives, expected) in [
            (0, 1000, "token-1"),
            (799, 1000, "token-1"),
            (801, 1000, "token-2"),
            (1600, 0, "token-2"),
            // Not renewed; tried again after a while.
            (1602, 0, "token-2"),
            (1605, 1000, "token-2"),
            (1613, 1_000_000, "token-4"),
            (1613 + 86_399, 1000, "token-4"),
            (1613 + 86_401, 1000, "token-5"),
        ] {
            lifetime.store(lives, Ordering::Relaxed);
            tokio::time::sleep_until(begun + Duration::from_secs(at_seconds)).await;
            let found = tokens.get(&api, &pod, [wanted.clone()].into()).await.unwrap();
            assert_eq!(found[&wanted], expected, "after {at_seconds} s");
            assert!(tokens.next().await.unwrap() > Instant::now());
        }
    }
}
