//! The host's part of the lab: the Incus daemon where nothing else starts it, a kernel limit, and the
//! route that keeps the lab's packets on this host. What is changed is noted first.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use veza_probe::clock::{self, Clock};
use veza_probe::command::Command;
use veza_probe::incus::{self, Incus, Method, Request};

use super::keep::{Keep, Notes, Started};
use super::packages::{self, Missing};
use super::tale::Tale;
use super::topology::{LabSpec, Subnet};

/// A container takes 7 or 8 inotify instances, and all containers share one count: at the kernel's
/// own limit of 128 the 16th container starts without a network.
const INOTIFY_WANTED: u64 = 1024;
const INOTIFY: &str = "/proc/sys/fs/inotify/max_user_instances";
const INOTIFY_FILE: &str = "/etc/sysctl.d/60-veza-lab.conf";
/// The range that is set aside for tests of networks (RFC 2544). The whole of it is kept on the host.
const TEST_RANGE: &str = "198.18.0.0/15";
/// Behind every real route.
const ROUTE_METRIC: &str = "9999";
const SHORT: Duration = Duration::from_secs(20);
/// After an unclean end the daemon mounts pools and starts instances before it answers.
const START_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// Whether systemd runs this host.
fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// A client of a running Incus; starts the daemon when nobody answers.
///
/// # Errors
/// [`Missing`] when it may not be used or is not installed; with the end of its log when it does not
/// start.
pub async fn incus(keep: &Keep, lab: &LabSpec, tale: &Tale) -> anyhow::Result<Incus> {
    let socket = incus::socket_path(|name| std::env::var_os(name));
    let incus = Incus::new(&socket, lab.project.as_str())?;
    match incus.server().await {
        Ok(_) => {
            note_started(keep, &incus).await?;
            return Ok(incus);
        }
        Err(error @ incus::Error::Permission { .. }) => return Err(error.into()),
        Err(_) => {}
    }
    for name in ["INCUS_SOCKET", "INCUS_DIR"] {
        if std::env::var_os(name).is_some_and(|v| !v.is_empty()) {
            bail!(Missing(format!(
                "no Incus answers at {}, which {name} names: start that one, or unset {name}",
                socket.display()
            )));
        }
    }
    if has_systemd() {
        tale.say("starting Incus by systemd");
        keep.note(|n| n.incusd = Some(Started::Systemd))?;
        let command = Command::new("systemctl").args(["start", "incus.service"]);
        command.run(START_LIMIT).await?;
    } else if let Some(pid) = running_incusd()? {
        tale.say(&format!(
            "incusd runs already (process {pid}): waiting for its answer"
        ));
    } else {
        start_incusd(keep, lab, tale).await?;
    }
    let began = tale.seconds();
    wait_for_answer(keep, &incus).await?;
    note_started(keep, &incus).await?;
    tale.say(&format!(
        "Incus answers after {:.1} s",
        tale.seconds() - began
    ));
    Ok(incus)
}

async fn start_incusd(keep: &Keep, lab: &LabSpec, tale: &Tale) -> anyhow::Result<()> {
    let Some(program) = packages::incusd() else {
        bail!(Missing("incusd is not installed".to_owned()));
    };
    // A daemon that was killed leaves the bridge's name server behind, which then holds its address.
    for pid in processes(|args| is_dnsmasq_of(args, lab.bridge.as_str()))? {
        tale.say(&format!(
            "ending a dnsmasq left over on {} (process {pid})",
            lab.bridge
        ));
        end(pid, SHORT).await?;
    }
    let path = keep.path("incusd.log");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path);
    let log = log.with_context(|| format!("opening {}", path.display()))?;
    tale.say(&format!(
        "starting incusd (systemd does not run here); its log is {}",
        path.display()
    ));
    keep.note(|n| n.incusd = Some(Started::Starting))?;
    // `setsid --fork`: neither our terminal nor our process group may take it along.
    let command = Command::new(packages::tool("setsid")?)
        .arg("--fork")
        .arg(program)
        .args(["--group", "incus-admin"])
        .log(log);
    command.leave()?;
    Ok(())
}

