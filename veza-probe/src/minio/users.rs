//! Users: whether they may do anything at all, and taking that away for a time.

use reqwest::Method;
use serde::Deserialize;

use super::{Admin, Error, Request, read};

/// Whether a user's requests are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// They are, as far as its policies let it.
    Enabled,
    /// None is.
    Disabled,
}

impl Status {
    /// MinIO's word (madmin-go, AccountStatus).
    pub fn word(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
        }
    }
}

#[derive(Deserialize)]
struct UserInfo {
    status: String,
}

impl Admin {
    /// Whether a user's requests are taken. Neither root nor an access key of a service account is a user: MinIO says that
    /// there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn user_status(&self, access_key: &str) -> Result<Status, Error> {
        let asked = format!("the status of user {access_key}");
        let mut request = Request::new(Method::GET, "/user-info", &asked, "admin:GetUser");
        request.query.push(("accessKey", access_key.to_owned()));
        let (door, answer) = self.ask(&request).await?;
        let info: UserInfo = read(&request, door, &answer)?;
        match info.status.as_str() {
            "enabled" => Ok(Status::Enabled),
            "disabled" => Ok(Status::Disabled),
            other => Err(Error::Unreadable {
                asked,
                at: door.to_string(),
                words: format!("status {other:?}"),
            }),
        }
    }

    /// Enables or disables a user. Other nodes hear of it a moment later.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_user_status(&self, access_key: &str, status: Status) -> Result<(), Error> {
        let asked = format!("user {access_key} to be {}", status.word());
        let mut request = Request::new(Method::PUT, "/set-user-status", &asked, "admin:EnableUser");
        request.query.push(("accessKey", access_key.to_owned()));
        request.query.push(("status", status.word().to_owned()));
        self.ask(&request).await.map(drop)
    }
}
