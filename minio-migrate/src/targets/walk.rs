//! The keys of a bucket in their order, each with its versions, a page at a time: what is held does not grow with the bucket.

use std::collections::BTreeMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

use super::ranges::Range;
use super::s3::{Failure, S3, answered};
use crate::cli::Versions;

/// A key and what a listing tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its versions and marks of deletion, the newest first.
    pub history: Vec<Version>,
}

/// A version of an object, or a mark of deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its id, `null` of one that was written without versioning; none where the listing was without versions.
    pub id: Option<String>,
    /// Its ETag; empty of a mark.
    pub etag: String,
    /// Its size; none of a mark.
    pub size_bytes: u64,
    /// When it was written, in milliseconds since 1970, as the store says.
    pub modified_ms: i64,
    /// Whether it is a mark of deletion.
    pub is_mark: bool,
    /// Whether it is the one that a reader gets who names none.
    is_latest: bool,
}

#[cfg(test)]
impl Version {
    /// One of a test.
    pub fn of(id: Option<String>, etag: &str, is_mark: bool) -> Version {
        Version {
            id,
            etag: etag.to_owned(),
            size_bytes: 1,
            modified_ms: 1,
            is_mark,
            is_latest: false,
        }
    }
}

impl Entry {
    /// Its versions, the newest first, without marks of deletion.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.history.iter().filter(|version| !version.is_mark)
    }

    /// The order of versions and marks, the newest first: `VVM`.
    pub fn order(&self) -> String {
        let letter = |version: &Version| if version.is_mark { 'M' } else { 'V' };
        self.history.iter().map(letter).collect()
    }

    /// Sets versions and marks, which a listing's reader gets apart, in the order of their times. What was written in the same
    /// millisecond stays in the order of the listing, versions first.
    fn sort(&mut self) {
        self.history
            .sort_by_key(|version| (!version.is_latest, std::cmp::Reverse(version.modified_ms)));
    }
}

/// A walk through a bucket.
pub struct Walk {
    store: S3,
    bucket: String,
    prefix: String,
    versions: Versions,
    /// Where the next page begins; none at the end.
    next: Option<Marker>,
    /// Keys of the last page that were not handed out yet. The last one may go on in the next page.
    page: BTreeMap<String, Entry>,
    /// The last key that was handed out.
    last: Option<String>,
    /// The last key that is wanted; none: to the end.
    until: Option<String>,
}

/// Where a page begins.
#[derive(Clone, Debug, Default)]
struct Marker {
    key: Option<String>,
    version: Option<String>,
    token: Option<String>,
}

/// What a page held, beside where the next one begins.
#[derive(Default)]
struct Page {
    versions: Vec<(String, Version)>,
}

impl Walk {
    /// A walk that has not begun.
    pub fn new(store: &S3, bucket: &str, prefix: &str, versions: Versions) -> Walk {
        Walk {
            store: store.clone(),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            versions,
            next: Some(Marker::default()),
            page: BTreeMap::new(),
            last: None,
            until: None,
        }
    }

    /// A walk through the keys of a range.
    #[must_use]
    pub fn within(mut self, range: &Range) -> Walk {
        self.until.clone_from(&range.until);
        if let Some(key) = range.behind.clone() {
            self.next = Some(Marker {
                key: Some(key.clone()),
                ..Marker::default()
            });
            self.last = Some(key);
        }
        self
    }

    /// The next key; none at the end.
    ///
    /// # Errors
    /// [`Failure`] when the listing broke off: what follows is not known then.
    pub async fn next(&mut self) -> Result<Option<Entry>, Failure> {
        while self.page.len() < 2 {
            let Some(marker) = self.next.take() else {
                break;
            };
            let (page, next) = match self.versions {
                Versions::All => self.all(&marker).await?,
                Versions::Latest => self.latest(&marker).await?,
            };
            self.take(page)?;
            self.next = next;
            self.leave_beyond();
        }
        let first = self.page.pop_first();
        Ok(first.map(|(key, mut entry)| {
            self.last = Some(key);
            entry.sort();
            entry
        }))
    }

    /// What is behind the range is another walk's.
    fn leave_beyond(&mut self) {
        if let Some(until) = &self.until {
            let before = self.page.len();
            self.page.retain(|key, _| key <= until);
            if self.page.len() < before {
                self.next = None;
            }
        }
    }

    fn take(&mut self, page: Page) -> Result<(), Failure> {
        for (key, _) in &page.versions {
            // A key that comes twice would be compared with half of its versions.
            if self.last.as_ref().is_some_and(|last| key <= last) {
                let words = format!(
                    "{}: the listing is not in the order of its keys: {key}",
                    self.bucket
                );
                return Err(Failure::silent(words));
            }
        }
        for (key, version) in page.versions {
            entry(&mut self.page, key).history.push(version);
        }
        Ok(())
    }

