//! A check and the lab that it is tested against, as it was found and as it must be left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use veza_probe::clock;
use veza_probe::incus::{Device, Incus, Instance, Status, socket_path};
use veza_probe::instance::InstanceName;

use crate::ran::Ran;
use crate::running::Running;

/// How long a test waits for what must come.
pub const MINUTE: Duration = Duration::from_secs(60);

/// What a fault may outlast a check that was killed, where a check promises nothing else; README promises it.
const PROMISED: Duration = Duration::from_secs(10);

/// How long a check watches before its fault, and after service is back: as long as still shows something. Most of
/// what is tested does not depend on it, and the defaults would take minutes of all tests together.
pub const BRIEFLY: [(&str, &str); 2] = [
    ("VEZA_WARM_UP_SECONDS", "0.5"),
    ("VEZA_SETTLE_SECONDS", "0.5"),
];

/// Where the lab keeps which group an instance belongs to.
const GROUP_KEY: &str = "user.veza.group";

/// A check, the lab as the environment names it, and a folder of this test's own.
#[derive(Clone)]
pub struct Subject {
    /// The lab's project.
    pub incus: Incus,
    /// The folder: reports, and below it the check's state.
    pub folder: PathBuf,
    program: &'static str,
    groups: &'static [&'static str],
    promised: Duration,
}

/// An instance, without what changes by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct AsFound {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub status: Status,
    /// Its own config.
    pub config: BTreeMap<String, String>,
    /// Its own devices.
    pub devices: BTreeMap<String, Device>,
}

/// A variable of the environment that the test can't do without.
pub fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test`"))
}

/// An instance's name.
pub fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

/// The lab's project, when the variables are set that the test needs beside it.
pub async fn incus(needs: &[&str]) -> Incus {
    let project = variable("VEZA_INCUS_PROJECT");
    needs.iter().for_each(|needed| drop(variable(needed)));
    let socket = socket_path(|name| std::env::var_os(name));
    Incus::connect(&socket, &project).await.unwrap().0
}

impl Subject {
    /// `program` is `env!("CARGO_BIN_EXE_…")`, `test` a word for the test's folder; `groups` are those groups of the
    /// lab that the test may find changed by nobody but the check, and `needs` variables that must be set.
    pub async fn new(
        program: &'static str,
        test: &str,
        groups: &'static [&'static str],
        needs: &[&str],
    ) -> Subject {
        let incus = incus(needs).await;
        let check = PathBuf::from(program);
        let check = check.file_name().unwrap().display();
        let folder = format!("{check}-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Subject {
            incus,
            folder,
            program,
            groups,
            promised: PROMISED,
        }
    }

    /// The same, of a check that promises another time for undoing what it did when it is killed.
    pub fn promising(self, promised: Duration) -> Subject {
        Subject { promised, ..self }
    }

    /// The same with another folder, which its first run makes.
    pub fn with_folder(&self, folder: PathBuf) -> Subject {
        Subject {
            folder,
            ..self.clone()
        }
    }

    /// The check, with reports and state of this test's own; it watches [`BRIEFLY`].
    pub fn command(&self) -> Command {
        let mut command = self.as_shipped();
        command.envs(BRIEFLY);
        command
    }

    /// The same, which watches for as long as a user's does.
    pub fn as_shipped(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .arg("--report")
            .arg(&self.folder)
            .env("VEZA_STATE_DIR", self.state())
            .stdin(Stdio::null());
        command
    }

    /// Runs the check to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.ran(&self.command().args(args).output().unwrap())
    }

    /// What a run came to whose reports are in the folder.
    pub fn ran(&self, output: &Output) -> Ran {
        Ran::of(output, &self.folder)
    }

    /// Starts the check.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::of(self.command().args(args))
    }

    /// The state folder of this test's own.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The records of faults that are there.
    pub fn records(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.state().join("faults"));
        let paths = files.into_iter().flatten().map(|file| file.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect()
    }

    /// An instance, now.
    pub async fn instance(&self, instance: &str) -> Instance {
        self.incus.instance(&name(instance)).await.unwrap()
    }

    /// Every instance of the groups as a drill must leave it: state, own config and devices.
    pub async fn as_it_is(&self) -> Vec<AsFound> {
        // Incus can't always say while it stops or starts one.
        let listed = async {
            loop {
                match self.incus.instances().await {
                    Ok(list) => return list,
                    Err(_) => clock::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let all = clock::within(MINUTE, listed).await.expect("Incus answers");
        let is_ours = |instance: &Instance| {
            let group = instance.config.get(GROUP_KEY);
            group.is_some_and(|group| self.groups.contains(&group.as_str()))
        };
        let ours = all.into_iter().filter(is_ours);
        let mut ours: Vec<AsFound> = ours.map(AsFound::of).collect();
        assert!(!ours.is_empty(), "no instance is of {:?}", self.groups);
        ours.sort_by(|a, b| a.name.cmp(&b.name));
        ours
    }

    /// All is as it was found, no key is set and no record is left; within the time that is promised for a check
    /// that was killed.
    pub async fn undone_without_help(&self, before: &[AsFound]) {
        let mut last = (Vec::new(), Vec::new());
        let undone = async {
            loop {
                last = (self.as_it_is().await, self.records());
                if last.0 == before && last.1.is_empty() {
                    return;
                }
                clock::sleep(Duration::from_millis(50)).await;
            }
        };
        if clock::within(self.promised, undone).await.is_err() {
            let (now, records) = last;
            let text: Vec<_> = records.iter().map(std::fs::read_to_string).collect();
            panic!("not undone: {now:#?}, expected {before:#?}; records {text:?}");
        }
    }

    /// Waits until an instance is down and carries the key of a fault.
    pub async fn until_broken(&self, instance: &str, check: &mut Running) {
        let is_broken = |found: Instance| {
            let down = matches!(found.status, Status::Stopped | Status::Frozen);
            down && found.config.contains_key("user.veza.fault")
        };
        let broken = async {
            // Incus can't always say while it is stopping an instance.
            let now = async || self.incus.instance(&name(instance)).await;
            while !now().await.is_ok_and(is_broken) {
                assert!(check.runs(), "it ended before the fault");
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        let broken = clock::within(MINUTE, broken).await;
        broken.expect("the fault is in");
    }
}

impl AsFound {
    fn of(instance: Instance) -> AsFound {
        let mut config = instance.config;
        config.retain(|key, _| !key.starts_with("volatile."));
        AsFound {
            name: instance.name.to_string(),
            status: instance.status,
            config,
            devices: instance.devices,
        }
    }
}
