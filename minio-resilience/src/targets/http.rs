//! A node's own HTTP interface without a login: whether it lives, and what it says of the cluster's health.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::Certificate;
use reqwest::header::{DATE, HeaderMap};
use veza_probe::clock::{At, Clock, within};

use crate::cli::Endpoint;

/// How long one question may stay without an answer.
pub const LIMIT: Duration = Duration::from_secs(2);

/// The same for what a node says of the cluster: it asks the others first, and one that vanished keeps it waiting for as long as an
/// address is looked for on the link (3 s, seen); MinIO's own limit is `api cluster_deadline`, 10 s.
const OF_CLUSTER: Duration = Duration::from_secs(5);

/// The HTTP interface of one node.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    base: String,
}

/// What a health endpoint answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The status code.
    pub code: u16,
    /// `x-minio-write-quorum` or `x-minio-read-quorum`, whichever is there.
    pub quorum: Option<usize>,
    /// `x-minio-healing-drives`: how many are healing.
    pub healing: usize,
    /// The node's wall clock, in seconds since 1970, as its `Date` header has it.
    pub date_s: Option<i64>,
    /// `x-minio-server-status`, where the node says that it is not whole.
    pub status: Option<String>,
    /// When it was asked.
    pub asked: At,
    /// When the answer was in.
    pub answered: At,
}

/// Reads certificates in PEM.
///
/// # Errors
/// A sentence for the user, with the file.
pub fn certificates(path: &Path) -> Result<Vec<u8>, String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("MINIO_CA_FILE: {name}: {error}"))?;
    match Certificate::from_pem_bundle(&bytes) {
        Ok(all) if !all.is_empty() => Ok(bytes),
        Ok(_) => Err(format!("MINIO_CA_FILE: {name} holds no certificate in PEM")),
        Err(error) => Err(format!("MINIO_CA_FILE: {name}: {error}")),
    }
}

impl Http {
    /// A client for one node, by its address; a name is only signed for and checked.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn new(
        endpoint: &Endpoint,
        address: SocketAddr,
        certificates: Option<&[u8]>,
    ) -> Result<Http, String> {
        // Fails when somebody was here before: then it is done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(LIMIT)
            .resolve(&endpoint.host, address)
            // A node that was taken away leaves connections that are dead without saying so.
            .pool_max_idle_per_host(0);
        if let Some(bytes) = certificates {
            let all = Certificate::from_pem_bundle(bytes).map_err(|error| error.to_string())?;
            builder = builder.tls_certs_only(all);
        }
        let client = builder
            .build()
            .map_err(|error| format!("building the HTTP client: {error}"))?;
        Ok(Http {
            client,
            base: endpoint.url(),
        })
    }

    /// The client, for requests that are signed elsewhere.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The node's URL, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks a health endpoint: `live`, `cluster`, `cluster/read`.
    ///
    /// # Errors
    /// What came instead of an answer.
    pub async fn health(&self, clock: &Clock, which: &str) -> Result<Health, String> {
        let asked = clock.at();
        let url = format!("{}/minio/health/{which}", self.base);
        let limit = if which == "live" { LIMIT } else { OF_CLUSTER };
        let answer = within(limit, self.client.get(url).send()).await;
        let answer = answer.map_err(|elapsed| elapsed.to_string())?;
        let answer = answer.map_err(|error| told(&error))?;
        let headers = answer.headers();
        let first = |names: &[&str]| names.iter().find_map(|name| number(headers, name));
        Ok(Health {
            code: answer.status().as_u16(),
            quorum: first(&["x-minio-write-quorum", "x-minio-read-quorum"]),
            healing: first(&["x-minio-healing-drives"]).unwrap_or(0),
            date_s: text(headers, DATE.as_str()).and_then(|date| seconds(&date)),
            status: text(headers, "x-minio-server-status"),
            asked,
            answered: clock.at(),
        })
    }
}

/// An error with its causes: reqwest's own sentence alone does not say what was refused.
fn told(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

fn number(headers: &HeaderMap, name: &str) -> Option<usize> {
    text(headers, name)?.parse().ok()
}

/// An HTTP date in seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(date.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_date_is_read() {
        assert_eq!(seconds("Thu, 01 Jan 1970 00:01:00 GMT"), Some(60));
        assert_eq!(seconds("soon"), None);
    }
}
