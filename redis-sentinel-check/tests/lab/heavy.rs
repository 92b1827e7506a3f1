//! Every other kind of fault as a whole drill.

use crate::support::Lab;

#[tokio::test]
#[ignore = "needs the lab"]
async fn every_kind_is_proven_measured_and_undone() {
    let lab = Lab::new("kinds").await;
    // A sentinel that was frozen does nothing for 30 s, so a freeze comes last.
    for kind in [
        "partition",
        "kill:redis-server",
        "hold:redis-server",
        "freeze",
    ] {
        lab.until_whole().await;
        let before = lab.as_it_is().await;
        let watch = ["--warm-up", "1", "--settle", "2", "--settle-failover"];
        let ran = lab.run(&[&["--fault", kind], &watch[..]].concat());
        ran.came_to(0, "pass", "all-gates-held");
        assert_eq!(lab.as_it_is().await, before, "{kind}");
        for gate in ["lost-writes", "phantom-writes", "two-primaries"] {
            assert_eq!(ran.measured(gate), (0.0, 0.0), "{kind}: {gate}");
        }
        let phases = ran.phases();
        assert!(phases.contains(&"promoted"), "{kind}: {phases:?}");
        assert!(ran.report["fault"]["evidence"]["control"].is_string());
        // Cut off, the old master is still asked, and knows nothing new.
        if kind == "partition" {
            assert!(ran.figure("stale-reads") > 0.0);
        }
        assert!(ran.report["ledger"]["acknowledged"].as_u64() > Some(40));
        lab.no_key_is_left().await;
    }
}
