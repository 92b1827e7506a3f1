//! Whatever happens to the check, the fault is undone; and what was not undone stops the next drill.

mod untouched;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lab_test::Proxy;
use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::{Method, Request, Status};

use crate::support::{Lab, MINUTE, Running, name};

/// A drill that is short and needs no failover: what is tested is its undo.
const SHORT: [&str; 8] = [
    "--quiet",
    "--read-only",
    "--warm-up",
    "0.2",
    "--settle",
    "0.2",
    "--fault",
    "freeze",
];

fn kill(pid: u64) {
    let killed = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success(), "process {pid}");
}

/// The record of a fault that is in, with the processes that stand behind it.
fn record(lab: &Lab) -> Value {
    let [path] = lab.records().try_into().unwrap();
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Kills the check and its watchdog, as the end of their cgroup would. The watchdog's number stands in
/// the key, which is set after it has answered.
async fn kill_both(lab: &Lab, primary: &str, check: Running) -> Value {
    let key = lab.instance(primary).await.config["user.veza.fault"].clone();
    let key: Value = serde_json::from_str(&key).unwrap();
    // First the one that would heal.
    kill(key["watchdog"]["pid"].as_u64().unwrap());
    kill(key["owner"]["pid"].as_u64().unwrap());
    let status = check.ended().status;
    assert_eq!(status.code(), None, "killed");
    key
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_check_that_is_killed_is_healed_by_its_watchdog() {
    let lab = Lab::new("killed").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = lab.start(&SHORT);
    lab.until_broken(&primary, &mut check).await;
    let key = lab.instance(&primary).await.config["user.veza.fault"].clone();
    let key: Value = serde_json::from_str(&key).unwrap();
    assert_eq!(key["kind"], "freeze");
    assert_eq!(
        key["undo"],
        record(&lab)["undo"],
        "key and record each hold the whole undo"
    );
    check.signal("-KILL");
    lab.undone_without_help(&before).await;
    // What happened in the night is remembered.
    let healed = fs::read_dir(lab.state().join("healed")).unwrap().next();
    let healed = fs::read_to_string(healed.unwrap().unwrap().path()).unwrap();
    assert!(
        healed.contains("the check ended without healing"),
        "{healed}"
    );
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_killed_check_leaves_no_schema_and_a_child_of_it_does_not_hold_the_watchdog() {
    let lab = Lab::new("schema").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = lab.start(&["--quiet", "--fault", "freeze"]);
    lab.until_broken(&primary, &mut check).await;
    check.signal("-KILL");
    lab.undone_without_help(&before).await;
    lab.no_schema_is_left(&primary).await;
    lab.until_whole().await;
    // A child of the check outlives it, and must not keep the pipe to the watchdog open.
    let (_, standby) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = faulty(&lab, &standby, "child");
    lab.until_broken(&standby, &mut check).await;
    check.signal("-KILL");
    lab.undone_without_help(&before).await;
}

/// The example of a check that ends in a bug; see examples/faulty_check.rs.
fn faulty(lab: &Lab, instance: &str, how: &str) -> Running {
    let program = Path::new(env!("CARGO_BIN_EXE_pg-failover-check"));
    let program = program.with_file_name("examples").join("faulty_check");
    let mut command = Command::new(program);
    let command = command
        .args([instance, how])
        .env("VEZA_STATE_DIR", lab.state())
        .stdin(Stdio::null());
    Running::of(command)
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_panic_in_a_task_or_in_main_is_internal_and_undone() {
    let lab = Lab::new("panic").await;
    let (_, standby) = lab.roles().await;
    for how in ["task", "main"] {
        let before = lab.as_it_is().await;
        let output = faulty(&lab, &standby, how).ended();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(70), "{how}: {text}");
        assert!(text.contains("is frozen"), "{how}: {text}");
        assert!(text.contains("number 7"), "{how}: {text}");
        assert_eq!(lab.as_it_is().await, before, "{how}: undone when it ends");
        assert!(lab.records().is_empty(), "{how}");
        lab.until_whole().await;
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_check_that_hangs_beyond_its_time_is_killed_and_healed() {
    let lab = Lab::new("hangs").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = lab.start(&["--read-only", "--fault", "freeze", "--max-fault", "2"]);
    lab.until_broken(&primary, &mut check).await;
    // From then on it has only what is left of its time.
    check.until_said("evidence:");
    check.signal("-STOP");
    let output = clock::within(MINUTE, async {
        while check.runs() {
            clock::sleep(Duration::from_millis(100)).await;
        }
        check.ended()
    });
    let output = output.await.expect("it is killed");
    assert_eq!(output.status.code(), None, "killed");
    lab.undone_without_help(&before).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn without_check_and_watchdog_the_next_run_refuses_and_recover_heals() {
    let lab = Lab::new("recover").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let nothing = lab.run(&["--recover"]);
    nothing.came_to(0, "clean", "nothing-left");
    let mut check = lab.start(&SHORT);
    lab.until_broken(&primary, &mut check).await;
    let busy = lab.run(&["--recover"]);
    busy.came_to(1, "refused", "drill-under-way");
    assert_eq!(
        lab.instance(&primary).await.status,
        Status::Frozen,
        "left alone"
    );
    kill_both(&lab, &primary, check).await;
    let refused = lab.run(&SHORT);
    refused.came_to(1, "refused", "fault-on-record");
    refused.says("--recover");
    let recovered = lab.run(&["--recover"]);
    recovered.came_to(0, "clean", "nothing-left");
    recovered.says("freeze pgaf-");
    recovered.says("everything is as it was found");
    lab.undone_without_help(&before).await;
    lab.run(&["--recover"]).came_to(0, "clean", "nothing-left");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn the_keys_alone_are_enough_to_recover_from_another_machine() {
    let lab = Lab::new("by-key").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let args: Vec<&str> = SHORT.iter().copied().chain(["--max-fault", "2"]).collect();
    let mut check = lab.start(&args);
    lab.until_broken(&primary, &mut check).await;
    kill_both(&lab, &primary, check).await;
    // Another machine has no record.
    fs::rename(lab.state(), lab.folder.join("state-of-the-first")).unwrap();
    let refused = lab.run(&SHORT);
    refused.came_to(1, "refused", "fault-key-there");
    refused.says("--recover");
    // A timer leaves alone what has time left, and mends what has not.
    let timer = lab.run(&["--recover", "--expired"]);
    timer.came_to(0, "clean", "nothing-left");
    timer.says("has time until");
    assert_eq!(
        lab.instance(&primary).await.status,
        Status::Frozen,
        "left alone"
    );
    let mended = clock::within(MINUTE, async {
        while lab.instance(&primary).await.status == Status::Frozen {
            clock::sleep(Duration::from_secs(1)).await;
            lab.run(&["--recover", "--expired"])
                .came_to(0, "clean", "nothing-left");
        }
    });
    mended.await.expect("it expires and is mended");
    lab.undone_without_help(&before).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn two_drills_on_one_system_the_second_is_refused() {
    let lab = Lab::new("two").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = lab.start(&SHORT);
    // From the moment of the first lock on, and long before the fault.
    let locked = clock::within(MINUTE, async {
        while lab.records().is_empty() {
            assert!(check.runs());
            clock::sleep(Duration::from_millis(5)).await;
        }
    });
    locked.await.unwrap();
    let second = Lab::new("two-second").await;
    let run = |lab: &Lab, state: &Lab| {
        let output = lab
            .command()
            .env("VEZA_STATE_DIR", state.state())
            .args(SHORT)
            .output();
        lab.ran(&output.unwrap())
    };
    assert_eq!(run(&second, &lab).code, 1, "the same machine");
    lab.until_broken(&primary, &mut check).await;
    assert_eq!(
        run(&second, &lab).code,
        1,
        "the same machine, while the fault is in"
    );
    run(&second, &second).came_to(1, "refused", "fault-key-there");
    check.signal("-TERM");
    assert_eq!(lab.ran(&check.ended()).code, 143);
    lab.undone_without_help(&before).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn while_a_watchdog_is_still_healing_a_new_drill_is_refused() {
    let lab = Lab::new("healing").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let socket = lab.folder.join("incus.sock");
    let proxy = Proxy::start(&socket, lab.incus.place().socket().unwrap());
    let mut command = lab.command();
    let mut check = Running::of(command.args(SHORT).env("INCUS_SOCKET", &socket));
    lab.until_broken(&primary, &mut check).await;
    proxy.cut();
    check.signal("-KILL");
    check.ended();
    let refused = lab.run(&SHORT);
    assert_eq!(
        (refused.code, &refused.report["verdict"]),
        (1, &Value::from("refused"))
    );
    refused.says("under way");
    let busy = lab.run(&["--recover"]);
    busy.came_to(1, "refused", "drill-under-way");
    let status = lab.instance(&primary).await.status;
    assert_ne!(status, Status::Running, "it can't heal yet");
    proxy.mend();
    lab.undone_without_help(&before).await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn outside_a_lab_somebody_must_confirm_and_a_halt_ends_a_drill_that_runs() {
    let lab = Lab::new("confirm").await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let system = "formation default/0 in project veza-lab";
    let outside = |args: &[&str]| {
        let mut command = lab.command();
        command
            .env_remove("VEZA_LAB_CREDENTIALS")
            .args(SHORT)
            .args(args);
        lab.ran(&command.output().unwrap())
    };
    let nobody = outside(&[]);
    nobody.came_to(1, "refused", "not-confirmed");
    nobody.says(system);
    outside(&["--confirm", "another"]).came_to(1, "refused", "not-confirmed");
    let now = clock::Clock::start().wall(clock::At(0));
    let window = |from: i64, to: i64| {
        let time = |hours: i64| {
            let at = now
                .checked_add(jiff::SignedDuration::from_hours(hours))
                .unwrap();
            at.strftime("%H:%M").to_string()
        };
        format!("{}-{}", time(from), time(to))
    };
    let closed = outside(&["--yes", "--window", &window(2, 4)]);
    closed.came_to(1, "refused", "outside-window");
    assert_eq!(lab.as_it_is().await, before);
    let open = window(-1, 2);
    let args = ["--confirm", system, "--window", &open, "--max-fault", "1"];
    let ran = outside(&args);
    assert_ne!(
        ran.report["verdict"], "refused",
        "confirmed, and in its window"
    );
    lab.until_whole().await;
    let mut check = lab.start(&SHORT);
    lab.until_broken(&primary, &mut check).await;
    set_project(&lab, "user.veza.halt", "release day").await;
    let ran = lab.ran(&check.ended());
    set_project(&lab, "user.veza.halt", "").await;
    ran.came_to(5, "inconclusive", "halted");
    ran.says("release day");
    lab.undone_without_help(&before).await;
}

/// As `incus project set` does it: read, and written as a whole.
async fn set_project(lab: &Lab, key: &str, value: &str) {
    let project = format!("/1.0/projects/{}", lab.incus.project());
    let mut object = lab.incus.get_value(&project).await.unwrap();
    object["config"][key] = value.into();
    let request = Request::new(Method::PUT, &project).body(&object);
    lab.incus.change(request, MINUTE).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_device_comes_back_with_all_its_settings_and_an_unpinned_one_is_refused() {
    let lab = Lab::new("device").await;
    let (primary, _) = lab.roles().await;
    let instance = name(&primary);
    let found = lab.instance(&primary).await.devices["eth0"].clone();
    let mut own = found.clone();
    let bridge = own.remove("network").unwrap();
    for (key, value) in [
        ("nictype", "bridged"),
        ("parent", bridge.as_str()),
        ("mtu", "1400"),
        ("limits.priority", "5"),
    ] {
        own.insert(key.to_owned(), value.to_owned());
    }
    lab.incus
        .set_device(&instance, "eth0", &found, &own)
        .await
        .unwrap();
    lab.until_whole().await;
    let before = lab.as_it_is().await;
    let args = ["--read-only", "--fault", "partition", "--quiet"];
    let ran = lab.run(&args);
    assert_eq!(lab.as_it_is().await, before, "byte for byte");
    ran.came_to(0, "pass", "all-gates-held");
    lab.until_whole().await;
    let (primary, _) = lab.roles().await;
    let instance = name(&primary);
    let found = lab.instance(&primary).await.devices["eth0"].clone();
    let mut loose = found.clone();
    let address = loose.remove("ipv4.address").unwrap();
    lab.incus
        .set_device(&instance, "eth0", &found, &loose)
        .await
        .unwrap();
    lab.until_whole().await;
    let refused = lab.run(&args);
    refused.came_to(1, "refused", "device-not-pinned");
    refused.says("config device set");
    refused.says(&format!("ipv4.address={address}"));
}
