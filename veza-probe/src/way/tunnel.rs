//! The near end: connections that are made in an instance look like local ones here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::{Frame, Options, Word};

/// How much one side may write before the other reads, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Connections through a program in an instance. Cheap to clone; equal only to its clones.
#[derive(Clone, Debug)]
pub struct Tunnel(Arc<Shared>);

impl PartialEq for Tunnel {
    fn eq(&self, other: &Tunnel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tunnel {}

#[derive(Debug)]
struct Shared {
    /// To the far end.
    out: mpsc::UnboundedSender<Frame>,
    channels: Mutex<Channels>,
    next: AtomicU32,
}

#[derive(Debug, Default)]
struct Channels {
    open: BTreeMap<u32, mpsc::UnboundedSender<News>>,
    /// Nothing can be opened any more.
    gone: bool,
}

/// What the far end says of one connection.
#[derive(Debug)]
enum News {
    Opened(Duration),
    Refused(io::Error),
    Data(Vec<u8>),
}

/// Tells the far end that nobody uses a connection any more, also when opening it was given up.
struct Ending {
    tunnel: Tunnel,
    channel: u32,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let channel = self.channel;
        self.tunnel.channels().open.remove(&channel);
        // A far end that is gone holds nothing open.
        let _ = self.tunnel.0.out.send(Frame::Word(Word::End { channel }));
    }
}

impl Tunnel {
    /// A tunnel whose frames go out through `out`; those that come in are given to [`Tunnel::take`].
    pub(crate) fn new(out: mpsc::UnboundedSender<Frame>) -> Tunnel {
        Tunnel(Arc::new(Shared {
            out,
            channels: Mutex::default(),
            next: AtomicU32::new(0),
        }))
    }

    fn channels(&self) -> MutexGuard<'_, Channels> {
        // Single inserts and removals: a panic leaves nothing half done.
        self.0
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects; returns how long the handshake took at the far end, too.
    ///
    /// # Errors
    /// As the far system said it.
    pub(super) async fn open(
        &self,
        address: SocketAddr,
        options: &Options,
    ) -> io::Result<(DuplexStream, Duration)> {
        let channel = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (sender, mut news) = mpsc::unbounded_channel();
        {
            let mut channels = self.channels();
            if channels.gone {
                return Err(gone());
            }
            channels.open.insert(channel, sender);
        }
        let ending = Ending {
            tunnel: self.clone(),
            channel,
        };
        let word = Word::Open {
            channel,
            address,
            options: options.clone(),
        };
        self.0.out.send(Frame::Word(word)).map_err(|_| gone())?;
        let took = match news.recv().await {
            Some(News::Opened(took)) => took,
            Some(News::Refused(error)) => return Err(error),
            Some(News::Data(_)) | None => return Err(gone()),
        };
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        tokio::spawn(carry(far, news, ending));
        Ok((near, took))
    }

    /// Takes a frame from the far end; one that is not about a connection is given back.
    pub(crate) fn take(&self, frame: Frame) -> Option<Word> {
        let (channel, news) = match frame {
            Frame::Data { channel, bytes } => (channel, News::Data(bytes)),
            Frame::Word(Word::Opened { channel, took_us }) => {
                (channel, News::Opened(Duration::from_micros(took_us)))
            }
            Frame::Word(Word::Refused { channel, os, words }) => {
                let error = match os {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::other(words),
                };
                (channel, News::Refused(error))
            }
            Frame::Word(Word::End { channel }) => {
                self.channels().open.remove(&channel);
                return None;
            }
            Frame::Word(word) => return Some(word),
        };
        if let Some(open) = self.channels().open.get(&channel) {
            // Nobody reads it any more: the end of it is under way.
            let _ = open.send(news);
        }
        None
    }

    /// The far end is gone: every connection ends.
    pub(crate) fn close(&self) {
        let mut channels = self.channels();
        channels.gone = true;
        channels.open.clear();
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the program in the instance is gone",
    )
}

/// Moves the bytes of one connection until either side ends it.
async fn carry(far: DuplexStream, mut news: mpsc::UnboundedReceiver<News>, ending: Ending) {
    let (mut reader, mut writer) = tokio::io::split(far);
    let (out, channel) = (&ending.tunnel.0.out, ending.channel);
    let outward = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            if out.send(Frame::Data { channel, bytes }).is_err() {
                return;
            }
        }
    };
    let inward = async {
        while let Some(News::Data(bytes)) = news.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
}
