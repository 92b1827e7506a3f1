//! What breaks nothing: the next test finds the lab as a reset left it.

use crate::support::Lab;

#[tokio::test]
#[ignore = "needs the lab"]
async fn nothing_broken_shows_no_outage_and_a_dry_run_only_plans() {
    let lab = Lab::new("control").await;
    let (master, _) = lab.roles().await;
    let started = lab.start_of(&master).await;
    let ran = lab.run(&["--dry-run", "--warm-up", "0.5"]);
    ran.came_to(0, "planned", "dry-run");
    ran.says(&master);
    let ran = lab.run(&["--fault", "none", "--warm-up", "0.5"]);
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(lab.start_of(&master).await, started, "untouched");
    lab.no_key_is_left().await;
}
