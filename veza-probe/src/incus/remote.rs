//! A remote Incus over HTTPS, as the user's own Incus client is configured for it: its address, the
//! user's certificate, and the server's certificate that was pinned when the remote was added.

mod configuration;
mod pinned;

use std::path::{Path, PathBuf};

use rustls::ClientConfig;

pub(super) use pinned::{NOT_PINNED, NOT_PROVEN, no_tls};

/// Why a remote can't be used; nothing was sent to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The configuration can't be read.
    #[error(
        "the configuration of Incus' client, {}, can't be read ({words}): make it with `incus remote add`, or \
         name its folder in INCUS_CONF", path.display()
    )]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        words: String,
    },
    /// It has no such remote.
    #[error(
        "Incus' client has no remote {name} in {} (it has: {}): name one of them, or `incus remote add {name} \
         https://HOST:8443`", path.display(), .known.join(", ")
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// The file.
        path: PathBuf,
        /// The remotes there are.
        known: Vec<String>,
    },
    /// It is a remote of another kind.
    #[error("the remote {name} ({address}) {reason}")]
    Unsuitable {
        /// The remote.
        name: String,
        /// Its address.
        address: String,
        /// Why it can't serve, and what to do.
        reason: String,
    },
    /// A certificate or key is missing, or can't be used.
    #[error("the remote {name} ({address}) needs {what}, and {} {words}: `{next}`", path.display())]
    Credentials {
        /// The remote.
        name: String,
        /// Its address.
        address: String,
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        words: String,
        /// The command that makes it.
        next: String,
    },
    /// The server has another certificate than the pinned one.
    #[error(
        "the remote {name} ({address}): the certificate is not the one that `incus remote add` pinned; nothing \
         was sent. Whoever runs the server says whether its certificate was changed; if so: `incus remote \
         remove {name}`, then `incus remote add {name} {address}`; pinned: {}", path.display()
    )]
    NotPinned {
        /// The remote.
        name: String,
        /// Its address.
        address: String,
        /// The file of the pinned certificate.
        path: PathBuf,
    },
    /// The server shows the pinned certificate, and can't prove that it is its own.
    #[error(
        "the remote {name} ({address}) shows the certificate that `incus remote add` pinned, but its signature \
         does not prove that it has the key; nothing was sent. Somebody may stand between"
    )]
    NotProven {
        /// The remote.
        name: String,
        /// Its address.
        address: String,
    },
    /// The server does not know the user's certificate.
    #[error(
        "the remote {name} ({address}) does not trust {}: whoever runs it copies that file there and gives `incus \
         config trust add-certificate client.crt --restricted --projects {project}` (see docs/remote.md)",
        certificate.display()
    )]
    Untrusted {
        /// The remote.
        name: String,
        /// Its address.
        address: String,
        /// The user's certificate.
        certificate: PathBuf,
        /// The project that is asked for.
        project: String,
    },
    /// The project is not there, or not for this certificate.
    #[error(
        "the remote {name} ({address}) has no project {project} for this certificate (it has: {}): name the right \
         one with --project or VEZA_INCUS_PROJECT, or have the certificate's projects changed there by `incus \
         config trust edit`", .known.join(", ")
    )]
    NoProject {
        /// The remote.
        name: String,
        /// Its address.
        address: String,
        /// The project asked for.
        project: String,
        /// The projects that the certificate may see.
        known: Vec<String>,
    },
}

/// Everything that is needed to speak to a remote, read and checked.
#[derive(Debug)]
pub(super) struct Remote {
    /// `https://host:port`, without a slash at its end.
    pub(super) address: String,
    /// TLS that speaks with the pinned server only.
    pub(super) tls: ClientConfig,
}

impl Remote {
    /// Reads a remote of the client configuration in a folder.
    ///
    /// # Errors
    /// [`RemoteError`]: each names the file and what to do.
    pub(super) fn read(name: &str, folder: &Path) -> Result<Remote, RemoteError> {
        let address = configuration::address(name, folder)?;
        let tls = pinned::tls(name, &address, folder)?;
        Ok(Remote { address, tls })
    }
}

/// The user's certificate.
pub(super) fn certificate(folder: &Path) -> PathBuf {
    folder.join("client.crt")
}

/// The certificate that was pinned for a remote.
pub(super) fn pin(name: &str, folder: &Path) -> PathBuf {
    folder.join("servercerts").join(format!("{name}.crt"))
}

#[cfg(test)]
mod tests;
