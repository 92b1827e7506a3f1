//! Incus over its REST API: the local unix socket or a remote of the user's own client, one project.
//!
//! Facts of the protocol (response envelope, operations, ETag, exec with recorded output) are those
//! of Incus' own `doc/rest-api.md` and `doc/rest-api.yaml`, seen with Incus 6.0.

mod place;
mod remote;
mod error;
mod project;
mod exec;
mod attach;
mod files;
mod instances;

use std::time::Duration;

/// The methods of changing requests.
pub use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock;

pub use attach::Attached;
pub use error::Error;
pub use exec::ExecOutput;
pub use files::FileKind;
pub use instances::{Device, Instance, Nic, StateChange, Status};
pub use place::{NoFolder, Place, socket_path};
pub use remote::RemoteError;

use remote::Remote;

/// How long one plain request may take; operations have limits of their own.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long a remote may take to answer a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection to one Incus server, speaking for one project. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Incus {
    http: reqwest::Client,
    place: Place,
    /// What stands before each path.
    base: String,
    project: String,
}

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version, such as `6.0.4`.
    pub version: String,
    /// Its name, usually the host's.
    pub name: String,
    /// The kernel that its containers share.
    pub kernel: String,
}

/// A changing request: what is asked of which path, with which body and on which condition.
#[derive(Debug)]
pub struct Request<'a> {
    method: Method,
    path: String,
    body: Option<&'a Value>,
    etag: Option<&'a str>,
    query: Vec<(&'static str, String)>,
}

