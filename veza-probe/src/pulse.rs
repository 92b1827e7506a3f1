//! Whether a server speaks its own protocol: a question that it answers in whatever state it is, over
//! a connection of its own. A completed TCP handshake is no answer: a frozen host completes it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::clock::within;
use crate::incus::{Incus, Status};
use crate::instance::InstanceName;
use crate::way::{Options, Way};

/// A protocol whose servers can be asked for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// PostgreSQL: the request for TLS, which a postmaster answers with one byte whatever state its
    /// database is in (`S`, `N`, or `E` for an error; protocol 3.0,
    /// <https://www.postgresql.org/docs/17/protocol-flow.html#PROTOCOL-FLOW-SSL>).
    Postgres,
    /// Redis and its sentinels: `PING`, which is answered with a line whatever state the server is in: `+PONG`,
    /// or an error such as `-NOAUTH` or `-LOADING` (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
    Redis,
    /// MinIO: `GET /minio/health/live`, which a node answers without a login, whatever the state of its cluster; over TLS
    /// the plain request is answered, too, with status 400
    /// (<https://github.com/minio/minio/blob/RELEASE.2025-09-07T16-13-09Z/docs/metrics/healthcheck/README.md>).
    Minio,
}

impl Protocol {
    /// What is sent; the first byte of the answer is the sign of life.
    fn question(self) -> &'static [u8] {
        match self {
            Protocol::Postgres => &POSTGRES,
            Protocol::Redis => b"PING\r\n",
            Protocol::Minio => {
                b"GET /minio/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            }
        }
    }

    /// The answer for people.
    fn told(self, byte: char) -> String {
        let shown = byte.escape_default();
        match self {
            Protocol::Postgres => format!("'{shown}' to the request for TLS"),
            Protocol::Redis => format!("'{shown}' to PING"),
            Protocol::Minio => format!("'{shown}' to the question for its health"),
        }
    }
}

/// A server that can be asked. Plain data: whoever heals can ask, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pulse {
    /// Its name, for people.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The instance to ask from, where whoever heals may not reach the server's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<InstanceName>,
}

impl fmt::Display for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

impl Pulse {
    /// Asks once; returns what came back, for people.
    ///
    /// # Errors
    /// What happened instead of an answer within `limit`.
    pub async fn ask(&self, way: &Way, limit: Duration) -> Result<String, String> {
        let asked = within(
            limit,
            first_byte(way, self.address, self.protocol.question()),
        )
        .await;
        let answered = asked.map_err(|elapsed| elapsed.to_string())?;
        let byte = answered.map_err(|error| error.to_string())?;
        Ok(self.protocol.told(char::from(byte)))
    }

    /// Asks once as whoever heals can: from here, or with bash from inside the instance that was named.
    ///
    /// # Errors
    /// As [`Pulse::ask`].
    pub async fn ask_to_heal(&self, incus: &Incus, limit: Duration) -> Result<String, String> {
        let Some(instance) = &self.from else {
            return self.ask(&Way::Here, limit).await;
        };
        // A command would wait in an instance that is frozen, and a stopped one takes none.
        let found = incus.instance(instance).await.map_err(|e| e.to_string())?;
        if found.status != Status::Running {
            return Err(format!(
                "{instance} is {}: nothing can be asked from there",
                found.status
            ));
        }
        let (ip, port) = (
            self.address.ip().to_string(),
            self.address.port().to_string(),
        );
        let octal = |byte: &u8| format!("\\{byte:03o}");
        let question: String = self.protocol.question().iter().map(octal).collect();
        let script =
            format!("exec 3<>/dev/tcp/$0/$1 && printf '{question}' >&3 && head --bytes=1 <&3");
        let argv = ["bash", "-c", &script, &ip, &port];
        let done = incus.exec(instance, &argv, limit).await;
        let done = done.map_err(|error| error.to_string())?;
        match done.stdout.chars().next() {
            Some(byte) => Ok(format!(
                "{}, asked from {instance}",
                self.protocol.told(byte)
            )),
            None if [124, 137].contains(&done.code) => {
                let limit_s = limit.as_secs_f64();
                Err(format!(
                    "no answer within {limit_s:.1} s, asked from {instance}"
                ))
            }
            None => Err(format!("asked from {instance}: {}", done.stderr.trim())),
        }
    }
}

/// The request for TLS: length 8, then the code 80877103.
const POSTGRES: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Sends a question and waits for the first byte of an answer.
async fn first_byte(way: &Way, address: SocketAddr, question: &[u8]) -> std::io::Result<u8> {
    let mut stream = way.dial(address, &Options::default()).await?;
    stream.write_all(question).await?;
    stream.read_u8().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn pulse(address: SocketAddr) -> Pulse {
        Pulse {
            name: "pg".into(),
            address,
            protocol: Protocol::Postgres,
            from: None,
        }
    }

    #[tokio::test]
    async fn an_answer_is_an_answer_and_a_handshake_is_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel completes the handshake; nobody reads.
        let silent = pulse(address).ask(&Way::Here, LIMIT).await;
        assert_eq!(silent, Err("no answer within 0.2 s".to_owned()));
        let server = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 8];
                if stream.read_exact(&mut asked).await.is_ok() {
                    stream.write_all(b"N").await.unwrap();
                }
            }
        };
        let asked = pulse(address);
        let answer = tokio::select! {
            () = server => None,
            answer = asked.ask(&Way::Here, LIMIT) => Some(answer),
        };
        assert_eq!(answer, Some(Ok("'N' to the request for TLS".to_owned())));
    }

    #[tokio::test]
    async fn redis_is_asked_with_a_ping_and_an_error_is_an_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut asked = pulse(listener.local_addr().unwrap());
        asked.protocol = Protocol::Redis;
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 6];
            stream.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"PING\r\n");
            stream.write_all(b"-NOAUTH\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked.ask(&Way::Here, LIMIT), server);
        assert_eq!(answer, Ok("'-' to PING".to_owned()));
    }

    #[tokio::test]
    async fn minio_is_asked_over_http_and_an_error_is_an_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut asked = pulse(listener.local_addr().unwrap());
        asked.protocol = Protocol::Minio;
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 26];
            stream.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"GET /minio/health/live HTT");
            stream.write_all(b"HTTP/1.1 503 X\r\n\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked.ask(&Way::Here, LIMIT), server);
        assert_eq!(answer, Ok("'H' to the question for its health".to_owned()));
    }

    #[tokio::test]
    async fn a_closed_port_is_told_as_it_is() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = pulse(address).ask(&Way::Here, LIMIT).await.unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }
}
