//! A whole cluster in virtual time: the real API server and the real controllers, simulated kubelets and users, and faults.
//! All that is left to chance follows from a seed: which watch tells what and when, which write fails or is lost, when the
//! controllers die, what users do, how containers end. Only for tests.

mod faults;
mod invariants;
mod kubelet;
mod pairs;
mod random;
mod users;
mod world;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use http::{Method, Request};
use isopod_apiserver::{ApiServer, Clock, Config, Identities, UserInfo};
use isopod_controllers::{Begun, Change, Done, Kinds, Stepped, Watch};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

use self::faults::{Faults, Faulty, collection};
use self::invariants::Ledger;
use self::kubelet::Deed;
use self::random::Random;
use self::users::{Act, NAMESPACE, NODE_NAMES};
use self::world::{NODES, PODS, World, name, text, uid};

/// Where virtual time begins, in seconds of Unix time.
const BEGIN_SECONDS: i64 = 1_900_000_000;
/// Things that happen while there are faults.
const TROUBLED_STEPS: usize = 400;
/// Rounds in which a cluster without faults must have got what it wants.
const CALM_ROUNDS: usize = 3_000;
/// What users do once there are no faults any more.
const CALM_ACTS: usize = 25;
/// Virtual seconds that a cluster that has what it wants is watched for.
const QUIET_SECONDS: i64 = 1_200;
/// What is shown of what happened, to who reads a failure.
const TRACE: usize = 120;

/// What a simulation went through.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Writes of the controllers that were applied.
    pub writes: u64,
    /// Times that the controllers died.
    pub deaths: u64,
    /// Everything that happened, in order.
    pub trace: Vec<String>,
}

/// Runs the simulation that follows from a seed.
///
/// # Errors
/// What did not hold, the seed, and what happened last.
pub async fn simulate(seed: u64) -> anyhow::Result<Report> {
    let mut simulation = Simulation::open(seed).await?;
    let outcome = simulation.run().await;
    match outcome {
        Ok(()) => Ok(simulation.report()),
        Err(error) => {
            let after =
                format!("replay with ISOPOD_SIMULATION_SEED={seed}; what happened last:\n{}", simulation.last());
            Err(anyhow::anyhow!("{error:#}\n{after}"))
        }
    }
}

struct Simulation {
    random: Random,
    now_millis: Arc<AtomicI64>,
    api: Arc<ApiServer>,
    admin: Client,
    controllers_client: Client,
    faults: Arc<Mutex<Faults>>,
    kinds: Kinds,
    watches: Vec<Watch>,
    controllers: Stepped,
    world: World,
    ledger: Ledger,
    begun: Vec<Begun>,
    done: Vec<Done>,
    trace: Vec<String>,
    deaths: u64,
}

fn time(millis: &AtomicI64) -> Timestamp {
    Timestamp::from_millisecond(millis.load(Ordering::Relaxed)).unwrap_or_default()
}

impl Simulation {
    async fn open(seed: u64) -> anyhow::Result<Self> {
        let mut random = Random::new(seed);
        let now_millis = Arc::new(AtomicI64::new(BEGIN_SECONDS * 1000));
        let (clock, names) = (Arc::clone(&now_millis), Mutex::new(Random::new(random.next())));
        let bytes = move || {
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            u128::from(names.next()) << 64 | u128::from(names.next())
        };
        let config = Config {
            clock: Clock::new(move || time(&clock)),
            identities: Identities::new(move || bytes().to_be_bytes()),
            ..Config::default()
        };
        let api = ApiServer::open(config).await?;
        let admin = Client::new(api.in_process(UserInfo::new("admin", ["system:masters"])), NAMESPACE);
        let faults = Arc::new(Mutex::new(Faults::new(Random::new(random.next()))));
        let own = api.in_process(UserInfo::new("system:isopod:controllers", [""; 0]));
        let controllers_client = Client::new(Faulty::new(own, Arc::clone(&faults)), NAMESPACE);
        let kinds = Kinds::discover(&admin).await?;
        let controllers = stepped(&api, &controllers_client, &kinds, &now_millis);
        let watches = kinds.watches();
        let mut simulation = Self {
            random,
            now_millis,
            api,
            admin,
            controllers_client,
            faults,
            kinds,
            watches,
            controllers,
            world: World::default(),
            ledger: Ledger::default(),
            begun: Vec::new(),
            done: Vec::new(),
            trace: Vec::new(),
            deaths: 0,
        };
        simulation.furnish().await?;
        Ok(simulation)
    }

