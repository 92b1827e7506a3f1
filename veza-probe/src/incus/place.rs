//! Where an Incus is: the socket of this host, or a remote of the user's own client configuration.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where an Incus is. Plain data: with it a watchdog and `--recover` reach the server of the drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The unix socket of an Incus on this host.
    Socket(PathBuf),
    /// An `https` remote of Incus' own client.
    Remote {
        /// Its name there.
        name: String,
        /// The folder of the client's configuration.
        folder: PathBuf,
    },
}

/// The client's configuration can't be anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "neither INCUS_CONF nor HOME is set: where is the configuration of Incus' client, which \
     knows the remotes? Name its folder in INCUS_CONF"
)]
pub struct NoFolder;

impl Place {
    /// The socket of this host, as [`socket_path`] finds it.
    pub fn local(lookup: impl Fn(&str) -> Option<OsString>) -> Place {
        Place::Socket(socket_path(lookup))
    }

    /// A remote of the client configuration that Incus' own client would use: in `INCUS_CONF`, else in
    /// `~/.config/incus`. Nothing is read yet. `lookup` is `std::env::var_os` but in tests.
    ///
    /// # Errors
    /// [`NoFolder`].
    pub fn remote(
        name: &str,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Place, NoFolder> {
        let set = |name: &str| lookup(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let own = set("INCUS_CONF").or_else(|| Some(set("HOME")?.join(".config/incus")));
        let folder = own.ok_or(NoFolder)?;
        Ok(Place::Remote {
            name: name.to_owned(),
            // A record may be read from another working folder.
            folder: std::path::absolute(&folder).unwrap_or(folder),
        })
    }

    /// The socket; none of a remote.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Place::Socket(path) => Some(path),
            Place::Remote { .. } => None,
        }
    }

    /// Whether it is on this host. A socket that is forwarded from elsewhere can't be told from one
    /// that is not.
    pub fn is_local(&self) -> bool {
        self.socket().is_some()
    }

    /// Whether both are surely the same server: sockets are all of this host's one Incus.
    pub fn is_same_server(&self, other: &Place) -> bool {
        (self.is_local() && other.is_local()) || self == other
    }

    /// The flag that a check needs to come here, with a space before it; nothing for this host.
    pub fn flag(&self) -> String {
        match self {
            Place::Socket(_) => String::new(),
            Place::Remote { name, .. } => format!(" --remote {name}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(path) => write!(f, "{}", path.display()),
            Place::Remote { name, .. } => write!(f, "the remote {name}"),
        }
    }
}

impl From<&Path> for Place {
    fn from(socket: &Path) -> Place {
        Place::Socket(socket.to_owned())
    }
}

impl From<&PathBuf> for Place {
    fn from(socket: &PathBuf) -> Place {
        Place::Socket(socket.clone())
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Place {
        place.clone()
    }
}

/// The socket that Incus' own client would use: `INCUS_SOCKET`, else `unix.socket` in `INCUS_DIR`,
/// else the default folder. `lookup` is `std::env::var_os` but in tests.
pub fn socket_path(lookup: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name: &str| lookup(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(socket) = set("INCUS_SOCKET") {
        return socket;
    }
    if let Some(folder) = set("INCUS_DIR") {
        return folder.join("unix.socket");
    }
    let user = Path::new("/run/incus/unix.socket");
    if user.exists() {
        user.into()
    } else {
        "/var/lib/incus/unix.socket".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name: &str| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.into())
        }
    }

    #[test]
    fn the_socket_is_found_as_incus_finds_it() {
        assert_eq!(
            socket_path(env(&[("INCUS_SOCKET", "/a"), ("INCUS_DIR", "/b")])),
            Path::new("/a")
        );
        assert_eq!(
            socket_path(env(&[("INCUS_DIR", "/b")])),
            Path::new("/b/unix.socket")
        );
        assert!(socket_path(env(&[("INCUS_SOCKET", "")])).ends_with("incus/unix.socket"));
    }

    #[test]
    fn the_configuration_is_found_as_incus_finds_it() {
        let folder =
            |pairs: &'static [(&str, &str)]| match Place::remote("lab", env(pairs)).unwrap() {
                Place::Remote { folder, .. } => folder,
                Place::Socket(_) => panic!("a remote"),
            };
        assert_eq!(
            folder(&[("INCUS_CONF", "/a"), ("HOME", "/h")]),
            Path::new("/a")
        );
        assert_eq!(
            folder(&[("INCUS_CONF", ""), ("HOME", "/h")]),
            Path::new("/h/.config/incus")
        );
        assert!(folder(&[("INCUS_CONF", "own")]).is_absolute());
        assert_eq!(Place::remote("lab", env(&[])), Err(NoFolder));
    }

    #[test]
    fn a_place_survives_a_record_and_two_servers_are_two() {
        let socket = Place::from(Path::new("/a"));
        let remote = |name: &str| Place::Remote {
            name: name.to_owned(),
            folder: "/c".into(),
        };
        for place in [socket.clone(), remote("x")] {
            let text = serde_json::to_string(&place).unwrap();
            assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place);
        }
        assert!(socket.is_same_server(&Path::new("/b").into()));
        assert!(remote("x").is_same_server(&remote("x")));
        assert!(!remote("x").is_same_server(&remote("y")));
        assert!(!socket.is_same_server(&remote("x")));
        assert_eq!(remote("x").flag(), " --remote x");
        assert_eq!(socket.flag(), "");
    }
}
