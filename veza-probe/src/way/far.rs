//! The far end: makes the connections that the near end asks for, and passes their bytes on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::{Frame, Options, Word, dial};
use crate::clock::Clock;

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 32 << 10;

/// The connections of the far end. Dropping it closes them.
pub(crate) struct Doors {
    clock: Clock,
    out: mpsc::UnboundedSender<Frame>,
    open: BTreeMap<u32, Door>,
    tasks: JoinSet<()>,
}

struct Door {
    input: mpsc::UnboundedSender<Vec<u8>>,
    task: AbortHandle,
}

impl Doors {
    /// No connection yet; frames go out through `out`.
    pub(crate) fn new(clock: Clock, out: mpsc::UnboundedSender<Frame>) -> Doors {
        Doors {
            clock,
            out,
            open: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Takes a frame from the near end; one that is not about a connection is given back.
    pub(crate) fn take(&mut self, frame: Frame) -> Option<Word> {
        match frame {
            Frame::Word(Word::Open {
                channel,
                address,
                options,
            }) => self.connect(channel, address, options),
            Frame::Word(Word::End { channel }) => {
                if let Some(door) = self.open.remove(&channel) {
                    door.task.abort();
                }
            }
            Frame::Data { channel, bytes } => {
                if let Some(door) = self.open.get(&channel) {
                    // A connection that has ended takes nothing.
                    let _ = door.input.send(bytes);
                }
            }
            Frame::Word(word) => return Some(word),
        }
        while self.tasks.try_join_next().is_some() {}
        None
    }

    fn connect(&mut self, channel: u32, address: SocketAddr, options: Options) {
        let (input, inputs) = mpsc::unbounded_channel();
        let (clock, out) = (self.clock, self.out.clone());
        let task = async move {
            let said = |word: Word| out.send(Frame::Word(word));
            let sent = clock.at();
            match dial(address, &options).await {
                Ok(stream) => {
                    let took_us = u64::try_from(clock.at().us_since(sent)).unwrap_or(0);
                    // Nobody is left to hear it: then all of this ends, too.
                    let _ = said(Word::Opened { channel, took_us });
                    carry(channel, stream, inputs, &out).await;
                    let _ = said(Word::End { channel });
                }
                Err(error) => {
                    let (os, words) = (error.raw_os_error(), error.to_string());
                    let _ = said(Word::Refused { channel, os, words });
                }
            }
        };
        let task = self.tasks.spawn(task);
        self.open.insert(channel, Door { input, task });
    }
}

async fn carry(
    channel: u32,
    mut stream: TcpStream,
    mut inputs: mpsc::UnboundedReceiver<Vec<u8>>,
    out: &mpsc::UnboundedSender<Frame>,
) {
    let (mut reader, mut writer) = stream.split();
    let outward = async {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            if out.send(Frame::Data { channel, bytes }).is_err() {
                return;
            }
        }
    };
    let inward = async {
        while let Some(bytes) = inputs.recv().await {
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
