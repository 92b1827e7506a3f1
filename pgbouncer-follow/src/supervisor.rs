//! What systemd is told: ready, in a word how things are, and that we are still alive.
//!
//! The protocol is one datagram of `NAME=VALUE` lines to the socket that `NOTIFY_SOCKET` names
//! (sd_notify(3)).

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to systemd, if it started us.
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    last: String,
}

impl Supervisor {
    /// From the environment; `lookup` is `std::env::var_os` but in tests.
    pub fn new(lookup: impl Fn(&str) -> Option<OsString>) -> Supervisor {
        let address = lookup("NOTIFY_SOCKET").and_then(|name| {
            match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            }
            .ok()
        });
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect_addr(&address).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        });
        Supervisor {
            socket,
            last: String::new(),
        }
    }

    /// A round was made: we are alive, and this is how things are.
    pub fn round(&mut self, status: &str) {
        let status = status.replace('\n', " ");
        let mut text = "READY=1\nWATCHDOG=1\n".to_owned();
        if status != self.last {
            text.push_str(&format!("STATUS={status}\n"));
        }
        self.send(&text);
        self.last = status;
    }

    /// The end is near, and meant.
    pub fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A manager that is busy gets the next one.
            let _ = socket.send(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_that_we_are_ready_alive_and_how_it_is() {
        let path = std::env::temp_dir().join(format!("follow-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let systemd = UnixDatagram::bind(&path).unwrap();
        let mut us = Supervisor::new(|_| Some(path.clone().into()));
        let heard = || {
            let mut bytes = [0; 200];
            let length = systemd.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        us.round("a\nb");
        assert_eq!(heard(), "READY=1\nWATCHDOG=1\nSTATUS=a b\n");
        us.round("a\nb");
        assert_eq!(heard(), "READY=1\nWATCHDOG=1\n");
        us.stopping();
        assert_eq!(heard(), "STOPPING=1\n");
        std::fs::remove_file(&path).unwrap();
        us.round("nobody listens");
        Supervisor::new(|_| None).round("nobody there");
    }
}
