//! Lists and watches by the book: every combination of options, what it shows, and what is refused in upstream's words.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, config_map};
use crate::watching::Watch;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Three objects, one after the other; `$a` to `$c` in a query stand for their versions, `$f` for one to come.
struct Site {
    cluster: Cluster,
    versions: Vec<(&'static str, String)>,
}

impl Site {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        let mut versions = Vec::new();
        for (mark, name) in [("$a", "a"), ("$b", "b"), ("$c", "c")] {
            let mut object = config_map(name);
            object["metadata"]["labels"] = json!({"app": "x"});
            versions.push((mark, version(&cluster.create("configmaps", "default", object).await)));
        }
        versions.push(("$f", "4000000".into()));
        Self { cluster, versions }
    }

    fn line(&self, query: &str) -> String {
        let filled = self.versions.iter().fold(query.to_owned(), |text, (mark, version)| text.replace(mark, version));
        format!("GET {CONFIG_MAPS}?{filled}")
    }

    async fn refused(&self, query: &str) -> Value {
        let answer = self.cluster.ask(&self.line(query), &[], "").await;
        let status = answer.json();
        assert_eq!(status["code"], answer.code, "{query}: {status}");
        status
    }

    /// Names, the mark of the list's version, and what is said about the rest.
    async fn check(&self, query: &str, expected: &str) {
        let list = self.cluster.ok(&self.line(query), Value::Null).await;
        let items = list["items"].as_array().unwrap();
        let mut shown: Vec<String> =
            items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        let of = version(&list);
        let mark = self.versions.iter().find(|(_, version)| *version == of).map_or("?", |(mark, _)| mark);
        shown.push(mark.to_owned());
        if let Some(rest) = list["metadata"]["remainingItemCount"].as_u64() {
            shown.push(format!("+{rest}"));
        }
        if list["metadata"]["continue"].is_string() {
            shown.push("...".into());
        }
        assert_eq!(shown.join(" "), expected, "{query}");
    }
}

#[tokio::test]
async fn versions_and_limits_choose_the_state() {
    let site = Site::new().await;
    for (query, expected) in [
        ("", "a b c $c"),
        ("resourceVersion=", "a b c $c"),
        ("resourceVersion=0", "a b c $c"),
        ("resourceVersion=$a", "a b c $c"),
        ("resourceVersion=$a&resourceVersionMatch=NotOlderThan", "a b c $c"),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan", "a b c $c"),
        ("resourceVersion=$b&resourceVersionMatch=Exact", "a b $b"),
        ("limit=2", "a b $c +1 ..."),
        ("limit=3", "a b c $c"),
        ("limit=0", "a b c $c"),
        // Whoever takes any state gets all of it.
        ("limit=1&resourceVersion=0", "a b c $c"),
        ("limit=1&resourceVersion=0&resourceVersionMatch=NotOlderThan", "a b c $c"),
        ("limit=1&resourceVersion=$b", "a $b +1 ..."),
        ("limit=1&resourceVersion=$b&resourceVersionMatch=Exact", "a $b +1 ..."),
        ("limit=1&resourceVersion=$b&resourceVersionMatch=NotOlderThan", "a $c +2 ..."),
        // How many remain of a selection nobody counts.
        ("limit=1&labelSelector=app%3Dx", "a $c ..."),
        ("limit=1&fieldSelector=metadata.name!%3Dq", "a $c ..."),
        ("limit=3&labelSelector=app%3Dx", "a b c $c"),
    ] {
        site.check(query, expected).await;
    }
}