impl<'a> Request<'a> {
    /// A request for a path such as `/1.0/instances/NAME`.
    pub fn new(method: Method, path: impl Into<String>) -> Request<'a> {
        Request {
            method,
            path: path.into(),
            body: None,
            etag: None,
            query: Vec::new(),
        }
    }

    /// Sends a JSON body.
    #[must_use]
    pub fn body(mut self, body: &'a Value) -> Request<'a> {
        self.body = Some(body);
        self
    }

    /// Only when the object is still the one that had this ETag (else [`Error::Changed`]).
    #[must_use]
    pub fn if_match(mut self, etag: &'a str) -> Request<'a> {
        self.etag = Some(etag);
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Request<'a> {
        self.query.push((name, value.into()));
        self
    }

    fn asked(&self) -> String {
        let body = self
            .body
            .and_then(|b| b.get("action"))
            .and_then(Value::as_str);
        match body {
            Some(action) => format!("{} {} ({action})", self.method, self.path),
            None => format!("{} {}", self.method, self.path),
        }
    }
}

impl Incus {
    /// A client for a place and a project; nothing is asked yet. A remote's certificates are read here,
    /// once: whoever holds this client reaches that server, whatever becomes of the files.
    ///
    /// # Errors
    /// [`Error::Remote`] when the client configuration has no such remote, or lacks a certificate.
    pub fn new(place: impl Into<Place>, project: &str) -> Result<Incus, Error> {
        let place = place.into();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A kept connection that incusd closes meanwhile (after half a minute, or by a restart)
            // would break the next request; a new one over a unix socket costs next to nothing.
            .pool_max_idle_per_host(0);
        let building = "building the HTTP client";
        let (client, base) = match &place {
            Place::Socket(path) => {
                let tls = remote::no_tls().map_err(|e| Error::protocol(building, &e))?;
                let client = client.unix_socket(path.as_path());
                (client.tls_backend_preconfigured(tls), "http://incus".into())
            }
            Place::Remote { name, folder } => {
                let Remote { address, tls } = Remote::read(name, folder)?;
                let client = client.https_only(true).connect_timeout(CONNECT_LIMIT);
                (client.tls_backend_preconfigured(tls), address)
            }
        };
        let http = client.build().map_err(|e| Error::protocol(building, &e))?;
        Ok(Incus {
            http,
            place,
            base,
            project: project.to_owned(),
        })
    }

    /// A client whose server was seen to answer, to trust us, and to have the project.
    ///
    /// # Errors
    /// [`Error::NoSocket`], [`Error::Permission`], [`Error::NoProject`], [`Error::Remote`] and the
    /// rest: each says the one thing to do about it.
    pub async fn connect(place: impl Into<Place>, project: &str) -> Result<(Incus, Server), Error> {
        let incus = Incus::new(place, project)?;
        let server = incus.server().await?;
        match incus.get_value(&incus.project_path()).await {
            Ok(_) => Ok((incus, server)),
            Err(Error::NotFound { .. }) => Err(incus.no_project().await),
            // A restricted certificate is not told whether it is there.
            Err(Error::Refused { code: 403, .. }) if !incus.place.is_local() => {
                Err(incus.no_project().await)
            }
            Err(other) => Err(other),
        }
    }

    async fn no_project(&self) -> Error {
        let known = self.project_names().await.unwrap_or_default();
        let project = self.project.clone();
        match &self.place {
            Place::Socket(_) => Error::NoProject { project, known },
            Place::Remote { name, .. } => Error::Remote(RemoteError::NoProject {
                name: name.clone(),
                address: self.base.clone(),
                project,
                known,
            }),
        }
    }

    fn untrusted(&self) -> Error {
        match &self.place {
            Place::Socket(socket) => Error::Permission {
                socket: socket.clone(),
            },
            Place::Remote { name, folder } => Error::Remote(RemoteError::Untrusted {
                name: name.clone(),
                address: self.base.clone(),
                certificate: remote::certificate(folder),
                project: self.project.clone(),
            }),
        }
    }

    /// The project that this client speaks for.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where it is, for people: a remote with its address.
    pub fn told(&self) -> String {
        match &self.place {
            Place::Socket(path) => format!("Incus at {}", path.display()),
            Place::Remote { name, .. } => format!("the remote {name} ({})", self.base),
        }
    }

    /// Asks the server who it is, and whether it trusts us.
    ///
    /// # Errors
    /// As every request; [`Error::Permission`] or [`RemoteError::Untrusted`] when it answers but doesn't
    /// trust us.
    pub async fn server(&self) -> Result<Server, Error> {
        let answer = self.get_value("/1.0").await?;
        if answer.get("auth").and_then(Value::as_str) != Some("trusted") {
            return Err(self.untrusted());
        }
        let text = |name: &str| {
            let pointer = format!("/environment/{name}");
            answer
                .pointer(&pointer)
                .and_then(Value::as_str)
                .unwrap_or("unknown")
                .to_owned()
        };
        Ok(Server {
            version: text("server_version"),
            name: text("server_name"),
            kernel: text("kernel_version"),
        })
    }

    /// Reads an object as a typed value.
    ///
    /// # Errors
    /// As every request; [`Error::Protocol`] when the answer has another shape.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let value = self.get_value(path).await?;
        serde_json::from_value(value).map_err(|e| Error::protocol(&format!("GET {path}"), &e))
    }

    /// Reads an object as it is.
    ///
    /// # Errors
    /// As every request.
    pub async fn get_value(&self, path: &str) -> Result<Value, Error> {
        Ok(self.get_with_etag(path).await?.0)
    }

    /// Reads an object with the ETag that a conditional change of it needs.
    ///
    /// # Errors
    /// As every request.
    pub async fn get_with_etag(&self, path: &str) -> Result<(Value, String), Error> {
        let request = Request::new(Method::GET, path);
        let (mut envelope, etag) = self.send(&request).await?;
        Ok((
            envelope
                .get_mut("metadata")
                .map(Value::take)
                .unwrap_or_default(),
            etag,
        ))
    }

    /// Asks for a change and waits until it is done; returns the metadata of the answer, or of the
    /// operation where there is one.
    ///
    /// # Errors
    /// As every request; [`Error::Operation`] with Incus' words when the operation failed,
    /// [`Error::Limit`] when it was not done within `limit`.
    pub async fn change(&self, request: Request<'_>, limit: Duration) -> Result<Value, Error> {
        let asked = request.asked();
        let (mut envelope, _) = self.send(&request).await?;
        match envelope.get("operation").and_then(Value::as_str) {
            Some(operation) if !operation.is_empty() => {
                let operation = operation.to_owned();
                self.wait(&asked, &operation, limit).await
            }
            _ => Ok(envelope
                .get_mut("metadata")
                .map(Value::take)
                .unwrap_or_default()),
        }
    }

    /// Waits for an operation. The server is asked in slices, so that a lost connection shows.
    async fn wait(&self, asked: &str, operation: &str, limit: Duration) -> Result<Value, Error> {
        let poll = async {
            loop {
                let path = format!("{operation}/wait");
                let request = Request::new(Method::GET, path).query("timeout", "10");
                let answer = match self.send(&request).await {
                    // Seen with Incus 6.0: when the slice is over first, the answer is an error of
                    // the wait, not of the operation. Its state tells whether it goes on.
                    Err(Error::Refused { code: 500, .. }) => {
                        self.send(&Request::new(Method::GET, operation)).await
                    }
                    other => other,
                };
                let (mut envelope, _) = answer.map_err(|e| e.of(asked))?;
                let state = envelope
                    .get_mut("metadata")
                    .map(Value::take)
                    .unwrap_or_default();
                match state.get("status_code").and_then(Value::as_u64) {
                    Some(200) => {
                        return Ok(state.get("metadata").cloned().unwrap_or_default());
                    }
                    Some(100..=199) => {}
                    _ => {
                        let words = state
                            .get("err")
                            .and_then(Value::as_str)
                            .unwrap_or("no reason");
                        return Err(Error::Operation {
                            asked: asked.into(),
                            words: words.into(),
                        });
                    }
                }
            }
        };
        let done = clock::within(limit, poll).await;
        done.unwrap_or_else(|_| {
            Err(Error::Limit {
                asked: asked.into(),
                limit,
            })
        })
    }

    /// One request and its envelope, with the ETag of the answer (empty when it has none).
    async fn send(&self, request: &Request<'_>) -> Result<(Value, String), Error> {
        let asked = request.asked();
        let response = self.raw(request, None).await?;
        let code = response.status();
        let etag = response.headers().get("etag").and_then(|v| v.to_str().ok());
        let etag = etag.unwrap_or_default().to_owned();
        let body = response
            .bytes()
            .await
            .map_err(|e| Error::protocol(&asked, &e))?;
        let envelope: Value = serde_json::from_slice(&body)
            .map_err(|e| Error::protocol(&format!("{asked} (HTTP {code})"), &e))?;
        if envelope.get("type").and_then(Value::as_str) == Some("error") {
            return Err(Error::from_envelope(&asked, code.as_u16(), &envelope));
        }
        Ok((envelope, etag))
    }

    /// One request as HTTP, with the project added; for bodies that are not JSON, too.
    async fn raw(
        &self,
        request: &Request<'_>,
        raw_body: Option<(Vec<u8>, reqwest::header::HeaderMap)>,
    ) -> Result<reqwest::Response, Error> {
        let url = format!("{}{}", self.base, request.path);
        let mut http = self.http.request(request.method.clone(), url);
        http = http
            .query(&[("project", &self.project)])
            .query(&request.query);
        if let Some(etag) = request.etag {
            http = http.header("If-Match", etag);
        }
        if let Some(body) = request.body {
            http = http.json(body);
        }
        if let Some((bytes, headers)) = raw_body {
            http = http.headers(headers).body(bytes);
        }
        let asked = request.asked();
        match clock::within(REQUEST_LIMIT, http.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Error::unreachable(self, &asked, &error)),
            Err(_) => Err(Error::Limit {
                asked,
                limit: REQUEST_LIMIT,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn a_missing_socket_names_the_path_and_what_to_do() {
        let error = Incus::connect(Path::new("/nowhere/unix.socket"), "p")
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NoSocket { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/unix.socket") && text.contains("INCUS_SOCKET"),
            "{text}"
        );
    }
}
