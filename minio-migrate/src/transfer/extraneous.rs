//! Removes from the target what was copied and is not on the source any more: only what the journal knows as written here, after two complete
//! listings of the source that agree, and never more than was allowed.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use veza_probe::story::Story;

use super::flow::Flow;
use super::journal::rows::Row;
use crate::targets::s3::{Failure, answered};
use crate::targets::walk::{Entry, Walk};

/// Why nothing, or not all, was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// More than may be removed: nothing was.
    TooMany(u64),
    /// The second listing of the source has what the first had not: nothing was removed.
    Disagree(String),
    /// A store did not do what was asked.
    Failed(String),
    /// The journal takes nothing.
    Journal(String),
}

impl Flow {
    /// Removes what is gone of a bucket, whose last walk came to its end without trouble; returns how many versions.
    ///
    /// # Errors
    /// [`Left`].
    pub async fn remove_gone(&self, bucket: &str, most: u64, story: &Story) -> Result<u64, Left> {
        let rules = &self.rules;
        let place = (bucket, rules.prefix.as_str());
        let wants = |key: &str| rules.choosing.takes(key);
        let limit = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let gone = self.journal.gone_rows(place, wants, limit);
        let gone = gone.map_err(Left::Journal)?;
        if gone.is_empty() {
            return Ok(0);
        }
        if gone.len() as u64 > most {
            return Err(Left::TooMany(most));
        }
        story.say(&format!(
            "{bucket}: {} versions are not on the source any more; listing it once more",
            gone.len()
        ));
        let failed = |failure: Failure| Left::Failed(format!("{bucket}: {failure}"));
        let listed = self.listed(bucket, &gone).await.map_err(failed)?;
        for (key, row) in &gone {
            let history = listed
                .get(key.as_str())
                .map_or(&[][..], |entry| &entry.history);
            let is_back = history.iter().any(|version| {
                version.id.as_deref().unwrap_or_default() == row.source_id
                    && version.etag == row.etag
                    && version.is_mark == row.is_mark
            });
            if is_back {
                return Err(Left::Disagree(format!("{bucket}/{key}")));
            }
        }
        let mut removed = 0;
        for (key, row) in &gone {
            let is_deleted = !listed.contains_key(key.as_str());
            removed += u64::from(self.remove(bucket, (key, row), is_deleted).await?);
        }
        self.journal.save().map_err(Left::Journal)?;
        Ok(removed)
    }

    /// The source's entries of these keys, from a listing of everything.
    async fn listed(
        &self,
        bucket: &str,
        gone: &[(String, Row)],
    ) -> Result<BTreeMap<String, Entry>, Failure> {
        let rules = &self.rules;
        let place = (rules.prefix.as_str(), None);
        let ranges = self.journal.ranges(bucket, place, rules.listings);
        let ranges = ranges.map_err(Failure::silent)?;
        let listed = ranges.iter().map(async |range| {
            let walk = Walk::new(&self.carrier.source, bucket, &rules.prefix, rules.versions);
            let mut walk = walk.within(range);
            let mut found = Vec::new();
            while let Some(entry) = walk.next().await? {
                let is_gone = gone.binary_search_by(|(key, _)| key.as_str().cmp(&entry.key));
                if is_gone.is_ok() {
                    found.push((entry.key.clone(), entry));
                }
            }
            Ok::<_, Failure>(found)
        });
        Ok(try_join_all(listed).await?.into_iter().flatten().collect())
    }

    /// Removes one version, if it is there as it was written. One without an id of its own may be another one by now: it is only removed where
    /// the source has nothing of that key.
    async fn remove(
        &self,
        bucket: &str,
        (key, row): (&str, &Row),
        is_deleted: bool,
    ) -> Result<bool, Left> {
        let failed = |failure: Failure| Left::Failed(format!("{bucket}/{key}: {failure}"));
        let target = &self.carrier.target;
        let first = Walk::new(target, bucket, key, self.rules.versions)
            .next()
            .await
            .map_err(failed)?;
        let history = first
            .filter(|entry| entry.key == key)
            .map(|entry| entry.history)
            .unwrap_or_default();
        let found = history.iter().find(|version| row.target_is(version));
        let has_id = row.target_id.as_deref().is_some_and(|id| id != "null");
        let is_removed = found.is_some() && (has_id || is_deleted);
        if is_removed {
            let removed = target.ask(|client| {
                let request = client.delete_object().bucket(bucket).key(key);
                let id = row.target_id.clone().filter(|_| has_id);
                answered(request.set_version_id(id).send())
            });
            removed.await.map_err(failed)?;
        }
        self.journal
            .removed((bucket, key), row.number)
            .map_err(Left::Journal)?;
        Ok(is_removed)
    }
}
