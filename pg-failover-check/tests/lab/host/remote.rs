//! The lab's Incus as a remote: over HTTPS, with a certificate that may see the lab's project only, and a
//! client configuration of the test's own.
//!
//! `core.https_address` is global to the daemon, and so is its trust store: the test says what it sets,
//! and puts back what it found, also when it fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use veza_probe::clock;
use veza_probe::incus::{Method, Request, Status};
use veza_probe::undo::{TIMER_KEY, guarded};

use super::kill;
use crate::support::{Lab, MINUTE, Ran, Running};

const ADDRESS: &str = "core.https_address";

/// What is global to the daemon, as it was found.
pub(super) struct Found {
    address: Option<String>,
    timer: Option<String>,
    certificate: String,
}

/// Writes a new self-signed certificate and its key.
fn certificate(crt: &Path, key: Option<&Path>) {
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["veza-test".to_owned()]).unwrap();
    std::fs::write(crt, params.self_signed(&pair).unwrap().pem()).unwrap();
    if let Some(key) = key {
        std::fs::write(key, pair.serialize_pem()).unwrap();
    }
}

/// A folder like `~/.config/incus`, with the remote `lab`.
fn client(folder: &Path, port: u16, server: &str) -> PathBuf {
    std::fs::create_dir_all(folder.join("servercerts")).unwrap();
    let config = format!(
        "default-remote: local\nremotes:\n  lab:\n    addr: https://127.0.0.1:{port}\n    auth_type: tls\n    \
         protocol: incus\n    public: false\n  local:\n    addr: unix://\n    public: false\n"
    );
    std::fs::write(folder.join("config.yml"), config).unwrap();
    certificate(&folder.join("client.crt"), Some(&folder.join("client.key")));
    std::fs::write(folder.join("servercerts/lab.crt"), server).unwrap();
    folder.to_owned()
}

async fn listen(lab: &Lab, address: &str) {
    println!("{ADDRESS} of this host's Incus: {address:?}");
    let body = json!({ "config": { ADDRESS: address } });
    let request = Request::new(Method::PATCH, "/1.0").body(&body);
    lab.incus.change(request, MINUTE).await.unwrap();
}

/// As docs/remote.md says it.
pub(super) fn trust(folder: &Path, name: &str) {
    let status = Command::new("incus")
        .args(["config", "trust", "add-certificate"])
        .arg(folder.join("client.crt"))
        .args(["--name", name, "--restricted", "--projects", "veza-lab"])
        .env("INCUS_CONF", folder)
        .status();
    assert!(status.unwrap().success(), "the certificate is trusted");
}

async fn distrust(lab: &Lab, name: &str) {
    let path = "/1.0/certificates?recursion=1";
    let all = lab.incus.get_value(path).await.unwrap();
    let ours = |c: &&Value| c["name"] == name;
    for certificate in all.as_array().unwrap().iter().filter(ours) {
        let fingerprint = certificate["fingerprint"].as_str().unwrap();
        let path = format!("/1.0/certificates/{fingerprint}");
        let request = Request::new(Method::DELETE, path);
        lab.incus.change(request, MINUTE).await.unwrap();
    }
}

/// The check over the remote; its socket leads nowhere, so that nothing can fall back on it.
pub(super) fn command(lab: &Lab, folder: &Path, args: &[&str]) -> Command {
    let mut command = lab.command();
    command
        .env("INCUS_CONF", folder)
        .env("INCUS_SOCKET", "/nowhere/unix.socket")
        .args(["--read-only", "--quiet"])
        // Nothing here depends on how finely is measured.
        .args(["--spacing", "100"])
        .args(["--remote", "lab"])
        .args(args);
    command
}

pub(super) fn run(lab: &Lab, folder: &Path, args: &[&str]) -> Ran {
    lab.ran(&command(lab, folder, args).output().unwrap())
}

