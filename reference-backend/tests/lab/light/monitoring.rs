//! What Prometheus has of redis-demo and of Redis: every query of the dashboard finds numbers, and an outage shows.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock::{self, within};
use veza_probe::incus::StateChange;

use crate::support::{Lab, MINUTE, REDIS};

const PROMETHEUS: &str = "monitoring-1";
const SUBSYSTEMS: [&str; 3] = ["chat_pubsub", "presence", "rate_limiter"];

/// What Grafana would put in for the lab's interval of 5 s.
const RATE_INTERVAL: &str = "20s";

/// The values of a query, each with its labels' values; numbers only.
async fn query(lab: &Lab, query: &str) -> Vec<(String, f64)> {
    let query = format!("query={query}");
    let url = "http://127.0.0.1:9090/api/v1/query";
    let argv = [
        "curl",
        "--silent",
        "--show-error",
        "--get",
        url,
        "--data-urlencode",
        &query,
    ];
    let output = lab.try_exec(PROMETHEUS, &argv).await;
    let answer: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{query}: {error}: {output:?}"));
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    let series = answer["data"]["result"].as_array().unwrap();
    let value = |series: &Value| {
        let labels = series["metric"].as_object().unwrap().values();
        let labels: Vec<&str> = labels.filter_map(Value::as_str).collect();
        let value: f64 = series["value"][1].as_str().unwrap().parse().unwrap();
        (labels.join(" "), value)
    };
    let mut values: Vec<(String, f64)> = series.iter().map(value).collect();
    values.retain(|(_, value)| value.is_finite());
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

/// Waits until a query's values are as they should be.
async fn until(lab: &Lab, text: &str, good: impl Fn(&[(String, f64)]) -> bool) {
    let mut last = Vec::new();
    let waited = async {
        loop {
            last = query(lab, text).await;
            if good(&last) {
                return;
            }
            clock::sleep(Duration::from_millis(500)).await;
        }
    };
    let waited = within(2 * MINUTE, waited).await;
    println!("{text}: {last:?}");
    assert!(waited.is_ok(), "{text}: {last:?}");
}

/// Title and query of each target of each panel, as the lab's Prometheus takes it.
fn dashboard() -> Vec<(String, String)> {
    let path = "../lab/monitoring/dashboards/redis-cache-overview.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(path).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            let expr = expr.replace("$__rate_interval", RATE_INTERVAL);
            assert!(!expr.contains('$'), "{title}: {expr}");
            queries.push((title.to_owned(), expr));
        }
    }
    queries
}

fn of<'a>(queries: &'a [(String, String)], title: &str) -> &'a str {
    let found = queries.iter().find(|(t, _)| t == title);
    &found.unwrap_or_else(|| panic!("no panel {title}")).1
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn every_query_of_the_dashboard_finds_numbers_and_an_outage_shows() {
    let lab = Lab::new().await;
    let queries = dashboard();
    for (_, expr) in &queries {
        // All subsystems or all of Redis, never some of them.
        until(&lab, expr, |values| values.len() == 3).await;
    }
    let hit_rate = of(&queries, "Hit rate");
    let named = |values: &[(String, f64)]| {
        let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
        names == SUBSYSTEMS
    };
    until(&lab, hit_rate, |values| {
        named(values) && values.iter().all(|(_, v)| *v == 1.0)
    })
    .await;
    let operations = of(&queries, "Operations per second");
    until(&lab, operations, |values| {
        named(values) && values.iter().all(|(_, v)| *v > 0.0)
    })
    .await;

    for instance in REDIS {
        lab.set(instance, StateChange::ForceStop).await;
    }
    until(&lab, hit_rate, |values| {
        named(values) && values.iter().all(|(_, v)| *v == 0.0)
    })
    .await;
    // The application goes on: memory answers.
    let memory = of(&queries, "Answered by memory, per second");
    until(&lab, memory, |values| {
        named(values) && values.iter().all(|(_, v)| *v > 0.0)
    })
    .await;
    for instance in REDIS {
        lab.set(instance, StateChange::Start).await;
    }
    until(&lab, hit_rate, |values| {
        named(values) && values.iter().all(|(_, v)| *v == 1.0)
    })
    .await;
}
