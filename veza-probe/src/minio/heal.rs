//! Heal sequences: what each object lacks on each drive, and healing that is asked for.
//!
//! A sequence lives in the memory of the node that took it: it is started there, its results are read there, at most
//! 1,000 wait for a reader, and it forgets what was read (cmd/admin-heal-ops.go). A node that was started anew
//! answers "finished" to a token that it does not know.

use std::time::Duration;

use crate::clock::{self, At};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Admin, Door, Error, LIMIT, Request, encoded, read};

/// The permission that healing needs, also where it only looks.
pub(super) const ACTION: &str = "admin:Heal";

/// How often results are asked for.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// What a drive has of an object (madmin-go, DriveState constants).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriveState {
    /// All that belongs there.
    Ok,
    /// Nothing, or something old.
    Missing,
    /// Bytes that are not those that were written.
    Corrupt,
    /// It can't be asked.
    Offline,
    /// Something else, in MinIO's words.
    Other(String),
}

impl DriveState {
    fn of(word: &str) -> DriveState {
        match word {
            "ok" => DriveState::Ok,
            "missing" => DriveState::Missing,
            "corrupt" => DriveState::Corrupt,
            "offline" => DriveState::Offline,
            other => DriveState::Other(other.to_owned()),
        }
    }

    /// The word for people.
    pub fn told(&self) -> &str {
        match self {
            DriveState::Ok => "ok",
            DriveState::Missing => "missing",
            DriveState::Corrupt => "corrupt",
            DriveState::Offline => "offline",
            DriveState::Other(word) => word,
        }
    }
}

/// What the drives have of one version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHealth {
    /// Its key.
    pub object: String,
    /// Its version; empty where the bucket has none.
    pub version: String,
    /// Each drive, by its endpoint, and what it has.
    pub drives: Vec<(String, DriveState)>,
    /// What MinIO could not do with it; empty where there is nothing to say.
    pub detail: String,
}

impl ObjectHealth {
    /// Whether every one of `drives` drives has all of it.
    pub fn is_whole(&self, drives: usize) -> bool {
        let ok = |(_, state): &&(String, DriveState)| *state == DriveState::Ok;
        self.drives.iter().filter(ok).count() >= drives && self.lacking().next().is_none()
    }

    /// The drives that lack something.
    pub fn lacking(&self) -> impl Iterator<Item = &(String, DriveState)> {
        let drives = self.drives.iter();
        drives.filter(|(_, state)| *state != DriveState::Ok)
    }
}

/// What a heal that was asked for did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healed {
    /// The node that did it.
    pub at: String,
    /// When it was asked for.
    pub asked: At,
    /// When its last result was there.
    pub done: At,
    /// `finished`, or `stopped` with the reason.
    pub summary: String,
    /// Each object as it was found, and as it was left.
    pub items: Vec<(ObjectHealth, ObjectHealth)>,
}

impl Healed {
    /// The objects of which a drive has now what it lacked before.
    pub fn mended(&self) -> impl Iterator<Item = &(ObjectHealth, ObjectHealth)> {
        let items = self.items.iter();
        items.filter(|(before, after)| after.lacking().count() < before.lacking().count())
    }
}

/// `HealStartSuccess`.
#[derive(Deserialize)]
struct Started {
    #[serde(rename = "clientToken")]
    token: String,
}

/// `healSequenceStatus`; its keys are capitalised.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    summary: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    start_time: String,
    #[serde(default)]
    items: Option<Vec<Item>>,
}

/// `HealResultItem`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    object: String,
    #[serde(default)]
    version_id: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    before: Drives,
    #[serde(default)]
    after: Drives,
}

#[derive(Default, Deserialize)]
struct Drives {
    #[serde(default)]
    drives: Option<Vec<OnDrive>>,
}

#[derive(Deserialize)]
struct OnDrive {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    state: String,
}

impl Item {
    fn health(&self, drives: &Drives) -> ObjectHealth {
        let drives = drives.drives.iter().flatten();
        let drives = drives.map(|on| (on.endpoint.clone(), DriveState::of(&on.state)));
        ObjectHealth {
            object: self.object.clone(),
            version: self.version_id.clone(),
            drives: drives.collect(),
            detail: self.detail.clone(),
        }
    }
}

/// What to look at.
struct Scope<'a> {
    path: String,
    asked: String,
    options: &'a serde_json::Value,
}

