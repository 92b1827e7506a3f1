//! Watches a cluster heal: by itself for a while, then asked for again and again, until a dry run says that every
//! version is whole. One asked heal is not enough: it has been seen to say "finished" with 159 of 200 versions whole.

use std::collections::BTreeSet;
use std::time::Duration;

use veza_probe::clock::{self, At, Clock};

use super::look::{KeyVersion, Look, by_drive, short};
use super::written::is_of_set;
use super::{Ask, Record};
use veza_probe::minio::{Admin, ClusterInfo, Healed, ObjectHealth};

/// How often it is asked whether the drives are there.
const DRIVES_EVERY: Duration = Duration::from_millis(250);

/// From the end of one look to the next one, while healing goes on by itself.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Between asked heals that changed nothing.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The longest that one look may take; 200 objects take less than a second.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Who heals what.
pub struct Healer {
    /// The run's clock.
    pub clock: Clock,
    /// The admin API of the nodes.
    pub admin: Admin,
    /// The bucket.
    pub bucket: String,
    /// What every key of this run begins with.
    pub prefix: String,
    /// Every version that must be there, marks of deletion among them.
    pub expected: BTreeSet<KeyVersion>,
    /// The cluster as it was before: every drive with its id.
    pub before: ClusterInfo,
    /// The node whose drive is another one now because this run emptied it.
    pub emptied: Option<String>,
    /// Whether the bytes of every part are read, too.
    pub deep: bool,
}

impl Healer {
    /// Watches until everything is whole, or `deadline`: as long as `patience` after the drives were there nothing is
    /// asked for, so that healing can begin by itself. `say` tells the story.
    pub async fn until_whole(
        &self,
        (patience, deadline): (Duration, At),
        record: &mut Record,
        say: &dyn Fn(String),
    ) {
        record.expected = self.expected.len();
        record.patience_us = clock::micros(patience);
        self.drives(deadline, record, say).await;
        self.seen_by_all(deadline, record, say).await;
        let Some(online) = record.online else {
            return;
        };
        self.alone(online.plus(patience).min(deadline), record, say)
            .await;
        while !record.is_whole() && self.clock.at() < deadline {
            self.ask(deadline, record, say).await;
        }
    }

    /// Looks once more, whatever it says.
    pub async fn look(&self, record: &mut Record) {
        record.expected = self.expected.len();
        let asked = self.clock.at();
        let (bucket, prefix) = (&self.bucket, &self.prefix);
        let looked = self
            .admin
            .heal_dry_run(bucket, prefix, self.deep, LOOK_LIMIT)
            .await;
        match looked {
            Ok(items) => {
                let when = (asked, self.clock.at());
                let drives = self.before.drives().count();
                let of_set = items
                    .into_iter()
                    .filter(|item| is_of_set(&item.object, &self.prefix));
                let items: Vec<_> = of_set.collect();
                record
                    .looks
                    .push(Look::of(when, &self.expected, drives, &items));
            }
            Err(error) => trouble(record, error.to_string()),
        }
    }

    /// Waits until every node and drive is there, were it an empty one.
    async fn drives(&self, deadline: At, record: &mut Record, say: &dyn Fn(String)) {
        loop {
            let last = match self.admin.info().await {
                Ok(info) => {
                    let missing = missing(&self.before, &info);
                    if missing.is_empty() {
                        record.online = Some(self.clock.at());
                        record.replaced = replaced(&self.before, &info, self.emptied.as_deref());
                        record.replaced.iter().cloned().for_each(say);
                        return;
                    }
                    missing.join("; ")
                }
                Err(error) => error.to_string(),
            };
            if self.clock.at() >= deadline {
                return trouble(record, format!("not every drive came back: {last}"));
            }
            clock::sleep(DRIVES_EVERY).await;
        }
    }

