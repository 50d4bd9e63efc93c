//! The cluster under faults, in virtual time: what must hold holds, whatever fails and whenever, and all that is wanted comes
//! about in the end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use isopod_testkit::simulate;

/// The first seed.
const BASE: u64 = 20_240_601;
/// Seeds that are run when nobody says otherwise.
const SEEDS: u64 = 12;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn seed() -> u64 {
    number("ISOPOD_SIMULATION_SEED").unwrap_or(BASE)
}

#[tokio::test]
async fn whatever_fails_what_is_wanted_comes_about() {
    let one = number("ISOPOD_SIMULATION_SEED").map(|_| 1);
    let seeds = number("ISOPOD_SIMULATION_SEEDS").or(one).unwrap_or(SEEDS);
    for seed in seed()..seed() + seeds {
        let report = simulate(seed).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        println!("seed {seed}: {} writes, {} deaths", report.writes, report.deaths);
    }
}

#[tokio::test]
async fn a_seed_says_all() {
    let seed = seed();
    let (first, second) = (simulate(seed).await.unwrap(), simulate(seed).await.unwrap());
    let differs = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
    let around = |report: &isopod_testkit::Report, at: usize| report.trace[at.saturating_sub(5)..=at].join("\n");
    assert_eq!(differs.map(|at| (around(&first, at), around(&second, at))), None);
    assert_eq!(first, second);
}