#[tokio::test]
async fn pages_show_one_state_until_it_is_gone() {
    let site = Site::new().await;
    let token = |page: &Value| page["metadata"]["continue"].as_str().unwrap().to_owned();
    let first = site.cluster.ok(&site.line("limit=1"), Value::Null).await;
    site.cluster.create("configmaps", "default", config_map("aa")).await;
    site.cluster.ok(&format!("DELETE {CONFIG_MAPS}/c"), Value::Null).await;
    site.check(&format!("limit=1&continue={}", token(&first)), "b $c +1 ...").await;
    site.check(&format!("continue={}", token(&first)), "b c $c").await;
    // RV 0 beside a token says nothing; any other is refused.
    site.check(&format!("resourceVersion=0&continue={}", token(&first)), "b c $c").await;
    let refused = site.refused(&format!("resourceVersion=$c&continue={}", token(&first))).await;
    assert_eq!(refused["message"], "specifying resource version is not allowed when using continue");
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let gone = site.refused(&format!("limit=1&continue={}", token(&first))).await;
    assert_eq!((&gone["code"], &gone["reason"]), (&json!(410), &json!("Expired")));
    assert!(gone["message"].as_str().unwrap().starts_with("The provided continue parameter is too old"), "{gone}");
    // What comes then is newer, and the next pages stay with that.
    let next = site.cluster.ok(&site.line(&format!("limit=1&continue={}", token(&gone))), Value::Null).await;
    assert_eq!(next["items"][0]["metadata"]["name"], "aa");
    let last = site.cluster.ok(&site.line(&format!("continue={}", token(&next))), Value::Null).await;
    assert_eq!((&last["items"][0]["metadata"]["name"], version(&last)), (&json!("b"), version(&next)));
    let exact = site.refused("resourceVersion=$a&resourceVersionMatch=Exact").await;
    assert_eq!(
        (&exact["code"], &exact["message"]),
        (&json!(410), &json!("The resourceVersion for the provided list is too old."))
    );
}

#[tokio::test]
async fn contradictions_are_refused_with_every_reason() {
    let site = Site::new().await;
    const UNLESS: &str =
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
    const WHEN: &str = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
    const ZERO: &str =
        "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
    const LIST: &str = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list";
    const REQUIRES: &str =
        "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    const WATCH: &str = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
                         sendInitialEvents is provided";
    const BOTH: &str =
        "resourceVersionMatch: Unsupported value: \"Some\": supported values: \"Exact\", \"NotOlderThan\"";
    const ONE: &str = "resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"";
    let table: [(&str, &[&str]); 12] = [
        ("resourceVersionMatch=Exact", &[UNLESS]),
        ("resourceVersionMatch=NotOlderThan", &[UNLESS]),
        ("resourceVersionMatch=Exact&resourceVersion=0", &[ZERO]),
        ("resourceVersionMatch=Some&resourceVersion=1", &[BOTH]),
        ("resourceVersionMatch=Some", &[UNLESS, BOTH]),
        ("resourceVersionMatch=Exact&continue=x", &[UNLESS, WHEN]),
        ("sendInitialEvents=false", &[LIST]),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", &[UNLESS, LIST]),
        ("watch=1&sendInitialEvents=true", &[REQUIRES]),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1", &[REQUIRES, ONE]),
        ("watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1", &[WATCH]),
        ("watch=1&resourceVersionMatch=NotOlderThan&sendInitialEvents=1&continue=x", &[WHEN]),
    ];
    for (query, reasons) in table {
        let status = site.refused(query).await;
        let text = if let [one] = reasons { (*one).to_owned() } else { format!("[{}]", reasons.join(", ")) };
        assert_eq!(status["message"], format!("ListOptions.meta.k8s.io \"\" is invalid: {text}"), "{query}");
        let details = &status["details"];
        assert_eq!(
            (&status["code"], &status["reason"], &details["group"], &details["kind"]),
            (&json!(422), &json!("Invalid"), &json!("meta.k8s.io"), &json!("ListOptions")),
            "{query}"
        );
        assert_eq!(details["causes"].as_array().unwrap().len(), reasons.len(), "{query}");
    }
    let line = format!("DELETE {CONFIG_MAPS}?resourceVersionMatch=Exact");
    assert_eq!(site.cluster.refused(&line, Value::Null).await.0, 422);
    site.check("", "a b c $c").await;
}

