//! Brings instances to what they should be: makes them, writes their files, runs their one-time steps,
//! starts their units. Independent instances at the same time, changes of living ones one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use veza_probe::clock;
use veza_probe::incus::{Incus, Method, Request, StateChange};
use veza_probe::instance::InstanceName;

use super::files;
use super::objects;
use super::plan::{self, Changes, FAULT_KEY, FILES_KEY, Found, MADE_KEY, Plan, ROLE_KEY, Wanted};
use super::ready;
use super::role::{Change, Create, Rendered};
use super::site::Site;

const LIMIT: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// How long a started instance may take to have its address.
const ADDRESS_LIMIT: Duration = Duration::from_secs(30);
/// How long units of an instance that was just started may refuse to reload.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);

/// The names of instances that are made, as they come.
type Made = watch::Sender<BTreeSet<String>>;

/// All instances of the project. One that Incus can't ask at this moment, as while it stops, is
/// listed as an error without config or snapshots: such a list is asked for again, for ten seconds.
///
/// # Errors
/// As every request.
pub async fn found(incus: &Incus) -> anyhow::Result<BTreeMap<String, Found>> {
    let list = || incus.get::<Vec<Found>>("/1.0/instances?recursion=2");
    let mut all = list().await?;
    for _ in 0..40 {
        if !all.iter().any(Found::is_unknown) {
            break;
        }
        clock::sleep(Duration::from_millis(250)).await;
        all = list().await?;
    }
    Ok(all.into_iter().map(|f| (f.name.clone(), f)).collect())
}

/// One instance.
async fn find(incus: &Incus, name: &str) -> anyhow::Result<Found> {
    Ok(incus
        .get(&format!("/1.0/instances/{name}?recursion=1"))
        .await?)
}

