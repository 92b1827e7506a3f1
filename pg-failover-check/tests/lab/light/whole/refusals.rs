//! What is refused before anything is touched.

use serde_json::Value;
use veza_probe::incus::{StateChange, Status};

use crate::support::Lab;

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_stopped_replica_is_refused_untouched() {
    let lab = Lab::new("replica").await;
    let (primary, other) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    lab.set(&other, StateChange::ForceStop).await;
    let ran = lab.run(&[]);
    assert_eq!(
        (ran.code, &ran.report["verdict"]),
        (1, &Value::from("refused"))
    );
    ran.says(&other);
    ran.says("nothing was touched");
    let status = lab.instance(&other).await.status;
    assert_eq!(
        status,
        Status::Stopped,
        "what somebody stopped stays stopped"
    );
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
    lab.set(&other, StateChange::Start).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_stopped_monitor_is_refused_untouched() {
    let lab = Lab::new("monitor").await;
    let (primary, _) = lab.roles().await;
    let before = lab.start_of(&primary).await;
    lab.set("pgaf-monitor", StateChange::ForceStop).await;
    let ran = lab.run(&[]);
    assert_eq!(
        (ran.code, &ran.report["verdict"]),
        (1, &Value::from("refused"))
    );
    ran.says("pgaf-monitor");
    assert_eq!(lab.start_of(&primary).await, before, "untouched");
    lab.set("pgaf-monitor", StateChange::Start).await;
}
