//! MinIO's admin API (`/minio/admin/v3`): signed requests, answers in plain JSON. Paths and answers as in MinIO
//! RELEASE.2025-09-07T16-13-09Z (cmd/admin-router.go) with madmin-go 3.0.109.

mod cluster;
mod users;
mod requests;
mod buckets;
mod heal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::clock::{Clock, within};
use crate::secret::Secret;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use buckets::{Quota, Usage};
pub use cluster::{ClusterInfo, Drive, NodeInfo};
pub use heal::{DriveState, Healed, ObjectHealth};
pub use requests::UnderWay;
pub use users::Status;

/// How long a question may take that no heal is behind.
const LIMIT: Duration = Duration::from_secs(10);

/// What a signature is made of: what MinIO leaves as it is when it checks one (internal/s3utils, EncodePath).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A login: of the admin API, or of S3.
#[derive(Clone, Debug)]
pub struct Login {
    /// The access key.
    pub access: Secret,
    /// The secret key.
    pub secret: Secret,
}

/// A node that requests can be sent to.
#[derive(Clone, Debug)]
pub struct Door {
    /// The node's name, for people.
    pub name: String,
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub base: String,
    /// What speaks to it: it knows the node's address and what its certificate is checked with, and keeps no
    /// connections, as those of a server that was started anew are dead.
    pub client: reqwest::Client,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.base)
    }
}

/// Why a question has no answer. None of them holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No request could be made.
    #[error("making a request of the admin API: {words}: correct the endpoints")]
    Request {
        /// What is wrong.
        words: String,
    },
    /// No node answered.
    #[error(
        "{asked} of the admin API: no answer from {at}: {words}: `curl URL/minio/health/live` shows whether the \
         node serves; is it up, and the endpoint right?"
    )]
    Unreachable {
        /// What was asked.
        asked: String,
        /// The nodes.
        at: String,
        /// What happened.
        words: String,
    },
    /// The node does not let this user do that.
    #[error(
        "{asked} of the admin API at {at} was refused: {code}: {words}: the user needs {action} in its policy, and \
         access key and secret key must be those of this cluster"
    )]
    Credentials {
        /// What was asked.
        asked: String,
        /// The node.
        at: String,
        /// MinIO's word for it.
        code: String,
        /// Its sentence.
        words: String,
        /// The permission that the request asks for.
        action: &'static str,
    },
    /// The node answered with another error.
    #[error("{asked} of the admin API at {at}: {code}: {words}: {next}")]
    Said {
        /// What was asked.
        asked: String,
        /// The node.
        at: String,
        /// MinIO's word for it, or the HTTP status.
        code: String,
        /// Its sentence.
        words: String,
        /// What a person does next.
        next: &'static str,
    },
    /// The answer was not what the API is documented to say.
    #[error(
        "{asked} of the admin API at {at}: the answer can't be read ({words}): is this MinIO's own address, and not \
         that of its console or of another store (then --s3-only)?"
    )]
    Unreadable {
        /// What was asked.
        asked: String,
        /// The node.
        at: String,
        /// What is wrong with it.
        words: String,
    },
    /// A heal took longer than it may, and was told to stop.
    #[error(
        "{asked} at {at} had looked at {items} objects after {limit_s:.0} s and was not finished: give it more time, \
         or see why the cluster is slow (mc admin heal, mc admin trace)"
    )]
    Unfinished {
        /// What was asked.
        asked: String,
        /// The node.
        at: String,
        /// How many results it had given.
        items: usize,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// A look at every object came to an end before the last of them.
    #[error(
        "{asked} at {at} stopped before its end: {words}: see which drive or node is not there (mc admin info), and \
         ask again"
    )]
    Stopped {
        /// What was asked.
        asked: String,
        /// The node.
        at: String,
        /// What MinIO said.
        words: String,
    },
    /// The node knows nothing of the heal that it was asked for: it says "finished" then, too.
    #[error(
        "{asked}: {at} forgot it, so its server was started anew meanwhile: what it said is not counted; ask again"
    )]
    Forgotten {
        /// What was asked.
        asked: String,
        /// The node.
        at: String,
    },
}

