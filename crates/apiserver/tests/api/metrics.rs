//! What the server says about itself, and large answers made small.

use std::io::Read;

use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use isopod_apiserver::UserInfo;
use serde_json::Value;

use crate::harness::{Cluster, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Open watches; the server follows some things itself.
fn watchers(page: &str) -> u64 {
    page.lines().find_map(|line| line.strip_prefix("isopod_store_watchers ")?.parse().ok()).unwrap()
}

#[tokio::test]
async fn requests_and_objects_are_counted() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("one")).await;
    cluster.create("configmaps", "default", config_map("two")).await;
    cluster.refused(&format!("GET {MAPS}/none"), Value::Null).await;
    cluster.ok("GET /api/v1/configmaps", Value::Null).await;
    let watchers = watchers(&cluster.ask("GET /metrics", &[], "").await.text);
    cluster.open(&format!("GET {MAPS}?watch=1"), &[], "").await;
    let page = cluster.ask("GET /metrics", &[], "").await;
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let of = |code: &str, scope: &str, verb: &str| {
        format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",group=\"\",resource=\"configmaps\",\
             scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\"}}"
        )
    };
    let lines = [
        format!("{} 2", of("201", "namespace", "POST")),
        format!("{} 1", of("404", "resource", "GET")),
        format!("{} 1", of("200", "cluster", "LIST")),
        format!("{} 1", of("200", "namespace", "WATCH")),
        "apiserver_storage_objects{resource=\"configmaps\"} 3".to_owned(),
        format!("isopod_store_watchers {}", watchers + 1),
    ];
    for line in lines {
        assert!(page.text.lines().any(|found| found == line), "{line} is not in\n{}", page.text);
    }
    let durations = "apiserver_request_duration_seconds_";
    let of_posts = |line: &&str| line.starts_with(durations) && line.contains("verb=\"POST\"");
    let posts: Vec<&str> = page.text.lines().filter(of_posts).filter(|line| line.contains("configmaps")).collect();
    assert_eq!(posts.len(), 23 + 3, "buckets, the last one, sum and count: {posts:?}");
    assert!(posts.iter().filter(|line| line.ends_with(" 2")).count() >= 2);
    assert!(!page.text.lines().any(|line| line.starts_with(durations) && line.contains("WATCH")));
    let (code, _) = cluster.user(UserInfo::new("ann", [""])).refused("GET /metrics", Value::Null).await;
    assert_eq!(code, 403);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_ask() {
    let cluster = Cluster::new().await;
    for number in 0..4 {
        let mut map = config_map(&format!("map-{number}"));
        map["data"]["file"] = "a line of a file\n".repeat(3_000).into();
        cluster.create("configmaps", "default", map).await;
    }
    let one = format!("{MAPS}/map-0");
    for (url, accept, compressed) in [
        (MAPS, "gzip", true),
        (MAPS, "deflate, GZIP;q=0.5", true),
        (MAPS, "gzip;q=0", false),
        (MAPS, "br", false),
        (one.as_str(), "gzip", false),
        ("/openapi/v2", "gzip", false),
    ] {
        let plain = cluster.ask(&format!("GET {url}"), &[], "").await.text;
        let response = cluster.open(&format!("GET {url}"), &[("accept-encoding", accept)], "").await;
        let encoding = response.headers().get("content-encoding").map(|encoding| encoding.to_str().unwrap().to_owned());
        let varies = response.headers().get_all("vary").iter().any(|value| value == "Accept-Encoding");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((encoding.as_deref(), varies), (compressed.then_some("gzip"), compressed), "{url} {accept}");
        let mut text = String::new();
        if compressed {
            assert!(bytes.len() < plain.len() / 4);
            GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        } else {
            text = String::from_utf8(bytes.to_vec()).unwrap();
        }
        assert!(text == plain, "{url} {accept}: {} bytes, not {}", text.len(), plain.len());
    }
}
