//! A service with known outages: lines over TCP, each answered with `ok` unless it is processed
//! during an outage. It decides by its own reading of the run's clock, so its truth is exact.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use veza_probe::clock::{At, Clock};

use super::truth::{Kind, Truth, truth_at};

/// A running service; dropping it closes everything.
pub struct Service {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    clock: Clock,
    truths: Vec<Truth>,
    /// When each client's probes were served.
    served: Vec<Mutex<Vec<At>>>,
}

impl Service {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(clock: Clock, truths: Vec<Truth>, clients: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            clock,
            truths,
            served: (0..clients).map(|_| Mutex::default()).collect(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Ok(Service {
            address,
            state,
            _tasks: tasks,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When it served the probes of one client, in the order of time.
    pub fn served(&self, client: usize) -> Vec<At> {
        let served = self.state.served.get(client);
        let mut moments = served.map_or_else(Vec::new, |served| {
            served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        });
        moments.sort_unstable();
        moments
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// What becomes of a request that is processed at a moment.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Serve,
    Refuse,
    Close,
    Forget,
    HoldUntil(At),
}

fn decide(truths: &[Truth], at: At) -> Decision {
    match truth_at(truths, at) {
        None => Decision::Serve,
        Some(truth) => match truth.kind {
            Kind::Refusing => Decision::Refuse,
            Kind::Closing => Decision::Close,
            Kind::Silent => Decision::Forget,
            Kind::Stalling => Decision::HoldUntil(truth.end),
        },
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    while matches!(read.read_line(&mut line).await, Ok(bytes) if bytes > 0) {
        let answer = match process(&state, &line, &mut read).await {
            Decision::Serve => "ok\n",
            Decision::Refuse => "no\n",
            Decision::Close | Decision::HoldUntil(_) => return,
            Decision::Forget => "",
        };
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        line.clear();
    }
}

/// Decides, after holding the request if the outage demands it. A request whose client went away
/// while it was held is not served: the decision is still to hold it.
async fn process(state: &State, line: &str, read: &mut BufReader<OwnedReadHalf>) -> Decision {
    loop {
        let now = state.clock.at();
        match decide(&state.truths, now) {
            Decision::HoldUntil(end) => tokio::select! {
                () = state.clock.sleep_until(end) => {}
                // Nobody asks twice at once, so this is the end of the connection.
                _ = read.fill_buf() => return Decision::HoldUntil(end),
            },
            Decision::Serve => {
                state.note(line, now);
                return Decision::Serve;
            }
            other => return other,
        }
    }
}

impl State {
    /// Notes a served probe; a line that names no client (`hello`, `poll`) is none.
    fn note(&self, line: &str, at: At) {
        let client = client_of(line).and_then(|client| self.served.get(client));
        if let Some(served) = client {
            served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(at);
        }
    }
}

/// The client that a line names: `2 1374` is probe 1374 of client 2.
fn client_of(line: &str) -> Option<usize> {
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fare_as_the_outage_says() {
        let truth = |start, kind| Truth {
            start: At(start),
            end: At(start + 5),
            kind,
        };
        let truths = [
            truth(10, Kind::Refusing),
            truth(20, Kind::Closing),
            truth(30, Kind::Stalling),
            truth(40, Kind::Silent),
        ];
        let at = |at| decide(&truths, At(at));
        assert_eq!(at(10), Decision::Refuse);
        assert_eq!(at(20), Decision::Close);
        assert_eq!(at(34), Decision::HoldUntil(At(35)));
        assert_eq!(at(44), Decision::Forget);
        for between in [0, 9, 15, 19, 25, 35, 45, 1_000] {
            assert_eq!(at(between), Decision::Serve, "at {between}");
        }
    }

    #[test]
    fn only_probes_name_a_client() {
        assert_eq!(client_of("2 1374\n"), Some(2));
        assert_eq!(client_of("hello\n"), None);
        assert_eq!(client_of("\n"), None);
    }

    #[tokio::test]
    async fn what_was_served_is_noted_for_its_client() {
        let service = Service::start(Clock::start(), Vec::new(), 2).await.unwrap();
        let mut stream = BufReader::new(TcpStream::connect(service.address()).await.unwrap());
        for line in ["hello\n", "1 0\n", "1 1\n"] {
            stream.write_all(line.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_line(&mut answer).await.unwrap();
            assert_eq!(answer, "ok\n");
        }
        assert_eq!((service.served(0).len(), service.served(1).len()), (0, 2));
    }
}