impl Error {
    /// Whether the credentials are what is wrong.
    pub fn is_credentials(&self) -> bool {
        matches!(self, Error::Credentials { .. })
    }
}

/// A client of the admin API of one cluster. Every question has a limit.
#[derive(Clone)]
pub struct Admin {
    clock: Clock,
    doors: Vec<Door>,
    login: Login,
    region: String,
}

/// One request.
struct Request<'a> {
    method: Method,
    /// Below `/minio/admin/v3`, encoded.
    path: String,
    query: Vec<(&'a str, String)>,
    body: String,
    /// For people.
    asked: String,
    /// The permission that it needs.
    action: &'static str,
    limit: Duration,
}

impl Request<'_> {
    fn new(method: Method, path: &str, asked: &str, action: &'static str) -> Request<'static> {
        Request {
            method,
            path: path.to_owned(),
            query: Vec::new(),
            body: String::new(),
            asked: asked.to_owned(),
            action,
            limit: LIMIT,
        }
    }
}

/// An error as MinIO tells it (cmd/api-errors.go).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    code: String,
    #[serde(default)]
    message: String,
}

impl Admin {
    /// A client for the nodes of a cluster, which are asked in this order. `region` is the one that signatures are
    /// for. Nothing is asked yet.
    pub fn new(clock: &Clock, doors: Vec<Door>, login: &Login, region: &str) -> Admin {
        Admin {
            clock: *clock,
            doors,
            login: login.clone(),
            region: region.to_owned(),
        }
    }

    /// The same client, asking only the nodes of these names; all where none of them is known.
    #[must_use]
    pub fn through(&self, names: &[&str]) -> Admin {
        let mut narrowed = self.clone();
        let named = |door: &Door| names.contains(&door.name.as_str());
        if self.doors.iter().any(named) {
            narrowed.doors.retain(named);
        }
        narrowed
    }

    /// The state of every node and drive.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn info(&self) -> Result<ClusterInfo, Error> {
        let request = Request::new(Method::GET, "/info", "info", "admin:ServerInfo");
        let (door, answer) = self.ask(&request).await?;
        read::<cluster::Info>(&request, door, &answer).map(ClusterInfo::from)
    }

    /// Asks the nodes in their order until one answers, were it with an error.
    async fn ask(&self, request: &Request<'_>) -> Result<(&Door, Vec<u8>), Error> {
        let mut silent: Option<(String, String)> = None;
        for door in &self.doors {
            match self.ask_at(door, request).await {
                Ok(answer) => return Ok((door, answer)),
                Err(Error::Unreachable { at, words, .. }) => {
                    silent = Some(match silent {
                        None => (at, words),
                        Some((before, said)) if said == words => (format!("{before}, {at}"), said),
                        Some((before, said)) => {
                            (format!("{before}, {at}"), format!("{said}; {words}"))
                        }
                    });
                }
                Err(error) => return Err(error),
            }
        }
        let (at, words) = silent.unwrap_or_default();
        let asked = request.asked.clone();
        Err(Error::Unreachable { asked, at, words })
    }

    /// Asks one node.
    async fn ask_at(&self, door: &Door, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        self.sent(door, request, self.signed(door, request)?).await
    }

    /// The answer's bytes without the spaces that a node sends to keep the connection alive.
    async fn sent(
        &self,
        door: &Door,
        request: &Request<'_>,
        signed: reqwest::RequestBuilder,
    ) -> Result<Vec<u8>, Error> {
        let silent = |words: String| Error::Unreachable {
            asked: request.asked.clone(),
            at: door.to_string(),
            words,
        };
        let asking = async {
            let answer = signed.send().await;
            let answer = answer.map_err(|error| silent(chain(&error.without_url())))?;
            let status = answer.status();
            let bytes = answer.bytes().await;
            let bytes = bytes.map_err(|error| silent(chain(&error.without_url())))?;
            Ok::<_, Error>((status, bytes.trim_ascii().to_vec()))
        };
        let asked = within(request.limit, asking).await;
        let (status, bytes) = asked.map_err(|elapsed| silent(elapsed.to_string()))??;
        match refusal(request, door, status, &bytes) {
            Some(error) => Err(error),
            None => Ok(bytes),
        }
    }

    fn signed(&self, door: &Door, request: &Request<'_>) -> Result<reqwest::RequestBuilder, Error> {
        let wrong = |words: String| Error::Request { words };
        let encoded = request.query.iter().map(|(name, value)| {
            let value = utf8_percent_encode(value, UNRESERVED);
            format!("{name}={value}")
        });
        let mut url = format!("{}/minio/admin/v3{}", door.base, request.path);
        let query = encoded.collect::<Vec<_>>().join("&");
        if !query.is_empty() {
            url = format!("{url}?{query}");
        }
        // Signed is what is sent: a URL leaves its scheme's own port out.
        let url = Url::parse(&url).map_err(|error| wrong(error.to_string()))?;
        let (access, secret) = (self.login.access.expose(), self.login.secret.expose());
        let identity = Credentials::new(access, secret, None, None, "veza").into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(self.clock.wall(self.clock.at()).into())
            .settings(settings)
            .build()
            .map_err(|error| wrong(error.to_string()))?
            .into();
        let (method, body) = (request.method.as_str(), request.body.as_bytes());
        let none = std::iter::empty();
        let signable = SignableRequest::new(method, url.as_str(), none, SignableBody::Bytes(body));
        let signed = signable.and_then(|signable| sign(signable, &parameters));
        let signed = signed.map_err(|error| wrong(chain(&error)))?;
        let (instructions, _) = signed.into_parts();
        let mut sent = door.client.request(request.method.clone(), url);
        for (name, value) in instructions.headers() {
            sent = sent.header(name, value);
        }
        Ok(sent.body(request.body.clone()))
    }
}

