//! Keeping up with objects in the store: begins with what is there, is told of every change, begins again when it was
//! told too late. Never asks by itself. Ends with the server.

use std::sync::{Arc, Weak};
use std::task::Poll;

use isopod_schema::Status;
use isopod_store::{Event, Scope, Watch};

use crate::server::ApiServer;

/// Who keeps something in step with the store.
pub(crate) trait Follower: Send + 'static {
    /// What it keeps, for logs.
    const WHAT: &'static str;

    /// What it has to be told of now.
    fn scopes(&self) -> Vec<Scope>;

    /// Brings it into step. `events` is what changed; none at the beginning of a watch, when anything may have.
    fn settle(
        &mut self,
        server: &Arc<ApiServer>,
        events: Option<&[Arc<Event>]>,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}

/// Brings the follower into step, and keeps it there until the server is gone. Nothing holds the server meanwhile.
///
/// # Errors
/// What the follower runs into at the beginning.
pub(crate) async fn start<F: Follower>(server: &Arc<ApiServer>, mut follower: F) -> Result<(), Status> {
    let scopes = follower.scopes();
    // What happened before the watch began is found there.
    let watches = watch(server, &scopes)?;
    follower.settle(server, None).await?;
    tokio::spawn(run(Arc::downgrade(server), follower, scopes, watches));
    Ok(())
}

async fn run<F: Follower>(server: Weak<ApiServer>, mut follower: F, mut scopes: Vec<Scope>, mut watches: Vec<Watch>) {
    loop {
        while follower.scopes() == scopes
            && let Some(events) = next(&mut watches).await
        {
            let Some(server) = server.upgrade() else { return };
            settle(&mut follower, &server, Some(&events)).await;
        }
        let Some(server) = server.upgrade() else { return };
        scopes = follower.scopes();
        match watch(&server, &scopes) {
            Ok(again) => watches = again,
            // The store is closed.
            Err(_) => return,
        }
        settle(&mut follower, &server, None).await;
    }
}

fn watch(server: &ApiServer, scopes: &[Scope]) -> Result<Vec<Watch>, Status> {
    let from = server.store.revision();
    let watches = scopes.iter().map(|scope| server.store.watch(scope.clone(), from));
    watches.collect::<Result<_, _>>().map_err(Status::internal)
}

async fn settle<F: Follower>(follower: &mut F, server: &Arc<ApiServer>, events: Option<&[Arc<Event>]>) {
    if let Err(error) = follower.settle(server, events).await {
        tracing::error!(what = F::WHAT, %error, "could not be brought up to date");
    }
}

/// All events that are there, at least one; none when a watch has ended or missed something.
async fn next(watches: &mut [Watch]) -> Option<Vec<Arc<Event>>> {
    std::future::poll_fn(|context| {
        let mut events = Vec::new();
        for watch in watches.iter_mut() {
            match watch.poll_next(context) {
                Poll::Ready(Some(Ok(event))) => {
                    events.push(event);
                    events.extend(std::iter::from_fn(|| watch.try_next()));
                }
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
        if events.is_empty() { Poll::Pending } else { Poll::Ready(Some(events)) }
    })
    .await
}
