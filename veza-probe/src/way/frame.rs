//! What the two ends of a tunnel say to each other: words as JSON, and the bytes of connections, each
//! with its length before it. Both ends are the same program, so there is no version to agree on.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Options;
use crate::clock::At;

/// The longest frame, in bytes: far more than is ever sent, so that a stray output is not taken for one.
const LONGEST_BYTES: usize = 16 << 20;

const WORD: u8 = b'w';
const DATA: u8 = b'd';

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// Something said.
    Word(Word),
    /// Bytes of a connection.
    Data {
        /// Which.
        channel: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// What can be said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// The far end is there; and its own file is not any more, or why it is.
    Hello {
        /// Why its file could not be removed.
        left: Option<String>,
    },
    /// Connect.
    Open {
        /// A new number.
        channel: u32,
        /// Where to.
        address: SocketAddr,
        /// How.
        options: Options,
    },
    /// Connected.
    Opened {
        /// The number.
        channel: u32,
        /// How long the handshake took, in microseconds.
        took_us: u64,
    },
    /// Not connected.
    Refused {
        /// The number.
        channel: u32,
        /// The kind of error, as the system numbers it; none for an error that is not the system's.
        os: Option<i32>,
        /// The error.
        words: String,
    },
    /// No more bytes will come from this side; the connection is over.
    End {
        /// The number.
        channel: u32,
    },
    /// What time is it?
    Ping {
        /// A number that comes back.
        number: u64,
    },
    /// The far end's clock.
    Pong {
        /// The number that was sent.
        number: u64,
        /// Its time.
        at: At,
    },
    /// Something that tunnels don't know about.
    Other(Value),
}

impl Frame {
    /// The frame as bytes.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Frame::Word(word) => (WORD, serde_json::to_vec(word).unwrap_or_default()),
            Frame::Data { channel, bytes } => {
                let mut body = channel.to_be_bytes().to_vec();
                body.extend_from_slice(bytes);
                (DATA, body)
            }
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut encoded = vec![kind];
        encoded.extend_from_slice(&length.to_be_bytes());
        encoded.extend(body);
        encoded
    }
}

/// Frames out of pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    /// Takes in some bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// When what came is no frame: the other end is not what it should be.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some((head, rest)) = self.0.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(*length) as usize;
        if length > LONGEST_BYTES || ![WORD, DATA].contains(kind) {
            return Err(odd(&"it is no frame"));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = match (*kind, body.split_first_chunk::<4>()) {
            (WORD, _) => Frame::Word(serde_json::from_slice(body).map_err(|e| odd(&e))?),
            (_, Some((channel, bytes))) => Frame::Data {
                channel: u32::from_be_bytes(*channel),
                bytes: bytes.to_vec(),
            },
            (_, None) => return Err(odd(&"data of no channel")),
        };
        self.0.drain(..5 + length);
        Ok(Some(frame))
    }
}

fn odd(why: &dyn std::fmt::Display) -> io::Error {
    let text = format!("what came from the program in the instance can't be read: {why}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
