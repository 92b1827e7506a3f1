//! Incus over its REST API: the local unix socket, one project.
//!
//! Facts of the protocol (response envelope, operations, ETag, exec with recorded output) are those
//! of Incus' own `doc/rest-api.md` and `doc/rest-api.yaml`, seen with Incus 6.0.

mod error;
mod exec;
mod files;
mod instances;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The methods of changing requests.
pub use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock;

pub use error::Error;
pub use exec::ExecOutput;
pub use files::FileKind;
pub use instances::{Device, Instance, Nic, StateChange, Status};

/// How long one plain request may take; operations have limits of their own.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// A connection to one Incus server, speaking for one project. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Incus {
    http: reqwest::Client,
    socket: PathBuf,
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

/// The socket that Incus' own client would use: `INCUS_SOCKET`, else `unix.socket` in `INCUS_DIR`,
/// else the default folder. `lookup` is `std::env::var_os` but in tests.
pub fn socket_path(lookup: impl Fn(&str) -> Option<std::ffi::OsString>) -> PathBuf {
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

impl Incus {
    /// A client for a socket and a project; nothing is asked yet.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(socket: &Path, project: &str) -> Result<Incus, Error> {
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            // A kept connection that incusd closes meanwhile (after half a minute, or by a restart)
            // would break the next request; a new one over a unix socket costs next to nothing.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|e| Error::protocol("building the HTTP client", &e))?;
        Ok(Incus {
            http,
            socket: socket.to_owned(),
            project: project.to_owned(),
        })
    }

    /// A client whose server was seen to answer, to trust us, and to have the project.
    ///
    /// # Errors
    /// [`Error::NoSocket`], [`Error::Permission`], [`Error::NoProject`] and the rest: each says the
    /// one thing to do about it.
    pub async fn connect(socket: &Path, project: &str) -> Result<(Incus, Server), Error> {
        let incus = Incus::new(socket, project)?;
        let server = incus.server().await?;
        let found = incus.get_value(&format!("/1.0/projects/{project}")).await;
        match found {
            Ok(_) => Ok((incus, server)),
            Err(Error::NotFound { .. }) => Err(Error::NoProject {
                project: project.to_owned(),
                known: incus.project_names().await.unwrap_or_default(),
            }),
            Err(other) => Err(other),
        }
    }

    /// The project that this client speaks for.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The socket that this client speaks through.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks the server who it is, and whether it trusts us.
    ///
    /// # Errors
    /// As every request; [`Error::Permission`] when it answers but doesn't trust us.
    pub async fn server(&self) -> Result<Server, Error> {
        let answer = self.get_value("/1.0").await?;
        if answer.get("auth").and_then(Value::as_str) != Some("trusted") {
            return Err(Error::Permission {
                socket: self.socket.clone(),
            });
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

    /// The config of the project that this client speaks for.
    ///
    /// # Errors
    /// As every request.
    pub async fn project_config(&self) -> Result<BTreeMap<String, String>, Error> {
        let path = format!("/1.0/projects/{}", self.project);
        let project = self.get_value(&path).await?;
        let config = project.get("config").cloned().unwrap_or_default();
        let config: Option<_> =
            serde_json::from_value(config).map_err(|e| Error::protocol(&path, &e))?;
        Ok(config.unwrap_or_default())
    }

    async fn project_names(&self) -> Result<Vec<String>, Error> {
        let urls: Vec<String> = self.get("/1.0/projects").await?;
        Ok(urls
            .iter()
            .filter_map(|u| u.rsplit('/').next())
            .map(str::to_owned)
            .collect())
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
        let url = format!("http://incus{}", request.path);
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
            Ok(Err(error)) => Err(Error::unreachable(&self.socket, &asked, &error)),
            Err(_) => Err(Error::Limit {
                asked,
                limit: REQUEST_LIMIT,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_as_incus_finds_it() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                pairs
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| v.into())
            }
        };
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
