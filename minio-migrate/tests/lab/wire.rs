//! What networks do: a proxy between the program and a store that cuts, delays, refuses and flips.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use veza_probe::clock;

/// What it does to every so many pieces of what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// Both directions end.
    Cut,
    /// It stands still for a while.
    Delay,
    /// A bit is another one.
    Flip,
    /// A connection is answered 503 before anybody hears of it.
    Busy,
}

/// A proxy in front of one endpoint.
pub struct Wire {
    /// Its own URL.
    pub url: String,
    played: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[derive(Clone)]
struct Way {
    to: SocketAddr,
    trick: Trick,
    every: usize,
    passed: Arc<AtomicUsize>,
    played: Arc<AtomicUsize>,
}

impl Wire {
    /// Plays a trick on each so manieth piece on the way to `http://HOST:PORT`.
    pub async fn start(endpoint: &str, trick: Trick, every: usize) -> Wire {
        let (_, to) = endpoint.split_once("://").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let played = Arc::new(AtomicUsize::new(0));
        let way = Way {
            to: to.parse().unwrap(),
            trick,
            every,
            passed: Arc::default(),
            played: Arc::clone(&played),
        };
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(way.clone().carry(client));
            }
        });
        Wire {
            url,
            played,
            server,
        }
    }

    /// How often it played its trick.
    pub fn played(&self) -> usize {
        self.played.load(Ordering::Relaxed)
    }
}

impl Way {
    fn turn(&self) -> bool {
        let is_turn = self.passed.fetch_add(1, Ordering::Relaxed) % self.every == self.every - 1;
        self.played
            .fetch_add(usize::from(is_turn), Ordering::Relaxed);
        is_turn
    }

    async fn carry(self, mut client: TcpStream) {
        if self.trick == Trick::Busy && self.turn() {
            let mut some = [0; 4096];
            // Whoever went away needs no answer.
            let _ = client.read(&mut some).await;
            let _ = client.write_all(BUSY).await;
            return;
        }
        let Ok(server) = TcpStream::connect(self.to).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // One direction that is cut cuts the other.
        tokio::select! {
            () = self.pump(from_client, to_server) => {}
            () = self.pump(from_server, to_client) => {}
        }
    }

    async fn pump(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(length) = from.read(&mut piece).await {
            let Some(bytes) = piece.get_mut(..length).filter(|bytes| !bytes.is_empty()) else {
                return;
            };
            if self.trick != Trick::Busy && self.turn() {
                match self.trick {
                    Trick::Cut => return,
                    Trick::Delay => clock::sleep(Duration::from_millis(700)).await,
                    Trick::Flip => {
                        if let Some(last) = bytes.last_mut() {
                            *last ^= 1;
                        }
                    }
                    Trick::Busy => {}
                }
            }
            if to.write_all(bytes).await.is_err() {
                return;
            }
        }
    }
}