    async fn all(&self, marker: &Marker) -> Result<(Page, Option<Marker>), Failure> {
        let ask = |client: Client| {
            let request = client
                .list_object_versions()
                .bucket(&self.bucket)
                .prefix(&self.prefix);
            let request = request.encoding_type(EncodingType::Url);
            let request = request.set_key_marker(marker.key.clone());
            answered(request.set_version_id_marker(marker.version.clone()).send())
        };
        let answer = self.store.ask(ask).await?;
        let is_encoded = answer.encoding_type == Some(EncodingType::Url);
        let plain = |text: Option<String>| text.map(|text| decoded(&text, is_encoded));
        let mut page = Page::default();
        for version in answer.versions.unwrap_or_default() {
            let Some(key) = plain(version.key) else {
                continue;
            };
            page.versions.push((
                key,
                Version {
                    id: version.version_id,
                    etag: version.e_tag.unwrap_or_default(),
                    size_bytes: size(version.size),
                    modified_ms: millis(version.last_modified),
                    is_mark: false,
                    is_latest: version.is_latest == Some(true),
                },
            ));
        }
        for mark in answer.delete_markers.unwrap_or_default() {
            let Some(key) = plain(mark.key) else { continue };
            page.versions.push((
                key,
                Version {
                    id: mark.version_id,
                    etag: String::new(),
                    size_bytes: 0,
                    modified_ms: millis(mark.last_modified),
                    is_mark: true,
                    is_latest: mark.is_latest == Some(true),
                },
            ));
        }
        let next = (answer.is_truncated == Some(true)).then(|| Marker {
            key: plain(answer.next_key_marker),
            version: answer.next_version_id_marker,
            token: None,
        });
        Ok((
            page,
            goes_on(next, |next| {
                next.key != marker.key || next.version != marker.version
            })?,
        ))
    }

    async fn latest(&self, marker: &Marker) -> Result<(Page, Option<Marker>), Failure> {
        let ask = |client: Client| {
            let request = client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&self.prefix);
            let request = request.encoding_type(EncodingType::Url);
            let request = request.set_continuation_token(marker.token.clone());
            answered(request.set_start_after(marker.key.clone()).send())
        };
        let answer = self.store.ask(ask).await?;
        let is_encoded = answer.encoding_type == Some(EncodingType::Url);
        let mut page = Page::default();
        for object in answer.contents.unwrap_or_default() {
            let Some(key) = object.key else { continue };
            page.versions.push((
                decoded(&key, is_encoded),
                Version {
                    id: None,
                    etag: object.e_tag.unwrap_or_default(),
                    size_bytes: size(object.size),
                    modified_ms: millis(object.last_modified),
                    is_mark: false,
                    is_latest: true,
                },
            ));
        }
        let next = (answer.is_truncated == Some(true)).then(|| Marker {
            token: answer.next_continuation_token,
            ..Marker::default()
        });
        Ok((page, goes_on(next, |next| next.token != marker.token)?))
    }
}

/// The entry of a key, made where there is none yet.
fn entry(page: &mut BTreeMap<String, Entry>, key: String) -> &mut Entry {
    page.entry(key.clone()).or_insert_with(|| Entry {
        key,
        ..Entry::default()
    })
}

/// A next page that begins where this one did would never end; and one that begins nowhere would begin anew.
fn goes_on(
    next: Option<Marker>,
    moves: impl Fn(&Marker) -> bool,
) -> Result<Option<Marker>, Failure> {
    match &next {
        Some(marker) if (marker.key.is_none() && marker.token.is_none()) || !moves(marker) => Err(
            Failure::silent("the listing says that it goes on, and not where"),
        ),
        _ => Ok(next),
    }
}

fn size(size: Option<i64>) -> u64 {
    u64::try_from(size.unwrap_or_default()).unwrap_or_default()
}

fn millis(time: Option<DateTime>) -> i64 {
    time.and_then(|time| time.to_millis().ok())
        .unwrap_or_default()
}

/// A key as it is: in a listing of `encoding-type=url` it is a form's value, with `+` for a blank.
pub fn decoded(text: &str, is_encoded: bool) -> String {
    if !is_encoded {
        return text.to_owned();
    }
    let blank = text.replace('+', " ");
    percent_decode_str(&blank).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_listing_are_form_values() {
        assert_eq!(decoded("a%2Bb+c%C3%A9/d%25", true), "a+b cé/d%");
        assert_eq!(decoded("a+b%2B", false), "a+b%2B");
    }

    #[test]
    fn a_listing_that_does_not_move_is_broken() {
        let at = |key: &str| Marker {
            key: Some(key.to_owned()),
            ..Marker::default()
        };
        assert!(goes_on(None, |_| true).unwrap().is_none());
        assert!(goes_on(Some(at("b")), |_| true).unwrap().is_some());
        assert!(goes_on(Some(at("b")), |_| false).is_err());
        assert!(goes_on(Some(Marker::default()), |_| true).is_err());
    }
}
