//! `config.yml` of Incus' own client: which remotes there are, and which of them is a server that a
//! certificate is enough for.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::Url;
use serde::Deserialize;

use super::RemoteError;

/// What counts of `config.yml`; aliases and the default remote don't: a drill names its remote.
#[derive(Deserialize)]
struct Configuration {
    remotes: Option<BTreeMap<String, Entry>>,
}

/// A remote, as Incus' client writes it: what is empty is left out.
#[derive(Deserialize)]
struct Entry {
    addr: Option<String>,
    auth_type: Option<String>,
    protocol: Option<String>,
    public: Option<bool>,
}

/// The address of a remote, `https://host:port`.
///
/// # Errors
/// [`RemoteError`] when the file can't be read, has no such remote, or one of another kind.
pub(super) fn address(name: &str, folder: &Path) -> Result<String, RemoteError> {
    let path = folder.join("config.yml");
    let unreadable = |words: String| RemoteError::Configuration {
        path: path.clone(),
        words,
    };
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let all: Configuration =
        yaml_serde::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let remotes = all.remotes.unwrap_or_default();
    let Some(entry) = remotes.get(name) else {
        let known = remotes.into_keys().collect();
        return Err(RemoteError::Unknown {
            name: name.to_owned(),
            path,
            known,
        });
    };
    let address = entry.addr.clone().unwrap_or_default();
    match unsuitable(name, entry, &address) {
        None => Ok(address.trim_end_matches('/').to_owned()),
        Some(reason) => Err(RemoteError::Unsuitable {
            name: name.to_owned(),
            address,
            reason,
        }),
    }
}

fn unsuitable(name: &str, entry: &Entry, address: &str) -> Option<String> {
    let again = |address: &str| {
        format!(
            "`incus remote remove {name}`, then `incus remote add {name} {address} --auth-type tls`"
        )
    };
    if address.starts_with("unix:") {
        let reason = "is the socket of this host: leave --remote and VEZA_INCUS_REMOTE away";
        return Some(reason.to_owned());
    }
    let protocol = entry.protocol.as_deref().unwrap_or_default();
    if entry.public == Some(true) || protocol == "simplestreams" {
        return Some("serves images only: name a remote that runs instances".to_owned());
    }
    if !["", "incus"].contains(&protocol) {
        return Some(format!(
            "speaks {protocol}, not incus: name a remote of Incus"
        ));
    }
    let auth_type = entry.auth_type.as_deref().unwrap_or_default();
    if !["", "tls"].contains(&auth_type) {
        return Some(format!(
            "logs in by {auth_type}, which needs a person; a drill needs a certificate: {}",
            again(address)
        ));
    }
    (!is_plain(address)).then(|| {
        let right = again("https://HOST:8443");
        format!("is no plain address such as https://HOST:8443: {right}")
    })
}

/// Whether it is `https://host[:port]` and nothing more.
fn is_plain(address: &str) -> bool {
    let Ok(url) = Url::parse(address) else {
        return false;
    };
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    url.scheme() == "https" && url.host().is_some() && bare && nobody
}