impl Admin {
    /// What each drive has of every version of every object below a prefix, or of all buckets where none is named; `deep` reads the bytes of every part,
    /// too. MinIO calls it a dry run: nothing is healed, but versions that too few drives have to be read ever again
    /// may be taken away (deleteIfDangling).
    ///
    /// # Errors
    /// [`Error`]; [`Error::Unfinished`] after `limit`.
    pub async fn heal_dry_run(
        &self,
        bucket: &str,
        prefix: &str,
        deep: bool,
        limit: Duration,
    ) -> Result<Vec<ObjectHealth>, Error> {
        let looked = self.sequence((bucket, prefix), (deep, true), limit).await?;
        if looked.summary != "finished" {
            return Err(Error::Stopped {
                asked: format!("dry run of a heal of {bucket}/{prefix}"),
                at: looked.at,
                words: looked.summary,
            });
        }
        Ok(looked.items.into_iter().map(|(before, _)| before).collect())
    }

    /// Heals every version of every object below a prefix, and waits for the end. "Finished" does not say that
    /// everything is whole: a dry run does.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Unfinished`] after `limit`.
    pub async fn heal(
        &self,
        bucket: &str,
        prefix: &str,
        deep: bool,
        limit: Duration,
    ) -> Result<Healed, Error> {
        self.sequence((bucket, prefix), (deep, false), limit).await
    }

    async fn sequence(
        &self,
        (bucket, prefix): (&str, &str),
        (deep, dry_run): (bool, bool),
        limit: Duration,
    ) -> Result<Healed, Error> {
        let asked = self.clock.at();
        let scan = if deep { 2 } else { 1 };
        let options = json!({ "recursive": true, "dryRun": dry_run, "scanMode": scan });
        let scope = Scope {
            path: match bucket {
                "" => "/heal/".to_owned(),
                bucket => format!("/heal/{}/{}", encoded(bucket), encoded(prefix)),
            },
            asked: format!(
                "{} of {bucket}/{prefix}",
                if dry_run { "dry run of a heal" } else { "heal" }
            ),
            options: &options,
        };
        let (door, token) = self.started(&scope, limit).await?;
        let mut items = Vec::new();
        let deadline = asked.plus(limit);
        loop {
            let status = self.results(&scope, door, &token).await?;
            // A zero time of Go: this node never began such a sequence. One that is about to begin has it, too.
            if status.summary == "finished" && status.start_time.starts_with("0001-") {
                let (asked, at) = (scope.asked.clone(), door.to_string());
                return Err(Error::Forgotten { asked, at });
            }
            let objects = status.items.into_iter().flatten();
            let objects = objects.filter(|item| item.kind == "object");
            items.extend(objects.map(|item| (item.health(&item.before), item.health(&item.after))));
            if ["finished", "stopped"].contains(&status.summary.as_str()) {
                let summary = match status.detail.as_str() {
                    "" => status.summary,
                    detail => format!("{}: {detail}", status.summary),
                };
                let done = self.clock.at();
                return Ok(Healed {
                    at: door.to_string(),
                    asked,
                    done,
                    summary,
                    items,
                });
            }
            if self.clock.at() >= deadline {
                // Best effort: a sequence that nobody reads waits for a day.
                let _ = self.stop(&scope, door).await;
                return Err(Error::Unfinished {
                    asked: scope.asked.clone(),
                    at: door.to_string(),
                    items: items.len(),
                    limit_s: limit.as_secs(),
                });
            }
            clock::sleep(POLL_EVERY).await;
        }
    }

    /// Starts it at the first node that answers; one on the same path that is still under way is stopped.
    async fn started(&self, scope: &Scope<'_>, limit: Duration) -> Result<(&Door, String), Error> {
        let mut request = Request::new(Method::POST, &scope.path, &scope.asked, ACTION);
        request.query.push(("forceStart", "true".to_owned()));
        request.body = scope.options.to_string();
        // Stopping an older one may take its time; a space comes every 10 s meanwhile.
        request.limit = limit.max(LIMIT);
        let (door, answer) = self.ask(&request).await?;
        let started: Started = read(&request, door, &answer)?;
        Ok((door, started.token))
    }

    async fn results(&self, scope: &Scope<'_>, door: &Door, token: &str) -> Result<Status, Error> {
        let mut request = Request::new(Method::POST, &scope.path, &scope.asked, ACTION);
        request.query.push(("clientToken", token.to_owned()));
        let answer = self.ask_at(door, &request).await?;
        read(&request, door, &answer)
    }

    async fn stop(&self, scope: &Scope<'_>, door: &Door) -> Result<(), Error> {
        let mut request = Request::new(Method::POST, &scope.path, &scope.asked, ACTION);
        request.query.push(("forceStop", "true".to_owned()));
        request.body = scope.options.to_string();
        self.ask_at(door, &request).await.map(|_| ())
    }
}