    /// The node that is asked may not reach a drive for up to 15 s more, though its node says that it is there: what
    /// such a look says of it is not what it lacks. The first one that reaches every drive is kept.
    async fn seen_by_all(&self, deadline: At, record: &mut Record, say: &dyn Fn(String)) {
        while record.online.is_some() {
            self.look(record).await;
            let reached = record.looks.last().filter(|look| !look.has("offline"));
            if let Some(first) = reached {
                record.online = Some(first.answered);
                record.alone = 1;
                let (lacking, of) = (
                    first.expected - first.whole.min(first.expected),
                    first.expected,
                );
                let drives = by_drive(&first.drives);
                return say(format!(
                    "{lacking} of {of} versions lack something ({drives})"
                ));
            }
            if self.clock.at() >= deadline {
                record.online = None;
                return trouble(
                    record,
                    "a drive could not be reached by the other nodes".to_owned(),
                );
            }
            record.unreached = record
                .looks
                .last()
                .map(|look| look.asked)
                .or(record.unreached);
            record.looks.clear();
            clock::sleep(DRIVES_EVERY).await;
        }
    }

    /// Looks again and again while nothing is asked for.
    async fn alone(&self, until: At, record: &mut Record, say: &dyn Fn(String)) {
        loop {
            if record.is_whole() {
                return say("everything is whole, by itself".to_owned());
            }
            if self.clock.at() >= until {
                return;
            }
            let next = self.clock.at().plus(LOOK_EVERY);
            self.clock.sleep_until(next.min(until)).await;
            self.look(record).await;
            record.alone = record.looks.len();
        }
    }

    /// Asks for one heal, and looks what came of it.
    pub async fn ask(&self, deadline: At, record: &mut Record, say: &dyn Fn(String)) {
        let before = record.lacking_now();
        let left_us = u64::try_from(deadline.us_since(self.clock.at())).unwrap_or(0);
        let limit = Duration::from_micros(left_us).max(Duration::from_secs(1));
        let (bucket, prefix) = (&self.bucket, &self.prefix);
        match self.admin.heal(bucket, prefix, self.deep, limit).await {
            Ok(healed) => record.asks.push(ask_of(&healed, prefix)),
            Err(error) => trouble(record, error.to_string()),
        }
        self.look(record).await;
        let (now, asked) = (record.lacking_now(), record.asks.len());
        say(format!(
            "after asked heal {asked}: {now} of {} versions lack something",
            record.expected
        ));
        if now >= before && now > 0 {
            clock::sleep(ASK_AGAIN).await;
        }
    }
}

/// The same sentence is not told a hundred times.
fn trouble(record: &mut Record, words: String) {
    if record.trouble.last() != Some(&words) {
        record.trouble.push(words);
    }
}

/// What an asked heal did to the working set.
fn ask_of(healed: &Healed, prefix: &str) -> Ask {
    let of_set = |(before, _): &&(ObjectHealth, ObjectHealth)| is_of_set(&before.object, prefix);
    let mut mended = Vec::new();
    for (before, after) in healed.mended().filter(of_set) {
        for (drive, _) in before.lacking() {
            if !after.lacking().any(|(still, _)| still == drive) {
                mended.push((before.object.clone(), before.version.clone(), drive.clone()));
            }
        }
    }
    let all: Vec<_> = healed.items.iter().filter(of_set).collect();
    let failed = all.iter().filter(|(_, after)| !after.detail.is_empty());
    let failed = failed.map(|(_, after)| format!("{}: {}", after.object, after.detail));
    Ask {
        asked: healed.asked,
        done: healed.done,
        summary: healed.summary.clone(),
        looked_at: all.len(),
        mended,
        failed: failed.collect(),
    }
}