async fn wait_for_answer(keep: &Keep, incus: &Incus) -> anyhow::Result<()> {
    let answer = async {
        while incus.server().await.is_err() {
            clock::sleep(POLL).await;
        }
    };
    if clock::within(START_LIMIT, answer).await.is_ok() {
        return Ok(());
    }
    let log = std::fs::read_to_string(keep.path("incusd.log")).unwrap_or_default();
    let mut tail: Vec<&str> = log.lines().rev().take(8).collect();
    tail.reverse();
    bail!(
        "Incus was started but does not answer at {} after {} s; its log ends:\n  {}",
        incus.place(),
        START_LIMIT.as_secs(),
        tail.join("\n  ")
    )
}

/// Completes the note of a daemon that the lab started, now that it tells its process id.
async fn note_started(keep: &Keep, incus: &Incus) -> anyhow::Result<()> {
    if keep.notes()?.incusd != Some(Started::Starting) {
        return Ok(());
    }
    let server = incus.get_value("/1.0").await?;
    let pid = server
        .pointer("/environment/server_pid")
        .and_then(Value::as_u64);
    let pid = u32::try_from(pid.unwrap_or(0)).unwrap_or(0);
    let start_ticks = start_ticks(pid).context("the daemon's process id is no process here")?;
    let boot_id = boot_id()?;
    keep.note(|n| {
        n.incusd = Some(Started::Process {
            pid,
            start_ticks,
            boot_id,
        });
    })
}

/// Stops the daemon if the lab started it and nobody else uses it now.
///
/// # Errors
/// When it does not end.
pub async fn stop_incus(keep: &Keep, incus: &Incus, tale: &Tale) -> anyhow::Result<()> {
    let Some(started) = keep.notes()?.incusd else {
        return Ok(());
    };
    let others = others_in_incus(incus).await?;
    if !others.is_empty() {
        tale.say(&format!(
            "the lab started Incus, but others use it now ({}): Incus goes on",
            others.join(", ")
        ));
        return Ok(());
    }
    match started {
        Started::Systemd => {
            tale.say("stopping Incus by systemd");
            let command = Command::new("systemctl").args(["stop", "incus.service", "incus.socket"]);
            command.output(START_LIMIT).await?;
        }
        Started::Starting => {}
        Started::Process {
            pid,
            start_ticks: ticks,
            boot_id: boot,
        } => {
            if boot == boot_id()? && start_ticks(pid) == Some(ticks) {
                tale.say(&format!(
                    "stopping incusd (process {pid}), which the lab started"
                ));
                end(pid, Duration::from_secs(60)).await?;
            }
        }
    }
    Ok(())
}

/// What is in Incus once the lab's own objects are removed. Not only instances count: who has made a
/// network or a pool is about to use it.
async fn others_in_incus(incus: &Incus) -> anyhow::Result<Vec<String>> {
    let mut others = Vec::new();
    for project in incus.get::<Vec<String>>("/1.0/projects").await? {
        let name = project.rsplit('/').next().unwrap_or_default();
        if name != "default" {
            others.push(format!("project {name}"));
        }
        let of_project = Incus::new(incus.place(), name)?;
        for list in ["/1.0/instances", "/1.0/images"] {
            others.extend(list_of(&of_project, list).await?);
        }
    }
    let default = Incus::new(incus.place(), "default")?;
    others.extend(list_of(&default, "/1.0/storage-pools").await?);
    let networks = default.get_value("/1.0/networks?recursion=1").await?;
    let networks = networks.as_array().into_iter().flatten();
    let managed = networks.filter(|n| n.get("managed") == Some(&Value::Bool(true)));
    let names = managed.filter_map(|n| n.get("name")?.as_str());
    others.extend(names.map(|name| format!("network {name}")));
    Ok(others)
}

/// A list of addresses of objects. Incus says `null` for some that are empty.
async fn list_of(incus: &Incus, path: &str) -> anyhow::Result<Vec<String>> {
    Ok(incus
        .get::<Option<Vec<String>>>(path)
        .await?
        .unwrap_or_default())
}

