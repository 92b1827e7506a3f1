//! How a TCP connection is made: from here, or from inside an instance, by a program of ours that runs
//! there and passes the bytes on.

mod frame;
mod tunnel;
mod far;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::clock::{Clock, micros};

pub(crate) use far::Doors;
pub(crate) use frame::{Frame, Frames, Word};
pub use tunnel::Tunnel;

/// How a TCP connection is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// From this process.
    #[default]
    Here,
    /// From inside an instance.
    Through(Tunnel),
}

/// What a TCP socket is set to before its handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Whether small writes go out at once.
    pub nodelay: bool,
    /// Whether a silent peer is asked for a sign of life; the times are the system's where not set.
    pub keepalive: bool,
    /// After how long a silence.
    pub keepalive_idle: Option<Duration>,
    /// How often.
    pub keepalive_interval: Option<Duration>,
    /// How many times before the connection is given up.
    pub keepalive_count: Option<u32>,
    /// How long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

impl Way {
    /// Connects.
    ///
    /// # Errors
    /// As the system said it, here or there; [`io::ErrorKind::BrokenPipe`] when there is no program in
    /// the instance any more.
    pub async fn dial(&self, address: SocketAddr, options: &Options) -> io::Result<Stream> {
        match self {
            Way::Here => dial(address, options).await.map(Stream::Tcp),
            Way::Through(tunnel) => {
                let (stream, _) = tunnel.open(address, options).await?;
                Ok(Stream::Tunnel(stream))
            }
        }
    }

    /// How long a TCP handshake takes, without the way to the instance, in microseconds.
    ///
    /// # Errors
    /// As [`Way::dial`].
    pub async fn handshake_us(&self, clock: &Clock, address: SocketAddr) -> io::Result<i64> {
        match self {
            Way::Here => {
                let sent = clock.at();
                TcpStream::connect(address).await?;
                Ok(clock.at().us_since(sent))
            }
            Way::Through(tunnel) => {
                let (_, took) = tunnel.open(address, &Options::default()).await?;
                Ok(micros(took))
            }
        }
    }
}

/// Connects from this process.
async fn dial(address: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    sockopt::set_tcp_nodelay(&socket, options.nodelay)?;
    sockopt::set_socket_keepalive(&socket, options.keepalive)?;
    if options.keepalive {
        if let Some(idle) = options.keepalive_idle {
            sockopt::set_tcp_keepidle(&socket, idle)?;
        }
        if let Some(interval) = options.keepalive_interval {
            sockopt::set_tcp_keepintvl(&socket, interval)?;
        }
        if let Some(count) = options.keepalive_count {
            sockopt::set_tcp_keepcnt(&socket, count)?;
        }
    }
    if let Some(timeout) = options.user_timeout {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&socket, milliseconds)?;
    }
    socket.connect(address).await
}

/// A connection that was made one way or the other.
#[derive(Debug)]
pub enum Stream {
    /// From this process.
    Tcp(TcpStream),
    /// From inside an instance; dropped, it is closed there.
    Tunnel(DuplexStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tunnel(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tunnel(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tunnel(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tunnel(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests;
