//! The two clients of a service: the one that the prober drives, with standing connections, and the
//! poll loop of a shell script, with a fresh connection every second.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use veza_probe::clock::{At, Clock, within};
use veza_probe::prober::{ActError, Host};

/// How often the poll loop asks, and how long it waits for an answer.
const POLL_EVERY: Duration = Duration::from_secs(1);
const POLL_LIMIT: Duration = Duration::from_secs(1);

/// The service, as the prober's host.
pub struct Client {
    /// Which client of the service this is.
    pub number: usize,
    /// Where the service listens.
    pub address: SocketAddr,
}

impl Host for Client {
    type Connection = BufReader<TcpStream>;

    fn name(&self) -> &str {
        "service"
    }

    async fn connect(&self) -> Result<Self::Connection, String> {
        let connected = async {
            let mut stream = open(self.address).await?;
            let answer = ask(&mut stream, "hello\n").await?;
            io::Result::Ok((stream, answer))
        };
        match connected.await {
            Ok((stream, answer)) if answer == "ok\n" => Ok(stream),
            Ok((_, answer)) => Err(format!("it said {answer:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn act(&self, connection: &mut Self::Connection, number: u64) -> Result<(), ActError> {
        let line = format!("{} {number}\n", self.number);
        match ask(connection, &line).await {
            Ok(answer) if answer == "ok\n" => Ok(()),
            Ok(answer) if answer == "no\n" => Err(ActError::Refused("no".to_owned())),
            Ok(answer) => Err(ActError::Broken(format!("it said {answer:?}"))),
            Err(error) => Err(ActError::Broken(error.to_string())),
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// The answer to a line; an empty one when the connection was closed instead.
async fn ask(stream: &mut BufReader<TcpStream>, line: &str) -> io::Result<String> {
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok(answer)
}

/// One turn of the poll loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// When it asked.
    pub start: At,
    /// When it had an answer or gave up.
    pub end: At,
    /// Whether the answer was `ok`.
    pub good: bool,
}

/// Asks every second on a fresh connection until a moment; after a turn that took the whole second
/// the next one comes at once.
pub async fn poll(clock: Clock, address: SocketAddr, first: At, until: At) -> Vec<Poll> {
    let mut polls = Vec::new();
    let mut due = first;
    while due <= until {
        clock.sleep_until(due).await;
        let start = clock.at();
        let asked = async { ask(&mut open(address).await?, "poll\n").await };
        let answer = within(POLL_LIMIT, asked).await;
        polls.push(Poll {
            start,
            end: clock.at(),
            good: matches!(answer, Ok(Ok(answer)) if answer == "ok\n"),
        });
        due = due.plus(POLL_EVERY);
    }
    polls
}

#[cfg(test)]
mod tests {
    use super::super::service::Service;
    use super::super::truth::{Kind, Truth};
    use super::*;

    async fn during(kind: Kind) -> Service {
        let truth = Truth {
            start: At(0),
            end: At(i64::MAX),
            kind,
        };
        Service::start(Clock::start(), vec![truth], 1)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_service_that_is_up_is_connected_to_and_acts() {
        let service = Service::start(Clock::start(), Vec::new(), 1).await.unwrap();
        let client = Client {
            number: 0,
            address: service.address(),
        };
        let mut connection = client.connect().await.unwrap();
        assert_eq!(client.act(&mut connection, 7).await, Ok(()));
        assert_eq!(service.served(0).len(), 1);
    }

    #[tokio::test]
    async fn a_refusal_and_a_break_are_told_apart() {
        for (kind, expected) in [
            (Kind::Refusing, Err(ActError::Refused("no".to_owned()))),
            (
                Kind::Closing,
                Err(ActError::Broken("it said \"\"".to_owned())),
            ),
        ] {
            let service = during(kind).await;
            let client = Client {
                number: 0,
                address: service.address(),
            };
            assert!(client.connect().await.is_err(), "{kind:?}");
            let mut connection = open(service.address()).await.unwrap();
            assert_eq!(client.act(&mut connection, 0).await, expected);
            assert_eq!(service.served(0), []);
        }
    }
}