    /// What there is before anything happens.
    async fn furnish(&mut self) -> anyhow::Result<()> {
        self.world.watch_anew(&self.watches);
        let paths: BTreeSet<String> = self.watches.iter().map(Watch::path).collect();
        for path in paths {
            self.refresh(&path).await?;
        }
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        self.perform(Act::Create("/api/v1/namespaces".into(), namespace)).await?;
        for node in NODE_NAMES {
            self.perform(users::new_node(node).0).await?;
        }
        for act in users::furniture() {
            self.perform(act).await?;
        }
        Ok(())
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        {
            let mut faults = self.faults();
            (faults.failing, faults.deadly) = (40, 4);
        }
        for _ in 0..TROUBLED_STEPS {
            self.step().await?;
            self.check()?;
        }
        {
            let mut faults = self.faults();
            (faults.failing, faults.deadly) = (0, 0);
        }
        self.make_whole().await?;
        self.settle().await?;
        // Users go on, and nothing fails.
        self.ledger.exact = true;
        for _ in 0..CALM_ACTS {
            if let Some(act) = users::act(&mut self.random, &self.world) {
                self.perform(act).await?;
            }
            // No time passes: what is due is reckoned from this machine's own clock in part, and rounds are counted.
            let now = self.now_millis.load(Ordering::Relaxed);
            for _ in 0..self.random.below(12) {
                self.round(now).await?;
            }
        }
        self.make_whole().await?;
        self.settle().await
    }

    /// Nobody takes anything away any more: all nodes are there, Jobs may go on, clocks stand still.
    async fn make_whole(&mut self) -> anyhow::Result<()> {
        for node in NODE_NAMES {
            if !self.world.all(NODES).any(|found| name(found) == node) {
                self.perform(users::new_node(node).0).await?;
            }
        }
        self.resume_jobs().await?;
        self.stop_clocks().await
    }

    /// No CronJob starts anything any more: a quiet cluster would never be.
    async fn stop_clocks(&mut self) -> anyhow::Result<()> {
        let all: Vec<Value> = self.world.all(world::CRON_JOBS).cloned().collect();
        for cron in all {
            self.perform(Act::Patch(users::at(world::CRON_JOBS, &cron), json!({"spec": {"suspend": true}}))).await?;
        }
        Ok(())
    }

    async fn resume_jobs(&mut self) -> anyhow::Result<()> {
        let jobs: Vec<Value> =
            self.world.all(world::JOBS).filter(|job| job["spec"]["suspend"] == true).cloned().collect();
        for job in jobs.iter().filter(|job| !world::is_deleting(job)).take(1) {
            self.perform(Act::Patch(users::at(world::JOBS, job), json!({"spec": {"suspend": false}}))).await?;
        }
        Ok(())
    }

