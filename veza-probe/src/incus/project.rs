//! The project that a client speaks for: its config, which says what is allowed in it.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Error, Incus, Request};

/// How often the project is read and written before someone else's changes win.
const TRIES: usize = 20;
const LIMIT: Duration = Duration::from_secs(30);

impl Incus {
    /// The config of the project that this client speaks for.
    ///
    /// # Errors
    /// As every request.
    pub async fn project_config(&self) -> Result<BTreeMap<String, String>, Error> {
        let path = self.project_path();
        let project = self.get_value(&path).await?;
        let config = project.get("config").cloned().unwrap_or_default();
        let config: Option<_> =
            serde_json::from_value(config).map_err(|e| Error::protocol(&path, &e))?;
        Ok(config.unwrap_or_default())
    }

    /// Sets a key of the project's config, or removes it with `None`. A certificate that is restricted
    /// to projects may not.
    ///
    /// Incus 6.0 takes a part of a project's config for all of it: so the whole is read, changed, and
    /// written on the condition that nobody else has changed it meanwhile.
    ///
    /// # Errors
    /// As every change.
    pub async fn set_project_key(&self, key: &str, value: Option<&str>) -> Result<(), Error> {
        let path = self.project_path();
        let mut last = None;
        for _ in 0..TRIES {
            let (object, etag) = self.get_with_etag(&path).await?;
            let mut config = object.get("config").cloned().unwrap_or_default();
            match (config.as_object_mut(), value) {
                (Some(keys), Some(value)) => {
                    keys.insert(key.to_owned(), value.into());
                }
                (Some(keys), None) => {
                    keys.remove(key);
                }
                (None, _) => config = json!({ key: value.unwrap_or_default() }),
            }
            let description = object.get("description").and_then(Value::as_str);
            let body = json!({ "config": config, "description": description.unwrap_or_default() });
            let request = Request::new(Method::PUT, &path).body(&body).if_match(&etag);
            match self.change(request, LIMIT).await {
                Ok(_) => return Ok(()),
                Err(error @ Error::Changed { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(Error::Limit {
            asked: format!("PUT {path}"),
            limit: Duration::ZERO,
        }))
    }

    /// The projects that this client may see.
    pub(super) async fn project_names(&self) -> Result<Vec<String>, Error> {
        let urls: Vec<String> = self.get("/1.0/projects").await?;
        Ok(urls
            .iter()
            .filter_map(|u| u.rsplit('/').next())
            .map(str::to_owned)
            .collect())
    }

    pub(super) fn project_path(&self) -> String {
        format!("/1.0/projects/{}", self.project())
    }
}
