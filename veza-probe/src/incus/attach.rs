//! A command in an instance with its input and output as streams, over the websockets of an exec
//! operation.
//!
//! Facts of the protocol (a secret per stream, output that ends with an empty text message or a close) are
//! those of Incus' own client, seen with Incus 6.0. When the connection breaks, Incus ends the command.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use reqwest::header::{CONNECTION, UPGRADE};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Error, Incus, REQUEST_LIMIT, Request};
use crate::clock;
use crate::instance::InstanceName;

/// How much of the standard error is kept, in bytes: enough for the words of a program that can't start.
const ERRORS_BYTES: usize = 4096;

/// A command that runs in an instance. Dropping it breaks the connection, and Incus ends the command.
#[derive(Debug)]
pub struct Attached {
    /// Its standard input.
    pub input: mpsc::UnboundedSender<Vec<u8>>,
    /// Its standard output; ends with it.
    pub output: mpsc::UnboundedReceiver<Vec<u8>>,
    errors: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

type Socket = WebSocketStream<reqwest::Upgraded>;

impl Attached {
    /// Streams without a command, for tests of what stands on both ends.
    #[cfg(test)]
    pub(crate) fn of(
        input: mpsc::UnboundedSender<Vec<u8>>,
        output: mpsc::UnboundedReceiver<Vec<u8>>,
    ) -> Attached {
        Attached {
            input,
            output,
            errors: Arc::default(),
            _tasks: JoinSet::new(),
        }
    }

    /// What it wrote to its standard error so far, as one line.
    pub fn errors(&self) -> String {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&errors);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Incus {
    /// Starts a command in an instance as root, joined to this process by streams.
    ///
    /// # Errors
    /// As every request. A command that can't be started is no error here: its output ends.
    pub async fn attach(&self, name: &InstanceName, argv: &[&str]) -> Result<Attached, Error> {
        let body = json!({
            "command": argv,
            "record-output": false,
            "wait-for-websocket": true,
            "interactive": false,
            "environment": { "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
        });
        let path = format!("/1.0/instances/{name}/exec");
        let request = Request::new(Method::POST, path).body(&body);
        let (envelope, _) = self.send(&request).await?;
        let operation = envelope.get("operation").and_then(Value::as_str);
        let operation = operation.unwrap_or_default();
        let mut sockets = Vec::new();
        // The command is started when all are there.
        for stream in ["control", "0", "1", "2"] {
            let secret = envelope.pointer(&format!("/metadata/metadata/fds/{stream}"));
            let secret = secret.and_then(Value::as_str).unwrap_or_default();
            sockets.push(self.socket(operation, secret).await?);
        }
        let (input, inputs) = mpsc::unbounded_channel();
        let (outputs, output) = mpsc::unbounded_channel();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&errors);
        let keep = move |bytes: Vec<u8>| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let room = ERRORS_BYTES.saturating_sub(kept.len());
            kept.extend(bytes.into_iter().take(room));
            true
        };
        let mut tasks = JoinSet::new();
        let mut sockets = sockets.into_iter();
        if let (Some(control), Some(stdin), Some(stdout), Some(stderr)) = (
            sockets.next(),
            sockets.next(),
            sockets.next(),
            sockets.next(),
        ) {
            tasks.spawn(read_all(control, |_| true));
            tasks.spawn(write_all(stdin, inputs));
            tasks.spawn(read_all(stdout, move |bytes| outputs.send(bytes).is_ok()));
            tasks.spawn(read_all(stderr, keep));
        }
        Ok(Attached {
            input,
            output,
            errors,
            _tasks: tasks,
        })
    }

    /// One stream of an operation.
    async fn socket(&self, operation: &str, secret: &str) -> Result<Socket, Error> {
        let asked = format!("GET {operation}/websocket");
        let url = format!("{}{operation}/websocket", self.base);
        let request = self
            .http
            .get(url)
            .query(&[("secret", secret), ("project", self.project())])
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key());
        let answered = clock::within(REQUEST_LIMIT, request.send()).await;
        let response = match answered {
            Ok(Ok(response)) => response,
            // Without the URL: it holds the secret.
            Ok(Err(error)) => return Err(Error::unreachable(self, &asked, &error.without_url())),
            Err(_) => {
                let limit = REQUEST_LIMIT;
                return Err(Error::Limit { asked, limit });
            }
        };
        let upgraded = response.upgrade().await;
        let upgraded = upgraded.map_err(|e| Error::protocol(&asked, &e.without_url()))?;
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)
    }
}

/// Takes what a stream brings until it ends or nobody wants more. Reading also answers Incus' pings.
async fn read_all(mut socket: Socket, mut take: impl FnMut(Vec<u8>) -> bool) {
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => {
                if !take(bytes.into()) {
                    return;
                }
            }
            // The end of the output.
            Message::Text(_) | Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

async fn write_all(socket: Socket, mut inputs: mpsc::UnboundedReceiver<Vec<u8>>) {
    let (mut sink, mut stream) = socket.split();
    loop {
        tokio::select! {
            bytes = inputs.recv() => {
                let Some(bytes) = bytes else { return };
                if sink.send(Message::Binary(bytes.into())).await.is_err() {
                    return;
                }
            }
            message = stream.next() => {
                if !matches!(message, Some(Ok(_))) {
                    return;
                }
            }
        }
    }
}