/// Makes the lab's Incus listen, and a client's folder that it does not trust yet, for what is tested.
/// Puts everything back, also when that fails. `way` says at which port the client finds the one of Incus.
pub(super) async fn with_remote(
    lab: &Lab,
    way: impl FnOnce(u16) -> u16,
    tested: impl AsyncFnOnce(&Path, &str, &Found),
) {
    let server = lab.incus.get_value("/1.0").await.unwrap();
    let config = lab.incus.project_config().await.unwrap();
    let found = Found {
        address: server["config"][ADDRESS].as_str().map(str::to_owned),
        timer: config.get(TIMER_KEY).cloned(),
        certificate: server["environment"]["certificate"]
            .as_str()
            .unwrap()
            .to_owned(),
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let folder = lab.folder.join("incus");
    let folder = client(&folder, way(port), &found.certificate);
    let name = format!("veza-test-{}", std::process::id());
    let tested = guarded(async {
        listen(lab, &format!("127.0.0.1:{port}")).await;
        tested(&folder, &name, &found).await;
    })
    .await;
    distrust(lab, &name).await;
    listen(lab, found.address.as_deref().unwrap_or_default()).await;
    let timer = found.timer.as_deref();
    lab.incus.set_project_key(TIMER_KEY, timer).await.unwrap();
    let now = lab.incus.get_value("/1.0").await.unwrap();
    assert_eq!(now["config"], server["config"], "as it was found");
    tested.unwrap();
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn over_a_remote_a_drill_runs_only_with_the_pinned_server_and_a_timer_on_its_host() {
    let lab = Lab::new("remote").await;
    let tested = async |folder: &Path, name: &str, found: &Found| {
        refused(&lab, folder, name, found).await;
        drilled(&lab, folder).await;
    };
    with_remote(&lab, |port| port, tested).await;
}

/// Who is not trusted, asks the wrong server, or has no timer there, breaks nothing.
async fn refused(lab: &Lab, folder: &Path, name: &str, found: &Found) {
    let (primary, _) = lab.roles().await;
    let started = lab.start_of(&primary).await;
    let unusable = |ran: &Ran, words: &[&str]| {
        ran.came_to(3, "missing-tool", "incus-not-usable");
        words.iter().for_each(|word| ran.says(word));
    };
    let stranger = run(lab, folder, &[]);
    unusable(
        &stranger,
        &["does not trust", "config trust add-certificate"],
    );
    trust(folder, name);
    let pin = folder.join("servercerts/lab.crt");
    certificate(&pin, None);
    let pinned = run(lab, folder, &[]);
    unusable(&pinned, &["is not the one that", "nothing was sent", "lab"]);
    std::fs::write(&pin, &found.certificate).unwrap();
    let project = run(lab, folder, &["--project", "default"]);
    unusable(&project, &["has no project default", "(it has: veza-lab)"]);
    let mut elsewhere = command(lab, folder, &[]);
    let elsewhere = elsewhere.env("INCUS_CONF", "/nowhere").output();
    unusable(&lab.ran(&elsewhere.unwrap()), &["/nowhere/config.yml"]);
    lab.incus.set_project_key(TIMER_KEY, None).await.unwrap();
    let dry = run(lab, folder, &["--dry-run"]);
    dry.came_to(0, "planned", "dry-run");
    dry.says("without --dry-run it would be refused");
    dry.says("over the remote lab (https://127.0.0.1:");
    // A run over the remote does not vouch for the host.
    let over = run(lab, folder, &["--recover", "--expired"]);
    over.came_to(0, "clean", "nothing-left");
    let unwatched = run(lab, folder, &[]);
    unwatched.came_to(3, "missing-tool", "no-host-timer");
    unwatched.says(TIMER_KEY);
    assert_eq!(lab.start_of(&primary).await, started, "untouched");
}

/// With a timer it breaks and heals; after the death of check and watchdog, `--recover` heals.
async fn drilled(lab: &Lab, folder: &Path) {
    let before = lab.as_it_is().await;
    lab.run(&["--recover", "--expired"])
        .came_to(0, "clean", "nothing-left");
    // Through files, programs and streams in instances; the next one through an instance's state.
    let args = [
        "--fault",
        "hold:pgautofailover",
        "--observe-from",
        "pgaf-monitor",
    ];
    let drill = run(lab, folder, &args);
    assert_eq!(lab.as_it_is().await, before);
    assert!(lab.records().is_empty());
    drill.came_to(0, "pass", "all-gates-held");
    drill.says("inside pgaf-monitor, directly to the nodes");
    lab.until_whole().await;
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    let mut check = Running::of(&mut command(lab, folder, &["--fault", "freeze"]));
    lab.until_broken(&primary, &mut check).await;
    let key = lab.instance(&primary).await.config["user.veza.fault"].clone();
    let key: Value = serde_json::from_str(&key).unwrap();
    assert_eq!(key["place"]["remote"]["name"], "lab");
    // It may still be freezing.
    let frozen = async {
        while lab.instance(&primary).await.status != Status::Frozen {
            clock::sleep(Duration::from_millis(50)).await;
        }
    };
    clock::within(MINUTE, frozen).await.expect("it is frozen");
    kill(&["watchdog", "owner"].map(|who| key[who]["pid"].to_string()));
    check.ended();
    let next = run(lab, folder, &[]);
    next.came_to(1, "refused", "fault-on-record");
    next.says("pg-failover-check --remote lab --project veza-lab --recover");
    let recovered = run(lab, folder, &["--recover"]);
    recovered.came_to(0, "clean", "nothing-left");
    recovered.says("everything is as it was found");
    lab.undone_without_help(&before).await;
    lab.until_whole().await;
}