/// What was there before and is not now; a drive that is being filled is there.
pub fn missing(before: &ClusterInfo, now: &ClusterInfo) -> Vec<String> {
    let mut words = Vec::new();
    for node in &before.nodes {
        let is_now = now.nodes.iter().find(|now| now.endpoint == node.endpoint);
        match is_now {
            Some(now) if now.state == "online" => {}
            Some(now) => words.push(format!("{} is {}", node.endpoint, now.state)),
            None => words.push(format!("{} is gone", node.endpoint)),
        }
    }
    for (_, drive) in before.drives() {
        let is_now = now.drives().find(|(_, now)| now.endpoint == drive.endpoint);
        match is_now {
            Some((_, now)) if now.state == "ok" => {}
            Some((_, now)) => words.push(format!("{} is {}", short(&drive.endpoint), now.state)),
            None => words.push(format!("{} is not told of", short(&drive.endpoint))),
        }
    }
    words
}

/// Drives that came back as others, or are being filled, and that this run did not empty.
pub fn replaced(before: &ClusterInfo, now: &ClusterInfo, emptied: Option<&str>) -> Vec<String> {
    let mut words = Vec::new();
    for (node, drive) in before.drives() {
        let is_now = now.drives().find(|(_, now)| now.endpoint == drive.endpoint);
        let Some((_, is_now)) = is_now.filter(|_| emptied != Some(node.endpoint.as_str())) else {
            continue;
        };
        let name = short(&drive.endpoint);
        if is_now.healing && !drive.healing {
            words.push(format!(
                "{name} came back empty, and is being filled: nobody here emptied it"
            ));
        } else if !drive.uuid.is_empty() && is_now.uuid != drive.uuid {
            let (was, id) = (&drive.uuid, &is_now.uuid);
            words.push(format!(
                "{name} came back as another drive: {id}, and was {was}"
            ));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use veza_probe::minio::{Drive, NodeInfo};

    fn cluster(drives: &[(&str, &str, bool)]) -> ClusterInfo {
        let nodes = drives
            .iter()
            .zip(1..)
            .map(|((state, uuid, healing), n)| NodeInfo {
                endpoint: format!("minio-{n}:9000"),
                state: "online".to_owned(),
                drives: vec![Drive {
                    endpoint: format!("http://minio-{n}:9000/data"),
                    state: (*state).to_owned(),
                    uuid: (*uuid).to_owned(),
                    healing: *healing,
                    ..Drive::default()
                }],
                ..NodeInfo::default()
            });
        ClusterInfo {
            nodes: nodes.collect(),
            ..ClusterInfo::default()
        }
    }

    #[test]
    fn a_drive_that_is_not_there_is_waited_for() {
        let before = cluster(&[("ok", "a", false), ("ok", "b", false)]);
        assert!(missing(&before, &before).is_empty());
        let now = cluster(&[("ok", "a", false), ("unformatted", "", false)]);
        assert_eq!(missing(&before, &now), ["minio-2/data is unformatted"]);
        let mut now = cluster(&[("ok", "a", false)]);
        let words = ["minio-2:9000 is gone", "minio-2/data is not told of"];
        assert_eq!(missing(&before, &now), words);
        now.nodes.push(NodeInfo {
            endpoint: "minio-2:9000".to_owned(),
            state: "initializing".to_owned(),
            ..NodeInfo::default()
        });
        assert_eq!(missing(&before, &now)[0], "minio-2:9000 is initializing");
    }

    #[test]
    fn a_drive_that_came_back_empty_is_seen() {
        let before = cluster(&[("ok", "a", false), ("ok", "b", false)]);
        let now = cluster(&[("ok", "a", false), ("ok", "b", true)]);
        assert!(missing(&before, &now).is_empty());
        let seen = replaced(&before, &now, None);
        assert!(seen[0].contains("minio-2/data came back empty"), "{seen:?}");
        let now = cluster(&[("ok", "a", false), ("ok", "c", false)]);
        let seen = replaced(&before, &now, None);
        assert!(seen[0].contains("another drive: c"), "{seen:?}");
        assert!(
            replaced(&before, &now, Some("minio-2:9000")).is_empty(),
            "this run did that"
        );
        assert!(replaced(&before, &before, None).is_empty());
    }
}
