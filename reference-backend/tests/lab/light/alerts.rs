//! The alert rules of the lab: what they say of made-up measurements, by Prometheus' own tool, and that
//! Prometheus has them.

use std::path::Path;

use serde_json::Value;

use crate::support::Lab;

const PROMETHEUS: &str = "monitoring-1";
const FOLDER: &str = "/run/veza-alerts";

/// The files of the lab's rules: names and texts.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/monitoring/rules");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

/// Runs the unit tests of some rules, with these rules.
async fn judged(lab: &Lab, tests: &str) -> (i64, String) {
    let test = format!("{FOLDER}/{tests}");
    let argv = ["promtool", "test", "rules", &test];
    let output = lab.try_exec(PROMETHEUS, &argv).await;
    (output.code, format!("{}{}", output.stdout, output.stderr))
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn alerts_come_when_they_should_and_prometheus_has_them() {
    let lab = Lab::new().await;
    let made = ["mkdir", "--parents", FOLDER];
    assert_eq!(lab.try_exec(PROMETHEUS, &made).await.code, 0);
    let files = files();
    for (name, text) in &files {
        lab.put(PROMETHEUS, &format!("{FOLDER}/{name}"), text).await;
    }
    let mut rules = Vec::new();
    for (name, text) in &files {
        let Some(tests) = name.strip_suffix(".yml").filter(|n| !n.ends_with(".test")) else {
            continue;
        };
        let tests = format!("{tests}.test.yml");
        assert!(
            files.iter().any(|(n, _)| *n == tests),
            "{name} has no tests"
        );
        let (code, said) = judged(&lab, &tests).await;
        assert_eq!(code, 0, "{said}");
        // The tests would notice: with no patience at all one of the alerts comes too soon.
        let path = format!("{FOLDER}/{name}");
        let hasty = text.replace("for: ", "for: 0s # ");
        assert_ne!(&hasty, text, "{name} has no alert that waits");
        lab.put(PROMETHEUS, &path, &hasty).await;
        let (code, said) = judged(&lab, &tests).await;
        assert_ne!(code, 0, "{said}");
        let alerts = text
            .lines()
            .filter_map(|l| l.trim().strip_prefix("- alert: "));
        rules.extend(alerts.map(str::to_owned));
    }
    assert!(!rules.is_empty());

    let url = "http://127.0.0.1:9090/api/v1/rules";
    let argv = ["curl", "--silent", "--show-error", url];
    let answer = lab.try_exec(PROMETHEUS, &argv).await;
    let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
    let groups = answer["data"]["groups"].as_array().unwrap();
    let loaded = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let loaded: Vec<&str> = loaded.filter_map(|rule| rule["name"].as_str()).collect();
    for rule in &rules {
        assert!(loaded.contains(&rule.as_str()), "{rule} is not in {answer}");
    }
}
