//! The lab as a test finds it, the real binary, and what both are asked.

use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lab_test::Subject;
pub use lab_test::{MINUTE, Ran, Running, name, variable};
use veza_probe::clock;
use veza_probe::incus::{Method, Request};

/// The pooler's instance.
pub const POOLER: &str = "pgaf-pgbouncer";

/// The program, the lab, and a folder of this test's own.
pub struct Lab(Subject);

impl Deref for Lab {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.0
    }
}

impl Lab {
    pub async fn new(test: &str) -> Lab {
        let program = env!("CARGO_BIN_EXE_pgbouncer-load");
        let needs = ["DATABASE_URL", "PGBOUNCER_ADMIN_URI", "PGPASSFILE"];
        Lab(Subject::new(program, test, &["postgres", "pgbouncer"], &needs).await)
    }

    /// The binary, with tables that are made in a moment, and a temporary folder of this test's own.
    pub fn load(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command
            .args(["--scale", "1"])
            .args(args)
            .env("TMPDIR", self.temporary());
        command
    }

    pub fn temporary(&self) -> PathBuf {
        let folder = self.folder.join("tmp");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.ran(&self.load(args).output().unwrap())
    }

    pub fn start(&self, args: &[&str]) -> Running {
        Running::of(&mut self.load(args))
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

/// What a gate measured, and what became of it.
pub fn gate(ran: &Ran, id: &str) -> (f64, String) {
    let value = ran.measured(id).0;
    (value, ran.outcome(id).to_owned())
}

/// What each round measured of a figure.
pub fn figure(ran: &Ran, id: &str) -> Vec<f64> {
    let figures = ran.report["figures"].as_array().unwrap();
    let figure = figures.iter().find(|figure| figure["id"] == id);
    let rounds = figure.unwrap_or_else(|| panic!("no figure {id}"));
    let rounds = rounds["rounds"].as_array().unwrap().iter();
    rounds.map(|value| value.as_f64().unwrap()).collect()
}
