//! What is refused before anything is touched: the next test finds the lab as a reset left it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{SHORT, set_project};
use crate::support::{Lab, name};

#[tokio::test]
#[ignore = "needs the lab"]
async fn records_that_can_not_be_read_or_written_are_refused_before_the_fault() {
    let lab = Lab::new("records").await;
    let (primary, _) = lab.roles().await;
    let started = lab.start_of(&primary).await;
    let faults = lab.state().join("faults");
    fs::create_dir_all(&faults).unwrap();
    let path = faults.join("20260101T000000Z-0000cafe.json");
    for garbage in [
        "",
        "{\"schema\": \"veza-undo/1\", \"run\"",
        "no record at all",
    ] {
        fs::write(&path, garbage).unwrap();
        let refused = lab.run(&SHORT);
        refused.came_to(1, "refused", "record-unreadable");
        refused.says("0000cafe.json");
        refused.says("--recover");
        let recovered = lab.run(&["--recover"]);
        recovered.came_to(4, "not-undone", "fault-may-remain");
        recovered.says("0000cafe.json");
    }
    fs::remove_file(&path).unwrap();
    for (options, reason) in [("ro,size=64k", "ead-only"), ("size=4k", "o space left")] {
        let folder = lab.folder.join("small");
        fs::create_dir_all(&folder).unwrap();
        mount(&folder, options);
        // A full one: its only page is taken.
        if !options.starts_with("ro") {
            let _ = fs::write(folder.join("full"), [0; 8192]);
        }
        let output = lab
            .command()
            .env("VEZA_STATE_DIR", &folder)
            .args(SHORT)
            .output();
        let unmounted = Command::new("umount").arg(&folder).status();
        assert!(unmounted.unwrap().success());
        let refused = lab.ran(&output.unwrap());
        refused.came_to(1, "refused", "state-unwritable");
        refused.says(reason);
    }
    assert_eq!(lab.start_of(&primary).await, started, "untouched");
}

fn mount(folder: &Path, options: &str) {
    let mut command = Command::new("mount");
    let command = command.args(["-t", "tmpfs", "-o", options, "veza-test"]);
    assert!(command.arg(folder).status().unwrap().success());
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn nothing_is_broken_where_nobody_has_allowed_it() {
    let lab = Lab::new("permission").await;
    let (primary, _) = lab.roles().await;
    let started = lab.start_of(&primary).await;
    let set = async |key: &str, value: &str| set_project(&lab, key, value).await;
    set("user.veza.drill", "").await;
    let nobody = lab.run(&SHORT);
    set("user.veza.drill", "stop, kill").await;
    let others = lab.run(&SHORT);
    let dry = lab.run(&["--quiet", "--read-only", "--dry-run"]);
    set("user.veza.drill", "allowed").await;
    set("user.veza.halt", "release day").await;
    let halted = lab.run(&SHORT);
    set("user.veza.halt", "").await;
    nobody.came_to(1, "refused", "not-permitted");
    nobody.says("incus project set");
    others.came_to(1, "refused", "not-permitted");
    dry.came_to(0, "planned", "dry-run");
    halted.came_to(1, "refused", "halted");
    halted.says("release day");
    let own = [("user.veza.drill", None, Some("never"))];
    for (key, found, value) in own {
        lab.incus
            .set_config_key(&name(&primary), key, found, value)
            .await
            .unwrap();
        lab.run(&SHORT).came_to(1, "refused", "not-permitted");
        lab.incus
            .set_config_key(&name(&primary), key, value, found)
            .await
            .unwrap();
    }
    assert_eq!(lab.start_of(&primary).await, started, "untouched");
}
