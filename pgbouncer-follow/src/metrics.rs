//! How things are, for Prometheus: kept by the follower, told over HTTP to whoever asks.
//!
//! An endpoint and not a text file: a file would go on telling what was true when the follower died.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use veza_probe::clock::within;

use crate::formation::Node;

/// The longest that a scrape may take, and the longest request that is read.
const LIMIT: Duration = Duration::from_secs(2);
const REQUEST_BYTES: usize = 8192;

/// What is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// Whether all is as it should be: the pooler goes to the node that the monitor wants and that takes writes.
    pub following: bool,
    /// Whether the monitor answered in the last round.
    pub monitor_up: bool,
    /// How many nodes the monitor wants to take writes.
    pub wanted: usize,
    /// Whether the chosen node said in the last round that it takes writes.
    pub takes_writes: bool,
    /// Whether the file could be written when it last had to be.
    pub file_written: bool,
    /// Whether the pooler's console answered when it was last asked.
    pub pooler_up: bool,
    /// Where the pooler was last seen to go, or sent.
    pub primary: Option<Node>,
    /// Rounds since the start.
    pub rounds: u64,
    /// How often the pooler was sent to another node.
    pub changes: u64,
    /// Clients that were dropped because they were in the middle of something at the old node.
    pub dropped: u64,
    /// When the last round ended, in seconds since 1970.
    pub round_at_s: i64,
    /// When the pooler was last sent to another node.
    pub changed_at_s: Option<i64>,
    /// From the first round in which the monitor wanted that node to the moment when the pooler went there.
    pub change_took_s: Option<f64>,
}

/// The values, shared with the endpoint.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Values>>);

impl Metrics {
    /// Changes the values.
    pub fn update(&self, change: impl FnOnce(&mut Values)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn text(&self) -> String {
        text(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers every request, until the process ends.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn serve(&self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listening on {address} for metrics"))?;
        let metrics = self.clone();
        tokio::spawn(async move {
            loop {
                // Too many open files, or a peer that is gone already: the next one may be fine.
                let Ok((stream, _)) = listener.accept().await else {
                    veza_probe::clock::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let metrics = metrics.clone();
                tokio::spawn(async move { within(LIMIT, answer(stream, &metrics)).await });
            }
        });
        Ok(())
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = if request.starts_with(b"GET /metrics") {
        ("200 OK", metrics.text())
    } else {
        ("404 Not Found", "GET /metrics\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// A series without labels: name, kind, what it says, and its value where there is one.
type Series = (&'static str, &'static str, &'static str, Option<f64>);

/// How things are.
fn state(values: &Values) -> [Series; 6] {
    let yes = |value: bool| Some(f64::from(u8::from(value)));
    let gauge = "gauge";
    [
        (
            "following",
            gauge,
            "Whether the pooler goes to the node that the monitor wants and that takes writes.",
            yes(values.following),
        ),
        (
            "monitor_up",
            gauge,
            "Whether the monitor answered in the last round.",
            yes(values.monitor_up),
        ),
        (
            "wanted_primaries",
            gauge,
            "How many nodes the monitor wants to take writes; 1 unless a failover is under way.",
            Some(values.wanted as f64),
        ),
        (
            "primary_takes_writes",
            gauge,
            "Whether the chosen node said that it takes writes.",
            yes(values.takes_writes),
        ),
        (
            "file_written",
            gauge,
            "Whether the file could be written when it last had to be.",
            yes(values.file_written),
        ),
        (
            "pooler_up",
            gauge,
            "Whether the pooler's console answered when it was last asked.",
            yes(values.pooler_up),
        ),
    ]
}

/// What was done, and when.
fn history(values: &Values) -> [Series; 6] {
    let count = |value: u64| Some(value as f64);
    let (gauge, counter) = ("gauge", "counter");
    [
        (
            "last_round_timestamp_seconds",
            gauge,
            "When the last round ended.",
            Some(values.round_at_s as f64),
        ),
        (
            "last_change_timestamp_seconds",
            gauge,
            "When the pooler was last sent to another node.",
            values.changed_at_s.map(|at_s| at_s as f64),
        ),
        (
            "last_change_seconds",
            gauge,
            "From the first round in which the monitor wanted that node until the pooler went there.",
            values.change_took_s,
        ),
        (
            "rounds_total",
            counter,
            "Rounds since the start.",
            count(values.rounds),
        ),
        (
            "changes_total",
            counter,
            "How often the pooler was sent to another node.",
            count(values.changes),
        ),
        (
            "clients_dropped_total",
            counter,
            "Clients dropped because they were in the middle of something at the old node.",
            count(values.dropped),
        ),
    ]
}

fn text(values: &Values) -> String {
    let mut text = String::new();
    let mut write = |name: &str, kind: &str, help: &str, labels: &str, value: f64| {
        let name = format!("pgbouncer_follow_{name}");
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}");
        let _ = writeln!(text, "{head}\n{name}{labels} {value}");
    };
    for (name, kind, help, value) in state(values).into_iter().chain(history(values)) {
        if let Some(value) = value {
            write(name, kind, help, "", value);
        }
    }
    if let Some(node) = &values.primary {
        let escape = |text: &str| {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            text.replace('\n', "\\n")
        };
        let labels = format!(
            "{{node=\"{}\",host=\"{}\",port=\"{}\"}}",
            escape(&node.name),
            escape(&node.host),
            node.port
        );
        write(
            "primary_info",
            "gauge",
            "Where the pooler goes.",
            &labels,
            1.0,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn whoever_asks_is_told() {
        let metrics = Metrics::default();
        metrics.update(|values| {
            values.following = true;
            values.changes = 3;
            values.primary = Some(Node {
                name: "a\"b".to_owned(),
                host: "h".to_owned(),
                port: 5432,
                reported: String::new(),
                wanted: String::new(),
            });
        });
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        metrics.serve(address).await.unwrap();
        let answer = get(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for line in [
            "pgbouncer_follow_following 1",
            "pgbouncer_follow_monitor_up 0",
            "pgbouncer_follow_changes_total 3",
            "pgbouncer_follow_primary_info{node=\"a\\\"b\",host=\"h\",port=\"5432\"} 1",
        ] {
            assert!(
                answer.lines().any(|found| found == line),
                "{line}: {answer}"
            );
        }
        assert!(!answer.contains("last_change"), "{answer}");
        let answer = get(address, "GET / HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(metrics.serve(address).await.is_err());
    }
}
