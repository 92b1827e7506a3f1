//! Metrics are what Prometheus' own tool accepts; it is installed beside the pooler.

use std::fs;

use veza_probe::incus::FileKind;

use super::POOLER;
use crate::light::whole::writers::METRICS;
use crate::support::{Lab, MINUTE, name};

/// What Prometheus' own tool, says of a metrics file: its exit code and its words.
pub async fn promtool(lab: &Lab, metrics: &str) -> (i64, String) {
    let (instance, path) = (name(POOLER), "/tmp/checked.prom");
    let file = FileKind::File(metrics.as_bytes().to_vec());
    let written = lab.incus.write_file(&instance, path, file, (0, 0, 0o644));
    written.await.unwrap();
    let check = format!("exec promtool check metrics <{path}");
    let argv = ["sh", "-c", &check];
    let output = lab.incus.exec(&instance, &argv, MINUTE).await.unwrap();
    (output.code, output.stdout + &output.stderr)
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn promtool_takes_the_metrics_of_every_end_and_no_broken_ones() {
    let lab = Lab::new("promtool").await;
    let folder = lab.folder.to_str().unwrap();
    let path = lab.folder.join(METRICS);
    // One system that was refused, one that was watched, both in the same file; the formation of the
    // first needs quoting.
    let hostile = "quo\"te\\d\n";
    let refused = ["--textfile-dir", folder, "--formation", hostile];
    assert_eq!(lab.run(&refused).report["verdict"], "refused");
    let watched = ["--textfile-dir", folder, "--fault", "none", "--read-only"];
    lab.run(&watched).came_to(0, "pass", "all-gates-held");
    let metrics = fs::read_to_string(&path).unwrap();
    for word in [
        "verdict=\"refused\"} 1",
        "gate=\"no-outage\"",
        "quo\\\"te\\\\d\\n",
    ] {
        assert!(metrics.contains(word), "{word}: {metrics}");
    }
    assert_eq!(promtool(&lab, &metrics).await, (0, String::new()));
    let help = metrics
        .lines()
        .find(|line| line.starts_with("# HELP"))
        .unwrap();
    let series = metrics.lines().find(|line| !line.starts_with('#')).unwrap();
    for (what, broken) in [
        (
            "without help",
            metrics.replacen(&format!("{help}\n"), "", 1),
        ),
        (
            "a series twice",
            metrics.replacen(series, &format!("{series}\n{series}"), 1),
        ),
        (
            "cut off",
            metrics.trim_end().rsplit_once(' ').unwrap().0.to_owned(),
        ),
        ("not escaped", metrics.replacen("quo\\\"te", "quo\"te", 1)),
    ] {
        let (code, words) = promtool(&lab, &broken).await;
        assert!(code != 0 && !words.is_empty(), "{what}: {code} {words}");
    }
}