#[tokio::test]
async fn versions_from_the_future_time_out_with_a_cause() {
    let site = Site::new().await;
    tokio::time::pause();
    const INITIAL: &str = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    for query in [
        "resourceVersion=$f",
        "resourceVersion=$f&limit=1",
        "resourceVersion=$f&resourceVersionMatch=Exact",
        "resourceVersion=$f&resourceVersionMatch=NotOlderThan",
        &format!("{INITIAL}&resourceVersion=$f"),
    ] {
        let begun = tokio::time::Instant::now();
        let status = site.refused(query).await;
        assert_eq!(begun.elapsed().as_secs(), 3, "{query}");
        let (details, current) = (&status["details"], &site.versions[2].1);
        assert_eq!(status["message"], format!("Timeout: Too large resource version: 4000000, current: {current}"));
        assert_eq!(
            (&status["code"], &status["reason"], &details["causes"][0]["reason"], &details["retryAfterSeconds"]),
            (&json!(504), &json!("Timeout"), &json!("ResourceVersionTooLarge"), &json!(1)),
            "{query}"
        );
    }
    let one = site.cluster.ask(&format!("GET {CONFIG_MAPS}/a?resourceVersion=4000000"), &[], "").await;
    assert_eq!(one.code, 504);
    // A version that comes while somebody waits for it is served.
    let next = site.versions[2].1.parse::<u64>().unwrap() + 1;
    let line = site.line(&format!("resourceVersion={next}"));
    let (list, _) = tokio::join!(site.cluster.ok(&line, Value::Null), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        site.cluster.create("configmaps", "default", config_map("d")).await
    });
    assert_eq!(list["items"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn watches_begin_where_they_were_asked_to() {
    let site = Site::new().await;
    const INITIAL: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    const NOT: &str = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let marked = format!("{INITIAL}&allowWatchBookmarks=true");
    let table = [
        ("", "a b c d"),
        ("&resourceVersion=0", "a b c d"),
        ("&resourceVersion=$a", "b c d"),
        ("&resourceVersion=$c", "d"),
        ("&resourceVersion=$a&labelSelector=app%3Dx", "b c d"),
        (&format!("&{NOT}"), "d"),
        (&format!("&{NOT}&resourceVersion=$b"), "c d"),
        (&format!("&{INITIAL}"), "a b c d"),
        (&format!("&{marked}"), "a b c ! d"),
        (&format!("&{marked}&resourceVersion=$a"), "a b c ! d"),
        (&format!("&{marked}&resourceVersion=0"), "a b c ! d"),
        (&format!("&{marked}&resourceVersion=0&labelSelector=app%3Dx,never"), "!"),
    ];
    let mut open = Vec::new();
    for (query, expected) in table {
        let line = site.line(&format!("watch=1&timeoutSeconds=5{query}"));
        let url = line.strip_prefix("GET ").unwrap();
        open.push((query.to_owned(), expected, Watch::open(&site.cluster, url, "application/json").await));
    }
    let mut object = config_map("d");
    object["metadata"]["labels"] = json!({"app": "x"});
    site.cluster.create("configmaps", "default", object).await;
    tokio::time::pause();
    // All at once, since all end at the same time.
    let shown = open.into_iter().map(|(query, expected, watch)| async move {
        assert_eq!(seen(watch).await, expected, "{query}");
    });
    futures::future::join_all(shown).await;
}

/// Names of what a watch shows until it ends; `!` for the end of the state.
async fn seen(mut watch: Watch) -> String {
    let mut shown = Vec::new();
    while let Some(event) = watch.next().await {
        let object = &event["object"]["metadata"];
        match event["type"].as_str().unwrap() {
            "ADDED" => shown.push(object["name"].as_str().unwrap().to_owned()),
            // The other bookmark is the one before the end.
            "BOOKMARK" if object["annotations"]["k8s.io/initial-events-end"] == "true" => shown.push("!".into()),
            "BOOKMARK" => {}
            other => panic!("{other}"),
        }
    }
    shown.join(" ")
}

#[tokio::test]
async fn a_watch_from_the_future_waits_for_it() {
    let site = Site::new().await;
    let from = site.versions[2].1.parse::<u64>().unwrap() + 1;
    let mut watch = Watch::start(&site.cluster, &format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}")).await;
    site.cluster.create("configmaps", "default", config_map("skipped")).await;
    site.cluster.create("configmaps", "default", config_map("seen")).await;
    assert_eq!(watch.line().await, "ADDED seen");
}

#[tokio::test]
async fn the_end_of_the_state_is_marked_in_every_form() {
    let site = Site::new().await;
    let url = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true\
         &fieldSelector=metadata.name%3Da"
    );
    for (form, at) in [("Table", "/object/rows/0/object"), ("PartialObjectMetadata", "/object")] {
        let accept = format!("application/json;as={form};v=v1;g=meta.k8s.io");
        let mut watch = Watch::open(&site.cluster, &url, &accept).await;
        assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
        let mark = watch.next().await.unwrap();
        assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!(form)));
        let annotations = &mark.pointer(at).unwrap()["metadata"]["annotations"];
        assert_eq!(annotations["k8s.io/initial-events-end"], "true", "{mark}");
    }
}
