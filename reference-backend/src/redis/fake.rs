//! A server that speaks as much of Redis' protocol as a test needs: what it answers is the test's word.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::config::Address;

pub(super) const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";

/// A server on loopback. It and its connections end with it.
pub(super) struct Fake {
    pub(super) address: Address,
    accepting: JoinHandle<()>,
}

impl Fake {
    /// `answer` gets a command's words and gives the answer as it goes over the wire; none hangs.
    pub(super) async fn start(
        answer: impl Fn(&[String]) -> Option<String> + Send + Sync + 'static,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(answer);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                connections.spawn(async move { serve(stream, &*answer).await });
            }
        });
        Fake {
            address: Address {
                host: "127.0.0.1".to_owned(),
                port,
            },
            accepting,
        }
    }

    /// Ends it and its connections.
    pub(super) async fn stop(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: TcpStream,
    answer: &(impl Fn(&[String]) -> Option<String> + Sync),
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut words = Vec::new();
        for _ in 0..length(&mut stream, '*').await? {
            let mut word = vec![0; length(&mut stream, '$').await? + 2];
            stream.read_exact(&mut word).await.ok()?;
            word.truncate(word.len() - 2);
            words.push(String::from_utf8(word).ok()?);
        }
        match answer(&words) {
            Some(text) => stream.write_all(text.as_bytes()).await.ok()?,
            None => std::future::pending().await,
        }
    }
}

async fn length(stream: &mut BufReader<TcpStream>, mark: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}

/// A bulk string.
pub(super) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Knows nothing and is content with everything, as a master.
pub(super) fn master() -> impl Fn(&[String]) -> Option<String> + Send + Sync + 'static {
    |words| {
        Some(match words.first().map(String::as_str) {
            Some("ROLE") => format!("*3\r\n{}:0\r\n*0\r\n", bulk("master")),
            Some("EVALSHA") => "*2\r\n:1\r\n:1000\r\n".to_owned(),
            Some("EXISTS" | "PUBLISH" | "DEL") => ":0\r\n".to_owned(),
            Some("GET") => "$-1\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        })
    }
}

/// A sentinel that knows one master, on loopback, called veza.
pub(super) fn sentinel(
    port: u16,
    epoch: u64,
) -> impl Fn(&[String]) -> Option<String> + Send + Sync + 'static {
    move |words| {
        Some(match words.get(2).map(String::as_str) {
            Some("veza") => {
                let (port, epoch) = (port.to_string(), epoch.to_string());
                let fields = ["ip", "127.0.0.1", "port", &port, "config-epoch", &epoch];
                format!("*6\r\n{}", fields.map(bulk).concat())
            }
            _ => "-ERR No such master with that name\r\n".to_owned(),
        })
    }
}

/// Never answers.
pub(super) fn silent() -> impl Fn(&[String]) -> Option<String> + Send + Sync + 'static {
    |_| None
}