impl Site<'_> {
    /// Brings all of these instances to what they should be. Returns whether anything of them
    /// changed that a healthy snapshot would hold.
    ///
    /// # Errors
    /// With the step of the instance that failed first.
    pub async fn converge(&self, all: &[Wanted<'_>]) -> anyhow::Result<bool> {
        let found = found(self.incus).await?;
        let plans = self.plans(all, &found);
        let names: BTreeSet<String> = plans
            .iter()
            .map(|(w, ..)| w.spec.name.to_string())
            .collect();
        // Instances of groups that are not asked for now count as made: nobody makes them here.
        let elsewhere: BTreeSet<String> = found
            .keys()
            .filter(|n| !names.contains(*n))
            .cloned()
            .collect();
        let made = watch::Sender::new(elsewhere);
        let steps = plans.iter().map(|(wanted, found, plan)| async {
            let name = &wanted.spec.name;
            let step = self.bring_up(wanted, *found, plan, &made);
            let changed = step.await.with_context(|| format!("instance {name}"))?;
            made.send_modify(|done| {
                done.insert(name.to_string());
            });
            anyhow::Ok(changed)
        });
        let changed = try_join_all(steps).await?;
        for group in plans.chunk_by(|(a, ..), (b, ..)| a.group == b.group) {
            self.act_on(group).await?;
        }
        Ok(changed.contains(&true))
    }

    /// Lets the units of a group's instances take changed files over: one after the other, or all at once
    /// where a member that differs is none.
    async fn act_on(&self, group: &[(&Wanted<'_>, Option<&Found>, Plan)]) -> anyhow::Result<()> {
        let mut together = false;
        let mut acts = Vec::new();
        for (wanted, found, plan) in group {
            let Plan::Keep(changes) = plan else { continue };
            if !changes.has_files() {
                continue;
            }
            together |= changes.action == Some(Change::Together);
            let was_running = found.is_some_and(Found::is_running);
            acts.push(async move {
                let act = self.act(wanted, changes, was_running);
                act.await
                    .with_context(|| format!("instance {}", wanted.spec.name))
            });
        }
        if together {
            try_join_all(acts).await?;
            return Ok(());
        }
        for act in acts {
            act.await?;
        }
        Ok(())
    }

    /// What has to be done about each instance, group by group.
    fn plans<'w>(
        &self,
        all: &'w [Wanted<'w>],
        found: &'w BTreeMap<String, Found>,
    ) -> Vec<(&'w Wanted<'w>, Option<&'w Found>, Plan)> {
        let mut plans = Vec::new();
        for group in all.chunk_by(|a, b| a.group == b.group) {
            let found = group.iter().map(|w| found.get(w.spec.name.as_str()));
            let found: Vec<Option<&Found>> = found.collect();
            let pairs = group.iter().zip(&found);
            let mut of_group: Vec<Plan> = pairs
                .map(|(wanted, found)| plan::plan(*found, wanted, self.lab))
                .collect();
            plan::remake_whole(&mut of_group);
            let three = group.iter().zip(found).zip(of_group);
            plans.extend(three.map(|((wanted, found), plan)| (wanted, found, plan)));
        }
        plans
    }

    async fn bring_up(
        &self,
        wanted: &Wanted<'_>,
        found: Option<&Found>,
        plan: &Plan,
        made: &Made,
    ) -> anyhow::Result<bool> {
        let name = &wanted.spec.name;
        let changed = match plan {
            Plan::Make => {
                self.make(wanted).await?;
                true
            }
            Plan::Remake(why) => {
                self.tale.say(&format!("{name}: made anew, because {why}"));
                objects::delete_instance(self.incus, name.as_str()).await?;
                self.make(wanted).await?;
                true
            }
            Plan::Keep(changes) => {
                self.adjust(wanted, found, changes).await?;
                changes.has_files()
            }
        };
        self.run(wanted).await?;
        let is_made =
            matches!(plan, Plan::Keep(_)) && found.is_some_and(|f| f.key(MADE_KEY).is_some());
        if is_made && !changed {
            self.start_units(wanted).await?;
            return Ok(changed);
        }
        if is_made {
            // A unit may be new or another one; what is running goes on until its files are acted upon.
            self.exec(name, &["systemctl", "daemon-reload"], SHORT)
                .await?;
            self.enable_units(wanted).await?;
            return Ok(changed);
        }
        for create in &wanted.role.creates {
            self.create(wanted, create, made).await?;
        }
        self.enable_units(wanted).await?;
        self.set(name, json!({ MADE_KEY: "yes" })).await?;
        Ok(true)
    }

    /// Makes an instance with its files, not started. The key that lists the files is set last: an
    /// instance without it was never finished.
    async fn make(&self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        let name = &wanted.spec.name;
        let began = self.tale.seconds();
        self.volumes(wanted).await?;
        let body = json!({
            "name": name.as_str(),
            "source": { "type": "image", "alias": self.image },
            "config": wanted.config(),
            "devices": wanted.devices(self.lab),
        });
        let request = Request::new(Method::POST, "/1.0/instances").body(&body);
        self.incus.change(request, LIMIT).await?;
        let files: Vec<&Rendered> = wanted.files.iter().collect();
        files::write(self.incus, name, &files).await?;
        let keys = json!({ FILES_KEY: wanted.file_stamp(), ROLE_KEY: wanted.role_stamp() });
        self.set(name, keys).await?;
        let took = self.tale.seconds() - began;
        self.tale.say(&format!("{name}: made ({took:.1} s)"));
        Ok(())
    }

    /// Sees to it that an instance's volumes are there. One that is there already keeps what is on it.
    async fn volumes(&self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        for device in wanted.spec.volumes.keys() {
            let name = wanted.spec.volume(device);
            objects::volume(self.incus, self.lab, &name).await?;
        }
        Ok(())
    }

    /// Puts config, devices and files of an instance right. What its units do about new files comes
    /// later, one instance after the other.
    async fn adjust(
        &self,
        wanted: &Wanted<'_>,
        found: Option<&Found>,
        changes: &Changes,
    ) -> anyhow::Result<()> {
        let name = &wanted.spec.name;
        if found.is_some_and(|f| f.key(FAULT_KEY).is_some()) {
            self.tale.say(&format!(
                "{name}: a drill left its record of a fault here (its --recover removes it, `lab reset`, too)"
            ));
        }
        if !changes.config.is_empty() {
            let keys: Vec<&str> = changes.config.keys().map(String::as_str).collect();
            self.tale
                .say(&format!("{name}: setting {}", keys.join(", ")));
            self.set(name, changes.config.clone().into()).await?;
        }
        if !changes.devices.is_empty() {
            let names: Vec<&str> = changes.devices.keys().map(String::as_str).collect();
            self.tale
                .say(&format!("{name}: setting the device {}", names.join(", ")));
            self.volumes(wanted).await?;
            let body = json!({ "devices": changes.devices });
            let request = Request::new(Method::PATCH, path(name)).body(&body);
            self.incus.change(request, SHORT).await?;
        }
        if changes.has_files() {
            let count = changes.write.len() + changes.remove.len();
            self.tale
                .say(&format!("{name}: {count} files differ: {}", list(changes)));
            if let Some(found) = found {
                let stamp = plan::stamp_while(found, changes);
                self.set(name, json!({ FILES_KEY: stamp })).await?;
            }
            let differ = |f: &&Rendered| changes.write.contains(&f.path);
            let files: Vec<&Rendered> = wanted.files.iter().filter(differ).collect();
            files::write(self.incus, name, &files).await?;
            for gone in &changes.remove {
                files::remove(self.incus, name, gone).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that an instance runs and has its address.
    async fn run(&self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        let name = &wanted.spec.name;
        let now = find(self.incus, name.as_str()).await?;
        match now.status.as_str() {
            "Running" | "Ready" => {
                if now.has_address(wanted.spec.address) {
                    return Ok(());
                }
                // It may be booting; and its link is lost for good if the bridge was made anew.
                if self.address(wanted, ADDRESS_LIMIT / 3).await.is_ok() {
                    return Ok(());
                }
                self.tale.say(&format!(
                    "{name}: it runs without its address: restarting it"
                ));
                self.incus
                    .set_state(name, StateChange::ForceStop, SHORT)
                    .await?;
            }
            "Frozen" => {
                self.tale.say(&format!("{name}: unfreezing it"));
                self.incus
                    .set_state(name, StateChange::Unfreeze, SHORT)
                    .await?;
                return self.address(wanted, ADDRESS_LIMIT).await;
            }
            _ => {}
        }
        start(self.incus, name).await?;
        self.address(wanted, ADDRESS_LIMIT).await
    }

    /// Waits until an instance has its address.
    async fn address(&self, wanted: &Wanted<'_>, limit: Duration) -> anyhow::Result<()> {
        let name = &wanted.spec.name;
        let wait = async {
            while !find(self.incus, name.as_str())
                .await?
                .has_address(wanted.spec.address)
            {
                clock::sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        match clock::within(limit, wait).await {
            Ok(done) => done,
            Err(_) => bail!(
                "{name} runs, but has no address {} after {:.0} s: see \
                 `incus --project {} exec {name} -- networkctl status eth0`",
                wanted.spec.address,
                limit.as_secs_f64(),
                self.lab.project
            ),
        }
    }

    /// Runs a one-time step, unless it was done. Two at once, after a command that was killed, wait
    /// for each other.
    async fn create(
        &self,
        wanted: &Wanted<'_>,
        create: &Create,
        made: &Made,
    ) -> anyhow::Result<()> {
        let name = &wanted.spec.name;
        let mut made = made.subscribe();
        for other in &create.after {
            let wait = made.wait_for(|done| done.contains(other));
            let limit = Duration::from_secs(create.limit_s);
            let Ok(Ok(_)) = clock::within(limit, wait).await else {
                bail!(
                    "it waits for {other}, which was not made within {} s",
                    create.limit_s
                );
            };
        }
        let script = r#"[ -e "$0" ] || exec "$@""#;
        let mut argv = vec![
            "flock",
            "/run/veza-create",
            "sh",
            "-c",
            script,
            &create.creates,
        ];
        argv.extend(create.run.iter().map(String::as_str));
        let began = self.tale.seconds();
        let run = create.run.join(" ");
        let limit = Duration::from_secs(create.limit_s);
        self.exec_as(&run, name, &argv, limit).await?;
        let took = self.tale.seconds() - began;
        self.tale.say(&format!("{name}: {run} ({took:.1} s)"));
        Ok(())
    }

    async fn enable_units(&self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        let units = wanted.role.units.iter().map(|u| u.name.as_str());
        let argv: Vec<&str> = ["systemctl", "--quiet", "enable", "--now"]
            .into_iter()
            .chain(units)
            .collect();
        if wanted.role.units.is_empty() {
            return Ok(());
        }
        self.exec(&wanted.spec.name, &argv, LIMIT).await
    }

    async fn start_units(&self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        let units = wanted.role.units.iter().map(|u| u.name.as_str());
        let argv: Vec<&str> = ["systemctl", "start"].into_iter().chain(units).collect();
        if wanted.role.units.is_empty() {
            return Ok(());
        }
        self.exec(&wanted.spec.name, &argv, LIMIT).await
    }

    /// Lets the units take changed files over, then notes the files. Until then the next `up` would
    /// do it again.
    async fn act(
        &self,
        wanted: &Wanted<'_>,
        changes: &Changes,
        was_running: bool,
    ) -> anyhow::Result<()> {
        let name = &wanted.spec.name;
        let paths = changes.write.iter().chain(&changes.remove);
        if paths
            .into_iter()
            .any(|p| p.starts_with("/etc/systemd/system/"))
        {
            self.exec(name, &["systemctl", "daemon-reload"], SHORT)
                .await?;
        }
        // Units of an instance that was just started have read the new files already, but a reload
        // may do more than that.
        let restart = changes.action >= Some(Change::Restart) && was_running;
        for unit in &wanted.role.units {
            let (verb, own) = match restart {
                true => ("restart", &unit.restart),
                false => ("reload", &unit.reload),
            };
            let bare = ["systemctl".to_owned(), verb.to_owned(), unit.name.clone()];
            let argv = own.as_deref().unwrap_or(&bare);
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            self.tale.say(&format!("{name}: {verb} of {}", unit.name));
            self.exec_until(
                name,
                &argv,
                if was_running {
                    Duration::ZERO
                } else {
                    RELOAD_LIMIT
                },
            )
            .await?;
        }
        if restart && let Err(error) = ready::wait(self, wanted).await {
            // Another instance may be the reason; whether all are well is asked at the end.
            self.tale.say(&format!(
                "{name}: not ready after the restart, going on: {error:#}"
            ));
        }
        self.set(name, json!({ FILES_KEY: wanted.file_stamp() }))
            .await
    }

    /// Runs a command again until it succeeds or the limit has passed.
    async fn exec_until(
        &self,
        name: &InstanceName,
        argv: &[&str],
        limit: Duration,
    ) -> anyhow::Result<()> {
        let began = self.tale.seconds();
        loop {
            match self.exec(name, argv, LIMIT).await {
                Err(_) if self.tale.seconds() - began < limit.as_secs_f64() => {
                    clock::sleep(Duration::from_secs(1)).await;
                }
                done => return done,
            }
        }
    }

    /// Runs a command in an instance and demands success.
    async fn exec(
        &self,
        name: &InstanceName,
        argv: &[&str],
        limit: Duration,
    ) -> anyhow::Result<()> {
        self.exec_as(&argv.join(" "), name, argv, limit).await
    }

    /// The same, told by another name than its whole command line.
    async fn exec_as(
        &self,
        shown: &str,
        name: &InstanceName,
        argv: &[&str],
        limit: Duration,
    ) -> anyhow::Result<()> {
        let done = self.incus.exec(name, argv, limit).await?;
        if done.code == 0 {
            return Ok(());
        }
        let said = format!("{}\n{}", done.stdout, done.stderr);
        let lines: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
        let tail = lines
            .get(lines.len().saturating_sub(8)..)
            .unwrap_or_default();
        let reason = match done.code {
            124 | 137 => format!("was not done within {:.0} s", limit.as_secs_f64()),
            code => format!("ended with {code}"),
        };
        bail!(
            "`{shown}` {reason} and said:\n  {}\n  look at `incus --project {} exec {name} -- journalctl -n 50`",
            tail.join("\n  "),
            self.lab.project
        )
    }

    /// Sets config keys.
    pub async fn set(&self, name: &InstanceName, keys: Value) -> anyhow::Result<()> {
        let body = json!({ "config": keys });
        let request = Request::new(Method::PATCH, path(name)).body(&body);
        self.incus.change(request, SHORT).await?;
        Ok(())
    }
}

/// Starts an instance. After its own start the daemon starts instances, too: one that runs is fine,
/// whoever started it.
///
/// # Errors
/// With Incus' words when it does not run.
pub async fn start(incus: &Incus, name: &InstanceName) -> anyhow::Result<()> {
    let mut tries = 0;
    loop {
        let Err(error) = incus.set_state(name, StateChange::Start, LIMIT).await else {
            return Ok(());
        };
        // Half started, an instance can't always be asked; then it is started again.
        let now = find(incus, name.as_str()).await;
        if now.is_ok_and(|found| found.is_running()) {
            return Ok(());
        }
        tries += 1;
        if tries == 5 {
            return Err(error)
                .with_context(|| format!("starting it (see `incus info {name} --show-log`)"));
        }
        clock::sleep(Duration::from_millis(500)).await;
    }
}

fn path(name: &InstanceName) -> String {
    format!("/1.0/instances/{name}")
}

fn list(changes: &Changes) -> String {
    let all: Vec<&str> = changes
        .write
        .iter()
        .chain(&changes.remove)
        .map(String::as_str)
        .collect();
    match all.as_slice() {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        few => few.join(", "),
    }
}