    /// Lets everything happen that is due, until the cluster has what it wants; then it must be quiet.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let mut rounds = 0;
        while let Err(missing) = self.ledger.check_quiet(&self.world) {
            rounds += 1;
            anyhow::ensure!(rounds < CALM_ROUNDS, "not reached without faults: {missing}");
            self.round(i64::MAX).await?;
        }
        self.be_quiet_until(QUIET_SECONDS).await?;
        let before = self.faults().writes;
        self.be_quiet_until(QUIET_SECONDS).await?;
        let after = self.faults().writes;
        anyhow::ensure!(before == after, "{} writes in a quiet cluster", after - before);
        self.ledger.check_quiet(&self.world).map_err(anyhow::Error::msg)
    }

    async fn be_quiet_until(&mut self, seconds: i64) -> anyhow::Result<()> {
        let until = self.now_millis.load(Ordering::Relaxed) + seconds * 1000;
        let mut rounds = 0;
        while self.now_millis.load(Ordering::Relaxed) < until {
            rounds += 1;
            anyhow::ensure!(rounds < CALM_ROUNDS, "the cluster does not become quiet");
            self.round(until).await?;
        }
        Ok(())
    }

    /// One thing of everything; when there is nothing, time passes, to a moment at the latest.
    async fn round(&mut self, until_millis: i64) -> anyhow::Result<()> {
        let mut happened = false;
        for at in self.world.telling() {
            happened |= self.tell(at);
        }
        happened |= self.begin();
        while !self.begun.is_empty() {
            self.write(0).await?;
        }
        while !self.done.is_empty() {
            self.finish(0);
        }
        happened |= self.kubelet().await?;
        self.check()?;
        if !happened {
            let later = self.now_millis.load(Ordering::Relaxed) + 60_000;
            // Whole seconds: some times are reckoned from this machine's own clock.
            let due = self.controllers.next_at().map(|at| (at.as_second() + 1) * 1000);
            let next = due.unwrap_or(later).min(until_millis.max(1));
            self.now_millis.fetch_max(next, Ordering::Relaxed);
        }
        Ok(())
    }

    /// One thing happens.
    async fn step(&mut self) -> anyhow::Result<()> {
        match self.random.below(1000) {
            0..330 => {
                let telling = self.world.telling();
                for _ in 0..=self.random.below(8) {
                    if let Some(at) = self.random.pick(&telling) {
                        self.tell(at);
                    }
                }
            }
            330..530 => drop(self.begin()),
            530..680 if !self.begun.is_empty() => {
                let at = self.random.below(self.begun.len());
                self.write(at).await?;
            }
            680..780 if !self.done.is_empty() => {
                let at = self.random.below(self.done.len());
                self.finish(at);
            }
            780..900 => drop(self.kubelet().await?),
            900..910 => self.evict().await?,
            910..940 => {
                if let Some(act) = users::act(&mut self.random, &self.world) {
                    self.perform(act).await?;
                }
            }
            940..960 => {
                let millis = 10 + i64::try_from(self.random.below(30_000))?;
                self.now_millis.fetch_add(millis, Ordering::Relaxed);
            }
            960..970 => {
                let at = self.random.below(self.watches.len());
                self.note(format!("watch of {} breaks", self.watches[at].path()));
                self.world.break_stream(at);
            }
            970..973 => self.die(),
            _ => self.catch_up().await?,
        }
        Ok(())
    }

    /// Much happens without anything strange.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        for _ in 0..5 {
            for at in self.world.telling() {
                while self.tell(at) {}
            }
            while self.begin() {
                self.write(0).await?;
            }
            while !self.done.is_empty() {
                self.finish(0);
            }
            self.kubelet().await?;
            self.check()?;
        }
        Ok(())
    }

    fn tell(&mut self, at: usize) -> bool {
        let Some((watch, change)) = self.world.next(at) else { return false };
        let told = match &change {
            Change::There(object) => format!("{} at {}", world::key(object), text(object, "/metadata/resourceVersion")),
            Change::Gone(object) => format!("the end of {}", world::key(object)),
            Change::Whole(objects) => format!("{} anew", objects.len()),
        };
        self.note(format!("watch {at} of {} tells of {told}", watch.path()));
        self.controllers.tell(&watch, &change, time(&self.now_millis));
        true
    }

    fn begin(&mut self) -> bool {
        let Some(begun) = self.controllers.begin(time(&self.now_millis)) else { return false };
        self.note(format!("decides: {}", begun.work()));
        self.begun.push(begun);
        true
    }

    async fn write(&mut self, at: usize) -> anyhow::Result<()> {
        let begun = self.begun.remove(at);
        self.note(format!("writes: {}", begun.work()));
        let done = self.controllers.write(begun).await;
        let (log, touched, is_down) = {
            let mut faults = self.faults();
            (std::mem::take(&mut faults.log), std::mem::take(&mut faults.touched), faults.is_down)
        };
        log.into_iter().for_each(|line| self.note(line));
        self.done.push(done);
        for path in touched {
            self.refresh(&path).await?;
        }
        if is_down {
            self.die();
        }
        Ok(())
    }

    fn finish(&mut self, at: usize) {
        let done = self.done.remove(at);
        self.note(format!("hears of: {}", done.work()));
        self.controllers.finish(done, time(&self.now_millis));
    }

    /// The controllers die, and others start that know nothing.
    fn die(&mut self) {
        self.note("controllers die".into());
        self.deaths += 1;
        self.faults().is_down = false;
        self.begun.clear();
        self.done.clear();
        self.controllers = stepped(&self.api, &self.controllers_client, &self.kinds, &self.now_millis);
        self.world.watch_anew(&self.watches);
    }

    /// Somebody asks for the eviction of a pod that a budget protects.
    async fn evict(&mut self) -> anyhow::Result<()> {
        let Some((pod, Act::Create(path, body))) = users::eviction(&mut self.random, &self.world) else {
            return Ok(());
        };
        if self.request(Method::POST, &path, Some(&body)).await? {
            self.ledger.evicted(&self.world, &pod).map_err(anyhow::Error::msg)?;
        }
        self.refresh(PODS).await?;
        self.refresh(world::BUDGETS).await
    }

    /// The host lets go of nodes whose pods are gone.
    async fn release(&mut self) -> anyhow::Result<bool> {
        let uids: BTreeSet<&str> = self.world.all(PODS).map(uid).collect();
        let left = |node: &&Value| {
            let pod = text(node, pairs::POD_UID);
            !pod.is_empty() && !uids.contains(pod) && node["metadata"]["annotations"]["isopod.dev/released"].is_null()
        };
        let Some(node) = self.world.all(NODES).find(left).map(|node| format!("{NODES}/{}", name(node))) else {
            return Ok(false);
        };
        let patch = json!({"metadata": {"annotations": {"isopod.dev/released": "true"}}});
        self.perform(Act::Patch(node, patch)).await?;
        Ok(true)
    }

    /// The kubelets do one thing.
    async fn kubelet(&mut self) -> anyhow::Result<bool> {
        let pods: Vec<Value> = self.world.all(PODS).cloned().collect();
        let nodes: Vec<String> = self.world.all(NODES).map(|node| name(node).to_owned()).collect();
        let random = &mut self.random;
        let lives = |pod: &&Value| nodes.iter().any(|node| node == text(pod, "/spec/nodeName"));
        let due: Vec<(Value, Deed)> =
            pods.iter().filter(lives).filter_map(|pod| Some((pod.clone(), kubelet::deed(pod, random)?))).collect();
        if due.is_empty() {
            return self.release().await;
        }
        let (pod, deed) = &due[self.random.below(due.len())];
        let place = users::at(PODS, pod);
        if *deed == Deed::Remove {
            self.remove(&place, uid(pod)).await?;
            return Ok(true);
        }
        match deed {
            Deed::Start => self.ledger.started(pod).map_err(anyhow::Error::msg)?,
            _ => self.ledger.ended(pod),
        }
        let now = Timestamp::from_second(time(&self.now_millis).as_second())?.to_string();
        self.perform(Act::Patch(format!("{place}/status"), kubelet::status(pod, deed, &now))).await?;
        Ok(true)
    }

    /// Nothing is left of a pod.
    async fn remove(&mut self, place: &str, uid: &str) -> anyhow::Result<()> {
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        self.request(Method::DELETE, place, Some(&options)).await?;
        self.refresh(PODS).await
    }

    /// A user or a kubelet does something. What the API refuses them is no fault: others were faster.
    async fn perform(&mut self, act: Act) -> anyhow::Result<()> {
        let (method, path, body) = match act {
            Act::Create(path, object) => (Method::POST, path, Some(object)),
            Act::Patch(path, patch) => (Method::PATCH, path, Some(patch)),
            Act::Delete(path, policy) => {
                (Method::DELETE, path, policy.map(|policy| json!({"propagationPolicy": policy})))
            }
        };
        let _ = self.request(method.clone(), &path, body.as_ref()).await?;
        if method == Method::DELETE {
            match path.strip_prefix(&format!("{NODES}/")) {
                Some(node) => self.ledger.node_gone(node),
                None if ["/persistentvolume", "/cronjobs/"].iter().any(|kind| path.contains(kind)) => {}
                None => self.ledger.disturb(),
            }
        }
        self.refresh(&collection(&path)).await?;
        if let (&Method::POST, true) = (&method, path == NODES) {
            self.ready_node(body.as_ref().map(name).unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn ready_node(&mut self, node: &str) -> anyhow::Result<()> {
        let (_, Act::Patch(path, status)) = users::new_node(node) else { return Ok(()) };
        self.request(Method::PATCH, &path, Some(&status)).await?;
        self.request(Method::PATCH, &format!("{NODES}/{node}"), Some(&json!({"spec": {"taints": null}}))).await?;
        self.refresh(NODES).await
    }

    /// Whether it was done; what is refused for others' sake is no fault.
    async fn request(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<bool> {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method.clone()).uri(path).header("content-type", content_type);
        let answer = self.admin.request::<Value>(request.body(bytes)?).await;
        let code = match &answer {
            Ok(_) => "done".to_owned(),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 429) => status.code.to_string(),
            Err(error) => anyhow::bail!("{method} {path}: {error}"),
        };
        let brief = body.map(|body| body.to_string().chars().take(160).collect::<String>()).unwrap_or_default();
        self.note(format!("somebody: {method} {path} {brief}: {code}"));
        Ok(answer.is_ok())
    }

    /// Sees what a collection holds now.
    async fn refresh(&mut self, path: &str) -> anyhow::Result<()> {
        let request = Request::get(path).body(Vec::new())?;
        let mut list = self.admin.request::<Value>(request).await.with_context(|| format!("cannot list {path}"))?;
        let items = match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let changes = self.world.refresh(path, items);
        self.ledger.observe(path, &changes).map_err(anyhow::Error::msg)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.ledger.check(&self.world).map_err(anyhow::Error::msg)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&mut self, line: String) {
        let at = self.now_millis.load(Ordering::Relaxed) - BEGIN_SECONDS * 1000;
        let line = format!("{:>9.3} {}", std::time::Duration::from_millis(at.unsigned_abs()).as_secs_f64(), line);
        self.trace.push(line);
    }

    /// What happened last.
    fn last(&self) -> String {
        self.trace[self.trace.len().saturating_sub(TRACE)..].join("\n")
    }

    fn report(&self) -> Report {
        Report { writes: self.faults().writes, deaths: self.deaths, trace: self.trace.clone() }
    }
}

fn stepped(api: &ApiServer, client: &Client, kinds: &Kinds, now: &Arc<AtomicI64>) -> Stepped {
    let now = Arc::clone(now);
    Stepped::new(client.clone(), api.ca_certificate_pem().to_owned(), kinds, Arc::new(move || time(&now)))
}