/// Raises the inotify limit where it is too low, now and at the next boot.
///
/// # Errors
/// When the system refuses.
pub fn raise_inotify(keep: &Keep, tale: &Tale) -> anyhow::Result<()> {
    let found = read_number(INOTIFY)?;
    if found >= INOTIFY_WANTED {
        return Ok(());
    }
    // After a reboot the old value was noted already; what is found then is not the user's choice.
    keep.note(|n| {
        n.inotify_before.get_or_insert(found);
    })?;
    std::fs::write(
        INOTIFY_FILE,
        format!(
            "# Written by `cargo xtask lab up`, removed by `cargo xtask lab down`.\n\
             fs.inotify.max_user_instances = {INOTIFY_WANTED}\n"
        ),
    )
    .with_context(|| format!("writing {INOTIFY_FILE}"))?;
    std::fs::write(INOTIFY, INOTIFY_WANTED.to_string())
        .with_context(|| format!("writing {INOTIFY}"))?;
    tale.say(&format!(
        "raised fs.inotify.max_user_instances from {found} to {INOTIFY_WANTED} ({INOTIFY_FILE}); \
         `lab down` puts it back"
    ));
    Ok(())
}

/// Puts the inotify limit back, unless someone changed it meanwhile.
///
/// # Errors
/// When the system refuses.
pub fn restore_inotify(notes: &Notes, tale: &Tale) -> anyhow::Result<()> {
    let Some(before) = notes.inotify_before else {
        return Ok(());
    };
    if Path::new(INOTIFY_FILE).exists() {
        std::fs::remove_file(INOTIFY_FILE).with_context(|| format!("removing {INOTIFY_FILE}"))?;
    }
    let now = read_number(INOTIFY)?;
    if now == INOTIFY_WANTED {
        std::fs::write(INOTIFY, before.to_string())
            .with_context(|| format!("writing {INOTIFY}"))?;
        tale.say(&format!(
            "put fs.inotify.max_user_instances back to {before}"
        ));
    } else {
        tale.say(&format!(
            "fs.inotify.max_user_instances is {now}, not the lab's {INOTIFY_WANTED}: left as it is"
        ));
    }
    Ok(())
}

fn read_number(path: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} holds {text:?}"))
}

/// Adds the blackhole route, so that a packet to a lab address that is not there goes nowhere.
///
/// # Errors
/// When `ip` refuses.
pub async fn add_route(keep: &Keep, subnet: Subnet, tale: &Tale) -> anyhow::Result<()> {
    let range = Subnet::try_from(TEST_RANGE.to_owned())?;
    let route = if range.holds(subnet) { range } else { subnet };
    let route = route.to_string();
    let ip = packages::tool("ip")?;
    let list = Command::new(&ip).args(["-4", "route", "show", "type", "blackhole"]);
    let there = list.run(SHORT).await?.stdout;
    if there
        .lines()
        .any(|l| l.split_whitespace().any(|w| w == route))
    {
        return Ok(());
    }
    keep.note(|n| n.route = Some(route.clone()))?;
    let add = [
        "-4",
        "route",
        "replace",
        "blackhole",
        &route,
        "metric",
        ROUTE_METRIC,
    ];
    Command::new(&ip).args(add).run(SHORT).await?;
    tale.say(&format!(
        "added a blackhole route for {route}: no packet of the lab leaves this host"
    ));
    Ok(())
}

/// Removes the blackhole route, if the lab added it.
///
/// # Errors
/// When `ip` can't be run.
pub async fn remove_route(notes: &Notes, tale: &Tale) -> anyhow::Result<()> {
    let Some(route) = &notes.route else {
        return Ok(());
    };
    let ip = packages::tool("ip")?;
    let del = [
        "-4",
        "route",
        "del",
        "blackhole",
        route,
        "metric",
        ROUTE_METRIC,
    ];
    // It may be gone after a reboot; that is what is wanted.
    if Command::new(ip)
        .args(del)
        .output(SHORT)
        .await?
        .status
        .success()
    {
        tale.say(&format!("removed the blackhole route for {route}"));
    }
    Ok(())
}