/// What an answer says that is none: by its status, or, after a space that kept the connection alive had sent
/// status 200 already, by its body alone.
fn refusal(request: &Request<'_>, door: &Door, status: StatusCode, body: &[u8]) -> Option<Error> {
    let told = serde_json::from_slice::<Told>(body).ok();
    if status.is_success() && told.is_none() {
        return None;
    }
    let (asked, at) = (request.asked.clone(), door.to_string());
    let Some(Told { code, message }) = told else {
        let (code, words) = (status.to_string(), "no reason given".to_owned());
        let next = "see the log of that node";
        return Some(Error::Said {
            asked,
            at,
            code,
            words,
            next,
        });
    };
    let words = message.trim_end_matches('.').to_owned();
    let credentials = [
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "XMinioAdminAccessDenied",
        "InvalidTokenId",
    ];
    if credentials.contains(&code.as_str()) {
        let action = request.action;
        return Some(Error::Credentials {
            asked,
            at,
            code,
            words,
            action,
        });
    }
    let next = match code.as_str() {
        "RequestTimeTooSkewed" => "set the clocks of this host and that node",
        "XMinioHealOverlappingPaths" | "XMinioHealAlreadyRunning" => {
            "another heal is under way there: wait for it, or stop it with mc admin heal --force-stop"
        }
        "NoSuchBucket" => "name a bucket that is there",
        "XMinioServerNotInitialized" => "the node is still starting: ask again",
        _ => "see the log of that node",
    };
    Some(Error::Said {
        asked,
        at,
        code,
        words,
        next,
    })
}

fn read<T: DeserializeOwned>(
    request: &Request<'_>,
    door: &Door,
    answer: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|error| Error::Unreadable {
        asked: request.asked.clone(),
        at: door.to_string(),
        words: error.to_string(),
    })
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        cause = error.source();
    }
    words
}

/// Encodes a path whose slashes separate.
fn encoded(path: &str) -> String {
    let parts = path.split('/');
    let parts = parts.map(|part| utf8_percent_encode(part, UNRESERVED).to_string());
    parts.collect::<Vec<_>>().join("/")
}
