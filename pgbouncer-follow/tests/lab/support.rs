//! The lab as a test finds it: its formation, its pooler, and a client of both.

use std::time::Duration;

pub use lab_test::{MINUTE, variable};
use lab_test::{incus, name};
use tokio_postgres::{Client, SimpleQueryMessage};
use veza_probe::clock::{self, within};
use veza_probe::incus::{ExecOutput, Incus, StateChange};
use veza_probe::postgres::{Conninfo, Host, Login, Session, Target, Tls, connect};
use veza_probe::way::Way;

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(3);

pub const POOLER: &str = "pgaf-pgbouncer";
pub const MONITOR: &str = "pgaf-monitor";
pub const FILE: &str = "/var/lib/pgbouncer-follow/databases.ini";

/// Where a client came out, and whether it could have written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameOut {
    pub at: String,
    pub takes_writes: bool,
}

pub struct Lab {
    incus: Incus,
}

impl Lab {
    pub async fn new() -> Lab {
        let incus = incus(&["DATABASE_URL", "PGPASSFILE"]).await;
        Lab { incus }
    }

    pub async fn set(&self, instance: &str, change: StateChange) {
        let instance = name(instance);
        let set = self.incus.set_state(&instance, change, MINUTE);
        set.await.unwrap();
    }

    /// Runs a line of shell in an instance; it may fail.
    pub async fn try_shell(&self, instance: &str, line: &str) -> ExecOutput {
        let argv = ["bash", "-c", line];
        let output = self
            .incus
            .exec(&name(instance), &argv, MINUTE)
            .await
            .unwrap();
        println!("{instance}: {line}: {output:?}");
        output
    }

    /// Runs a line of shell in an instance, which must succeed.
    pub async fn shell(&self, instance: &str, line: &str) -> String {
        let output = self.try_shell(instance, line).await;
        assert_eq!(output.code, 0, "{line} in {instance}: {output:?}");
        output.stdout.trim().to_owned()
    }

    pub async fn ask_monitor(&self, sql: &str) -> String {
        let line = format!("psql -XAtq -U postgres -d pg_auto_failover -c \"{sql}\"");
        self.shell(MONITOR, &line).await
    }

    /// The node that takes writes, and the other one.
    pub async fn roles(&self) -> (String, String) {
        let ask = async |which: &str| {
            let sql = format!(
                "select nodename from pgautofailover.node where goalstate {which} 'primary'"
            );
            self.ask_monitor(&sql).await
        };
        (ask("=").await, ask("<>").await)
    }

    /// The address of an instance.
    pub async fn address(&self, instance: &str) -> String {
        let instance = self.incus.instance(&name(instance)).await.unwrap();
        instance.devices["eth0"]["ipv4.address"].clone()
    }

    /// A session through the pooler.
    pub async fn through(&self) -> Result<Session, String> {
        let conninfo: Conninfo = variable("DATABASE_URL").parse().unwrap();
        let Host { name, port, .. } = conninfo.hosts.first().unwrap().clone();
        let address = self.address(POOLER).await;
        let target = Target {
            address: format!("{address}:{port}").parse().unwrap(),
            name,
            way: Way::Here,
        };
        let login = Login::new(conninfo, |name| std::env::var_os(name)).unwrap();
        let tls = Tls::new(&login).unwrap();
        let opened = connect(&target, &login, &tls, PATIENCE).await;
        opened.map_err(|error| error.to_string())
    }

    /// Where a new client comes out behind the pooler.
    pub async fn come_out(&self) -> Result<CameOut, String> {
        let session = self.through().await?;
        let sql = "select host(inet_server_addr()), current_setting('transaction_read_only')";
        let row = ask(&session.client, sql).await?;
        let came_out = CameOut {
            at: row.first().cloned().unwrap_or_default(),
            takes_writes: row.get(1).is_some_and(|read_only| read_only == "off"),
        };
        Ok(came_out)
    }

    /// Waits until new clients come out at an instance; until then none may come out where no write is
    /// taken.
    pub async fn until_clients_come_out_at(&self, instance: &str) {
        let address = self.address(instance).await;
        let mut last = String::new();
        let arrive = async {
            loop {
                match self.come_out().await {
                    Ok(came_out) => {
                        assert!(came_out.takes_writes, "a client came out at {came_out:?}");
                        if came_out.at == address {
                            return;
                        }
                        last = format!("{came_out:?}");
                    }
                    Err(error) => last = error,
                }
                clock::sleep(Duration::from_millis(50)).await;
            }
        };
        let arrived = within(MINUTE, arrive).await;
        assert!(arrived.is_ok(), "no client came out at {instance}: {last}");
    }

    /// Waits until a shell line succeeds in an instance.
    pub async fn until(&self, instance: &str, line: &str) {
        let argv = ["bash", "-c", line];
        let mut last = None;
        let wait = async {
            loop {
                let output = self.incus.exec(&name(instance), &argv, MINUTE).await;
                if output.as_ref().is_ok_and(|output| output.code == 0) {
                    return;
                }
                last = Some(output);
                clock::sleep(Duration::from_millis(100)).await;
            }
        };
        let came = within(MINUTE, wait).await;
        assert!(came.is_ok(), "{line} in {instance}: {last:?}");
    }

    /// Waits until the follower has said this since a cursor of the journal.
    pub async fn until_said(&self, since: &str, words: &str) {
        let words = words.replace('\'', r"'\''");
        let line = format!(
            "journalctl --unit pgbouncer-follow --after-cursor '{since}' --output cat | grep --fixed-strings --quiet '{words}'"
        );
        self.until(POOLER, &line).await;
    }

    /// The end of the journal, now.
    pub async fn cursor(&self) -> String {
        let line = "journalctl --lines 0 --show-cursor | sed --quiet 's/^-- cursor: //p'";
        self.shell(POOLER, line).await
    }

    /// Waits until the follower's metrics hold a line.
    pub async fn until_metric(&self, wanted: &str) {
        let line = format!(
            "curl --silent http://127.0.0.1:9128/metrics | grep --line-regexp --fixed-strings --quiet 'pgbouncer_follow_{wanted}'"
        );
        self.until(POOLER, &line).await;
    }

    /// What the follower counts now.
    pub async fn metric(&self, counter: &str) -> u64 {
        let line = format!(
            "curl --silent http://127.0.0.1:9128/metrics | sed --quiet 's/^pgbouncer_follow_{counter} //p'"
        );
        self.shell(POOLER, &line).await.parse().unwrap()
    }

    /// Waits until the formation is whole.
    pub async fn until_whole(&self) {
        self.until(MONITOR, "/usr/local/lib/veza/ready").await;
    }

    /// The pooler's process and start: a restart changes them.
    pub async fn pooler(&self) -> String {
        let line = "systemctl show --property MainPID,ExecMainStartTimestampMonotonic pgbouncer";
        self.shell(POOLER, line).await
    }
}

/// The first row of an answer, as text, over the simple protocol.
pub async fn ask(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let asked = within(PATIENCE, client.simple_query(sql)).await;
    let answer = asked.map_err(|_| format!("no answer to {sql}"))?;
    let answer = answer.map_err(|error| match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    })?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let values = row.map(|row| {
        let value = |index| row.get(index).unwrap_or_default().to_owned();
        (0..row.len()).map(value).collect()
    });
    Ok(values.unwrap_or_default())
}