/// Whether the bridge is there as a network interface.
pub fn has_interface(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Makes Incus set its bridge up again, after someone deleted the interface: any change of its
/// configuration does.
///
/// # Errors
/// As every change.
pub async fn revive_bridge(incus: &Incus, bridge: &str) -> anyhow::Result<()> {
    let path = format!("/1.0/networks/{bridge}");
    let network = incus.get_value(&path).await?;
    let key = "ipv4.dhcp.expiry";
    let now = network.get("config").and_then(|c| c.get(key));
    let next = match now.and_then(Value::as_str) {
        Some("61m") => "1h",
        _ => "61m",
    };
    let body = json!({ "config": { key: next } });
    let request = Request::new(Method::PATCH, path).body(&body);
    incus.change(request, SHORT).await?;
    Ok(())
}

fn is_dnsmasq_of(args: &[&str], bridge: &str) -> bool {
    let program = args.first().and_then(|p| p.rsplit('/').next());
    program == Some("dnsmasq") && args.contains(&format!("--interface={bridge}").as_str())
}

/// The daemon itself, not one of its helpers, whose second word is `forkfile` and the like.
fn is_incusd(args: &[&str]) -> bool {
    let program = args.first().and_then(|p| p.rsplit('/').next());
    let helper = args.get(1).is_some_and(|a| !a.starts_with('-'));
    program == Some("incusd") && !helper
}

fn running_incusd() -> anyhow::Result<Option<u32>> {
    Ok(processes(is_incusd)?.into_iter().next())
}

/// The processes whose arguments are the ones looked for.
fn processes(wanted: impl Fn(&[&str]) -> bool) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("reading /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // A process may end while we look.
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line);
        let args: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
        if wanted(&args) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Ends one process and waits until it is gone.
async fn end(pid: u32, limit: Duration) -> anyhow::Result<()> {
    let started = start_ticks(pid);
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    match rustix::process::kill_process(target, Signal::TERM) {
        Err(error) if error != rustix::io::Errno::SRCH => {
            return Err(error).with_context(|| format!("ending process {pid}"));
        }
        _ => {}
    }
    let clock = Clock::start();
    while started.is_some() && start_ticks(pid) == started {
        if clock.at().seconds() > limit.as_secs_f64() {
            bail!(
                "process {pid} still runs {} s after SIGTERM",
                limit.as_secs()
            );
        }
        clock::sleep(POLL).await;
    }
    Ok(())
}

/// When a process began, in clock ticks since boot; none for one that is gone, also where its parent
/// has not noticed.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_ticks(&stat)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything; what follows the last one is numbers.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot_id() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_told_from_its_helpers_and_its_dnsmasq_from_others() {
        assert!(is_incusd(&[
            "/usr/libexec/incus/incusd",
            "--group",
            "incus-admin"
        ]));
        assert!(is_incusd(&["incusd"]));
        assert!(!is_incusd(&[
            "/usr/libexec/incus/incusd",
            "forkfile",
            "--",
            "3"
        ]));
        assert!(!is_incusd(&["vi", "/usr/libexec/incus/incusd"]));
        let dnsmasq = ["dnsmasq", "--keep-in-foreground", "--interface=vezabr0"];
        assert!(is_dnsmasq_of(&dnsmasq, "vezabr0"));
        assert!(!is_dnsmasq_of(&dnsmasq, "vezabr"));
        assert!(!is_dnsmasq_of(&["grep", "--interface=vezabr0"], "vezabr0"));
    }

    #[test]
    fn the_start_of_a_process_is_read_past_a_name_with_parentheses() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b (c) S {}", numbers.join(" "));
        assert_eq!(parse_start_ticks(&stat), Some(22));
        assert_eq!(parse_start_ticks(&stat.replace(") S", ") Z")), None);
        assert!(start_ticks(std::process::id()).is_some());
    }
}
