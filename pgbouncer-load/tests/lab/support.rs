//! The lab as a test finds it, the real binary, and what both are asked.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;
use veza_probe::incus::{Incus, Method, Request, socket_path};
use veza_probe::instance::InstanceName;

pub const MINUTE: Duration = Duration::from_secs(60);

/// The pooler's instance.
pub const POOLER: &str = "pgaf-pgbouncer";

/// The lab, as the environment names it, and a folder of this test's own.
pub struct Lab {
    pub incus: Incus,
    pub folder: PathBuf,
}

/// What a run came to.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub report: Value,
}

/// A run under way. A test that fails must not leave it behind.
pub struct Running {
    child: Option<Child>,
    story: String,
}

pub fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test pgbouncer`"))
}

pub fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

impl Lab {
    pub async fn new(test: &str) -> Lab {
        let project = variable("VEZA_INCUS_PROJECT");
        for needed in ["DATABASE_URL", "PGBOUNCER_ADMIN_URI", "PGPASSFILE"] {
            variable(needed);
        }
        let socket = socket_path(|name| std::env::var_os(name));
        let (incus, _) = Incus::connect(&socket, &project).await.unwrap();
        let folder = std::env::temp_dir().join(format!("load-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Lab { incus, folder }
    }

    /// The binary, with tables that are made in a moment, and a temporary folder of this test's own.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbouncer-load"));
        command
            .args(["--scale", "1", "--report"])
            .arg(self.folder.join("reports"))
            .args(args)
            .env("TMPDIR", self.temporary())
            .stdin(Stdio::null());
        command
    }

    pub fn temporary(&self) -> PathBuf {
        let folder = self.folder.join("tmp");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.ran(self.command(args).output().unwrap())
    }

    pub fn ran(&self, output: Output) -> Ran {
        let report = self.folder.join("reports/latest/report.json");
        let report = std::fs::read(report).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let ran = Ran {
            code: output.status.code().expect("it ended by itself"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            report: serde_json::from_slice(&report).unwrap_or_default(),
        };
        println!("{}{}", ran.stderr, ran.stdout);
        ran
    }

    pub fn start(&self, args: &[&str]) -> Running {
        Running::of(self.command(args))
    }

    /// A script of pgbench's.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A folder with a pgbench that says nothing but this.
    pub fn false_pgbench(&self, name: &str, version: &str, rest: &str) -> String {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("pgbench");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo '{version}'; exit 0; }}\n{rest}\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder.display().to_string()
    }

    pub async fn sh(&self, instance: &str, script: &str) -> (i64, String) {
        let argv = ["sh", "-c", script];
        let output = self.incus.exec(&name(instance), &argv, MINUTE).await;
        let output = output.unwrap();
        (output.code, output.stdout + &output.stderr)
    }

    /// A command of the admin console.
    pub async fn console(&self, command: &str) {
        let script = format!(
            "PGPASSFILE=/etc/veza/pgpass psql -X -q \"host=pgaf-pgbouncer.lxd port=6432 \
             sslmode=verify-full sslrootcert=/etc/veza/tls/ca.crt dbname=pgbouncer \
             user=pgbouncer_admin\" -c '{command}'"
        );
        let (code, said) = self.sh(POOLER, &script).await;
        assert_eq!(code, 0, "{command}: {said}");
    }

    /// Other clients, of another user, who take a place each as soon as there is one, and keep it for a while.
    pub async fn others_come(&self, clients: usize) {
        let other = format!(
            "PGPASSFILE=/etc/veza/pgpass psql -X -q \"host={POOLER}.lxd port=6432 sslmode=verify-full \
             sslrootcert=/etc/veza/tls/ca.crt dbname=veza user=pgbouncer_follow\" \
             -c 'select pg_sleep(3)'"
        );
        let all = format!(
            "for n in $(seq {clients}); do (for i in $(seq 300); do {other} && break; done) >/dev/null 2>&1 & done; wait"
        );
        let (code, said) = self.sh(POOLER, &all).await;
        assert_eq!(code, 0, "{said}");
    }

    /// Forbids all drills, or with no words allows them again.
    pub async fn halt(&self, words: &str) {
        let project = format!("/1.0/projects/{}", self.incus.project());
        let mut object = self.incus.get_value(&project).await.unwrap();
        object["config"]["user.veza.halt"] = words.into();
        let request = Request::new(Method::PUT, &project).body(&object);
        self.incus.change(request, MINUTE).await.unwrap();
    }

    /// SQL as the superuser on the primary.
    pub async fn sql(&self, sql: &str) -> String {
        for node in ["pgaf-primary", "pgaf-replica"] {
            let script = format!(
                "runuser -u postgres -- psql -X -A -t -d veza -c 'select pg_is_in_recovery()' | grep -q f \
                 && runuser -u postgres -- psql -X -A -t -d veza -c \"{sql}\""
            );
            let (code, said) = self.sh(node, &script).await;
            if code == 0 {
                return said.trim().to_owned();
            }
        }
        panic!("no primary took: {sql}");
    }

    /// No pgbench runs in the pooler's instance or for this test, and no file of one is left.
    pub async fn nothing_is_left(&self) {
        let gone = async {
            loop {
                let (_, there) = self
                    .sh(
                        POOLER,
                        "ps -C pgbench -o pid=; ls -d /var/tmp/pgbouncer-load-* 2>/dev/null",
                    )
                    .await;
                let here = std::fs::read_dir(self.temporary()).unwrap().count();
                if there.trim().is_empty() && here == 0 && self.pgbench_here().is_empty() {
                    return;
                }
                clock::sleep(Duration::from_millis(100)).await;
            }
        };
        let gone = clock::within(MINUTE, gone).await;
        gone.expect("pgbench and its files are gone");
    }

    /// Processes on this host whose folder is that of this test's runs.
    pub fn pgbench_here(&self) -> Vec<String> {
        let ours = self.temporary();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let folders = processes.filter_map(|p| std::fs::read_link(p.path().join("cwd")).ok());
        let folders = folders.filter(|folder| folder.starts_with(&ours));
        folders.map(|folder| folder.display().to_string()).collect()
    }
}

/// Whether this host has a pgbench that runs.
pub fn has_pgbench() -> bool {
    let asked = Command::new("pgbench").arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Running {
    /// A command, started.
    pub fn of(mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running {
            child: Some(command.spawn().unwrap()),
            story: String::new(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, which: &str) {
        let id = self.id().to_string();
        let kill = Command::new("kill").args([which, &id]).status().unwrap();
        assert!(kill.success());
    }

    /// Reads its story up to a line with a word.
    pub fn until_said(&mut self, word: &str) {
        let story = self.child.as_mut().unwrap().stderr.as_mut().unwrap();
        let mut lines = BufReader::with_capacity(1, story).lines();
        let found = lines.any(|line| {
            let line = line.unwrap();
            self.story.push_str(&line);
            self.story.push('\n');
            line.contains(word)
        });
        assert!(found, "{word} is missing in: {}", self.story);
    }

    pub fn ended(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // It may have ended by itself.
            let id = child.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &id]).status();
            println!(
                "the run that was left behind: {:?}",
                child.wait_with_output()
            );
        }
    }
}

impl Ran {
    pub fn came_to(&self, code: i32, verdict: &str, reason_id: &str) {
        assert_eq!(self.code, code, "{}", self.stdout);
        let first = self.stdout.lines().next().unwrap_or_default();
        let expected = format!("{} {reason_id}; next: ", verdict.to_uppercase());
        assert!(first.starts_with(&expected), "first line: {first}");
        assert_eq!(self.report["verdict"], verdict);
        assert_eq!(self.report["exit_code"], code);
    }

    pub fn says(&self, word: &str) {
        assert!(
            self.stdout.contains(word),
            "{word} is missing in: {}",
            self.stdout
        );
    }

    /// What a gate measured, and what became of it.
    pub fn gate(&self, id: &str) -> (f64, String) {
        let gates = self.report["gates"].as_array().unwrap();
        let gate = gates.iter().find(|gate| gate["id"] == id);
        let gate = gate.unwrap_or_else(|| panic!("no gate {id}"));
        let value = gate["measured"]["lower"].as_f64().unwrap_or(f64::NAN);
        (value, gate["outcome"].as_str().unwrap().to_owned())
    }

    pub fn figure(&self, id: &str) -> Vec<f64> {
        let figures = self.report["figures"].as_array().unwrap();
        let figure = figures.iter().find(|figure| figure["id"] == id);
        let rounds = figure.unwrap_or_else(|| panic!("no figure {id}"));
        let rounds = rounds["rounds"].as_array().unwrap().iter();
        rounds.map(|value| value.as_f64().unwrap()).collect()
    }
}
