//! Files inside an instance, running or stopped.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::{Error, Incus, Request};
use crate::instance::InstanceName;

/// What to make at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file with these bytes; an existing one is overwritten.
    File(Vec<u8>),
    /// A folder; an existing one stays as it is.
    Folder,
}

impl Incus {
    /// Reads a file of an instance.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not there; as every request otherwise.
    pub async fn read_file(&self, name: &InstanceName, path: &str) -> Result<Vec<u8>, Error> {
        let request = files(Method::GET, name, path);
        let asked = format!("reading {path} in {name}");
        let response = self.raw(&request, None).await?;
        let code = response.status();
        let is_error = !code.is_success();
        let bytes = response
            .bytes()
            .await
            .map_err(|e| Error::protocol(&asked, &e))?;
        if is_error {
            return Err(error(&asked, code.as_u16(), &bytes));
        }
        Ok(bytes.into())
    }

    /// The names in a folder of an instance.
    ///
    /// # Errors
    /// As [`Incus::read_file`]; [`Error::Protocol`] when it is no folder.
    pub async fn list_folder(&self, name: &InstanceName, path: &str) -> Result<Vec<String>, Error> {
        let asked = format!("listing {path} in {name}");
        let bytes = self.read_file(name, path).await?;
        let listed: Listed =
            serde_json::from_slice(&bytes).map_err(|e| Error::protocol(&asked, &e))?;
        Ok(listed.metadata)
    }

    /// Removes a file, or an empty folder, of an instance.
    ///
    /// # Errors
    /// As every request; [`Error::NotFound`] when it is not there.
    pub async fn remove_file(&self, name: &InstanceName, path: &str) -> Result<(), Error> {
        let request = files(Method::DELETE, name, path);
        self.send(&request).await.map(drop)
    }

    /// Writes a file or makes a folder in an instance. `mode` is octal, such as `0o644`.
    ///
    /// # Errors
    /// As every request; the parent folder must be there.
    pub async fn write_file(
        &self,
        name: &InstanceName,
        path: &str,
        kind: FileKind,
        (uid, gid, mode): (u32, u32, u32),
    ) -> Result<(), Error> {
        let asked = format!("writing {path} in {name}");
        let (type_name, bytes) = match kind {
            FileKind::File(bytes) => ("file", bytes),
            FileKind::Folder => ("directory", Vec::new()),
        };
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: String| {
            HeaderValue::from_str(&value).map(|value| headers.insert(name, value))
        };
        let made = set("x-incus-uid", uid.to_string())
            .and_then(|_| set("x-incus-gid", gid.to_string()))
            .and_then(|_| set("x-incus-mode", format!("{mode:04o}")))
            .and_then(|_| set("x-incus-type", type_name.to_owned()))
            .and_then(|_| set("x-incus-write", "overwrite".to_owned()));
        made.map_err(|e| Error::protocol(&asked, &e))?;
        let request = files(Method::POST, name, path);
        let response = self.raw(&request, Some((bytes, headers))).await?;
        let code = response.status();
        if code.is_success() {
            return Ok(());
        }
        let bytes = response
            .bytes()
            .await
            .map_err(|e| Error::protocol(&asked, &e))?;
        Err(error(&asked, code.as_u16(), &bytes))
    }
}

/// A folder, as Incus lists it.
#[derive(serde::Deserialize)]
struct Listed {
    metadata: Vec<String>,
}

fn files<'a>(method: Method, name: &InstanceName, path: &str) -> Request<'a> {
    Request::new(method, format!("/1.0/instances/{name}/files")).query("path", path)
}

fn error(asked: &str, code: u16, bytes: &[u8]) -> Error {
    let envelope: Value = serde_json::from_slice(bytes).unwrap_or_default();
    Error::from_envelope(asked, code, &envelope)
}
