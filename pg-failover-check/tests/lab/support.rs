//! The lab as a test finds it, and what a formation is asked.

use std::ops::Deref;
use std::time::Duration;

use lab_test::Subject;
pub use lab_test::{MINUTE, Ran, Running, name, variable};
use veza_probe::clock;
use veza_probe::incus::{StateChange, Status};

/// The check, the lab, and a folder of this test's own.
pub struct Lab(Subject);

impl Deref for Lab {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.0
    }
}

impl Lab {
    pub async fn new(test: &str) -> Lab {
        let program = env!("CARGO_BIN_EXE_pg-failover-check");
        let needs = ["PGAF_MONITOR_URI", "PGAF_FORMATION_URI", "PGPASSFILE"];
        Lab(Subject::new(program, test, &["postgres", "pgbouncer"], &needs).await)
    }

    /// The same lab, with reports and records elsewhere.
    pub fn with_folder(&self, folder: std::path::PathBuf) -> Lab {
        Lab(self.0.with_folder(folder))
    }

    /// Waits until the monitor calls the formation whole, by health checks that were begun after this was
    /// called: one that began in a fault that is over may still end badly (0.5 s, 0.2 s until its second
    /// try, 0.5 s), and would have the next drill refused.
    pub async fn until_whole(&self) {
        let now = "select clock_timestamp() + interval '1.3 s'";
        let since = self.sql("pgaf-monitor", "pg_auto_failover", now).await;
        let sql = &format!(
            "select count(*) = 2 and bool_and(reportedstate = goalstate and health = 1 and \
                   healthchecktime > '{since}' and \
                   reportedpgisrunning and now() - reporttime < interval '2 s') and \
                   count(*) filter (where reportedstate = 'primary') = 1 and \
                   count(*) filter (where reportedstate = 'secondary') = 1 \
                   from pgautofailover.node"
        );
        let whole = async {
            while self.sql("pgaf-monitor", "pg_auto_failover", sql).await != "t" {
                clock::sleep(Duration::from_millis(100)).await;
            }
        };
        clock::within(2 * MINUTE, whole)
            .await
            .expect("the formation is whole again");
    }

    /// Which data node is primary now, and which is not; as the primary itself says.
    pub async fn roles(&self) -> (String, String) {
        let nodes = ["pgaf-primary", "pgaf-replica"];
        let primary = self
            .sql(nodes[0], "veza", "select not pg_is_in_recovery()")
            .await
            == "t";
        let (primary, other) = if primary {
            (nodes[0], nodes[1])
        } else {
            (nodes[1], nodes[0])
        };
        (primary.to_owned(), other.to_owned())
    }

    pub async fn sql(&self, instance: &str, database: &str, sql: &str) -> String {
        let psql = "/usr/bin/psql";
        let argv = [
            "runuser", "-u", "postgres", "--", psql, "-X", "-A", "-t", "-d", database, "-c", sql,
        ];
        let output = self
            .incus
            .exec(&name(instance), &argv, MINUTE)
            .await
            .unwrap();
        assert_eq!(output.code, 0, "{sql} in {instance}: {}", output.stderr);
        output.stdout.trim().to_owned()
    }

    /// The init process and the postmaster's start: whatever touches the primary changes one.
    pub async fn start_of(&self, instance: &str) -> (i64, String) {
        let started = self
            .sql(instance, "veza", "select pg_postmaster_start_time()")
            .await;
        (self.instance(instance).await.init_pid, started)
    }

    /// Starts, stops or freezes an instance, as somebody beside the check does.
    pub async fn set(&self, instance: &str, change: StateChange) {
        let instance = name(instance);
        let set = self.incus.set_state(&instance, change, MINUTE);
        set.await.unwrap();
    }

    pub async fn until_stopped(&self, instance: &str, check: &mut Running) {
        let stopped = async {
            loop {
                // Incus can't always say while it is stopping an instance.
                let found = self.incus.instance(&name(instance)).await;
                if found.is_ok_and(|i| i.status == Status::Stopped) {
                    return;
                }
                assert!(check.runs(), "it ended before the fault");
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        clock::within(MINUTE, stopped)
            .await
            .expect("the primary is stopped");
    }

    /// It runs, with a new init process, and its postmaster answers.
    pub async fn runs_again(&self, instance: &str, before: &(i64, String)) {
        let now = self.instance(instance).await;
        assert_eq!(now.status, Status::Running);
        assert_ne!(
            now.init_pid, before.0,
            "the same start as before: it was never stopped"
        );
        let answers = async {
            let probe = ["/usr/bin/pg_isready", "-q", "-t", "2", "-h", "127.0.0.1"];
            // 0: accepts, 1: answers but rejects, for instance while it is starting up.
            while self
                .incus
                .exec(&name(instance), &probe, MINUTE)
                .await
                .unwrap()
                .code
                > 1
            {
                clock::sleep(Duration::from_millis(100)).await;
            }
        };
        clock::within(MINUTE, answers)
            .await
            .expect("the postmaster answers");
    }

    pub async fn no_schema_is_left(&self, primary: &str) {
        let sql = "select coalesce(string_agg(nspname, ' '), '') from pg_namespace where nspname like 'veza_drill%'";
        assert_eq!(self.sql(primary, "veza", sql).await, "");
    }
}
