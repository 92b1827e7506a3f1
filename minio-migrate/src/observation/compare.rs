//! Compares what both stores have of one key: each version's bytes, and all that belongs to them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_s3::Client;
use sha2::{Digest, Sha256};
use veza_probe::clock::{self, Clock};

use super::findings::{Book, Finding, Kind};
use crate::cli::{Depth, Versions};
use crate::targets::s3::{Failure, LIMIT, S3, answered, causes};
use crate::targets::walk::{Entry, Version, Walk};
use crate::transfer::journal::Journal;
use crate::transfer::journal::rows::{Row, Verified};

/// How long is waited before each further reading of what a node says is not there, and is listed.
const LISTED_AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// All that belongs to an object beside its bytes, as far as S3 lets it be written: of an answer to GET or HEAD, which are two types
/// with the same fields.
macro_rules! about {
    ($answer:ident) => {{
        let word = |value: Option<&str>| value.map(str::to_owned);
        let retention = $answer.object_lock_mode.as_ref().map(|mode| mode.as_str());
        let until = $answer
            .object_lock_retain_until_date
            .map(|until| until.to_string());
        let hold = $answer
            .object_lock_legal_hold_status
            .as_ref()
            .map(|hold| hold.as_str());
        let headers = [
            ("Content-Type", $answer.content_type.clone()),
            ("Cache-Control", $answer.cache_control.clone()),
            ("Content-Disposition", $answer.content_disposition.clone()),
            ("Content-Encoding", $answer.content_encoding.clone()),
            ("Content-Language", $answer.content_language.clone()),
            ("Expires", $answer.expires_string.clone()),
            (
                "website redirect",
                $answer.website_redirect_location.clone(),
            ),
            ("retention mode", word(retention)),
            ("retained until", until),
            ("legal hold", word(hold)),
        ];
        let headers = headers.into_iter();
        let headers = headers.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let none = HashMap::new();
        let metadata = $answer.metadata.as_ref().unwrap_or(&none).iter();
        // Names of user metadata are headers: their case is not kept.
        let name = |name: &str| format!("metadata {}", name.to_ascii_lowercase());
        let metadata = metadata.map(|(key, value)| (name(key), value.clone()));
        headers
            .chain(metadata)
            .collect::<BTreeMap<String, String>>()
    }};
}

/// Whose keys are compared, and how.
#[derive(Clone)]
pub struct Comparer {
    /// What is moved away from.
    pub source: S3,
    /// What is moved to.
    pub target: S3,
    /// How much is read.
    pub depth: Depth,
    /// Where it is written down.
    pub book: Book,
    /// The journal of the copy, where there is one: what the source sent then is not asked of it again, and what is the same is
    /// written down there.
    pub journal: Option<Noted>,
}

/// A journal, and what is believed of it.
#[derive(Clone)]
pub struct Noted {
    /// The journal.
    pub journal: Journal,
    /// The run's clock.
    pub clock: Clock,
    /// Whether what was read again before is not read once more.
    pub is_delta: bool,
}

/// What a journal knows of the key that is compared.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    /// The row of a version that was copied as it is now.
    fn of(&self, source: &Version, target: &Version) -> Option<&Row> {
        let id = source.id.as_deref().unwrap_or_default();
        self.0.iter().find(|row| {
            row.gone_ms.is_none()
                && row.source_id == id
                && row.etag == source.etag
                && row.target_etag == target.etag
                && (row.target_id.is_none() || target.id.is_none() || row.target_id == target.id)
        })
    }
}

/// A version as it was read.
struct Content {
    sha256: [u8; 32],
    size_bytes: u64,
    etag: String,
    /// What belongs to it, by a name for people.
    about: BTreeMap<String, String>,
    /// The node that it was read through.
    node: String,
}

/// The place of a finding.
struct Place<'a> {
    bucket: &'a str,
    key: &'a str,
}

impl Place<'_> {
    fn finding(&self, kind: Kind, version: Option<&Version>, words: impl Into<String>) -> Finding {
        Finding {
            kind,
            bucket: self.bucket.to_owned(),
            key: self.key.to_owned(),
            version: version.and_then(|version| version.id.clone()),
            words: words.into(),
        }
    }
}

impl Comparer {
    /// A key that only one of them has.
    pub fn only(&self, kind: Kind, bucket: &str, entry: &Entry) {
        let place = Place {
            bucket,
            key: &entry.key,
        };
        let versions = entry.versions().count();
        let marks = entry.history.len() - versions;
        let mut words = format!("{versions} versions");
        if marks > 0 {
            words = format!("{words} and {marks} marks of deletion");
        }
        self.book
            .take(place.finding(kind, entry.versions().next(), words));
    }

    /// A key that both have. Versions are set side by side from the newest on: a copy of the newest alone is missing the rest.
    pub async fn both(&self, bucket: &str, one: &Entry, other: &Entry) {
        let place = Place {
            bucket,
            key: &one.key,
        };
        let reads = is_read(self.depth, &one.key);
        let rows = match self.rows(bucket, &one.key) {
            Ok(rows) => rows,
            Err(words) => return self.book.count(|seen| seen.broken.push(words)),
        };
        for pair in side_by_side(one, other) {
            match pair {
                (Some(source), Some(target)) => {
                    let row = rows.of(source, target);
                    self.pair(&place, (source, target), (reads, row)).await;
                }
                (Some(source), None) => {
                    let words = "a version of a key that is there";
                    self.book
                        .take(place.finding(Kind::Missing, Some(source), words));
                }
                (None, Some(target)) => {
                    let words = "a version of a key that is there";
                    self.book
                        .take(place.finding(Kind::Unexpected, Some(target), words));
                }
                (None, None) => {}
            }
        }
        let marks = |entry: &Entry| entry.history.len() - entry.versions().count();
        let is_same_number = one.versions().count() == other.versions().count();
        if marks(one) != marks(other) || (is_same_number && one.order() != other.order()) {
            let words = format!(
                "versions (V) and marks of deletion (M), the newest first: source {}, target {}",
                one.order(),
                other.order()
            );
            self.book.take(place.finding(Kind::Different, None, words));
        } else {
            self.book.count(|seen| seen.marks += marks(one) as u64);
        }
        self.book.count(|seen| seen.keys += 1);
    }

    fn rows(&self, bucket: &str, key: &str) -> Result<Rows, String> {
        let noted = self.journal.as_ref();
        let rows = noted.map(|noted| noted.journal.of_key(bucket, key));
        rows.transpose().map(Option::unwrap_or_default).map(Rows)
    }

    async fn pair(
        &self,
        place: &Place<'_>,
        (source, target): (&Version, &Version),
        (reads, row): (bool, Option<&Row>),
    ) {
        self.book.count(|seen| {
            seen.etags += u64::from(source.etag != target.etag);
            seen.ids += u64::from(source.id != target.id);
        });
        let amiss = |kind, words: String| self.book.take(place.finding(kind, Some(source), words));
        if source.size_bytes != target.size_bytes {
            let (one, other) = (source.size_bytes, target.size_bytes);
            return amiss(
                Kind::Different,
                format!("{one} bytes on the source, {other} on the target"),
            );
        }
        if !reads {
            return self.book.count(|seen| seen.listed += 1);
        }
        let is_delta = self.journal.as_ref().is_some_and(|noted| noted.is_delta);
        if is_delta && row.is_some_and(|row| row.verified_ms.is_some()) {
            return self.book.count(|seen| seen.verified_before += 1);
        }
        let sent = row.and_then(|row| row.sha256);
        let writer = row.and_then(|row| row.node.as_deref());
        let (one, other) = tokio::join!(
            async {
                match sent {
                    Some(sha256) => asked(&self.source, place, source, sha256).await,
                    None => self.read(&self.source, place, source, None).await,
                }
            },
            self.read(&self.target, place, target, writer)
        );
        for (side, version, content) in [("source", source, &one), ("target", target, &other)] {
            match content {
                Err(failure) if failure.is_gone() => {
                    return amiss(
                        Kind::Changed,
                        format!("on the {side} since it was listed: {failure}"),
                    );
                }
                Err(failure) => return amiss(Kind::Unread, format!("on the {side}: {failure}")),
                Ok(content) if content.etag != version.etag => {
                    let words = format!(
                        "on the {side} since it was listed: ETag {} then, {} now",
                        version.etag, content.etag
                    );
                    return amiss(Kind::Changed, words);
                }
                Ok(_) => {}
            }
        }
        if let (Ok(one), Ok(other)) = (one, other) {
            self.book.count(|seen| seen.bytes += one.size_bytes);
            match differences(&one, &other).as_slice() {
                [] => {
                    self.book.count(|seen| {
                        seen.same += 1;
                        seen.noted += u64::from(sent.is_some());
                    });
                    self.note(place, row, &other);
                }
                all => amiss(Kind::Different, all.join("; ")),
            }
        }
    }

    /// Reads a version. Just after its start a node of MinIO has been seen to answer 404 for objects that all nodes list and the others
    /// have: what is still listed is asked for again, of nodes that have not said so, counted, and at last unread, as nobody has removed it.
    async fn read(
        &self,
        store: &S3,
        place: &Place<'_>,
        version: &Version,
        writer: Option<&str>,
    ) -> Result<Content, Failure> {
        let mut avoided: Vec<String> = writer.map(str::to_owned).into_iter().collect();
        let mut pauses = LISTED_AGAIN.iter();
        loop {
            let content = read(store, place, version, &avoided).await;
            let Err(failure) = content else {
                return content;
            };
            if !failure.is_gone() || !is_listed(store, place, version).await {
                return Err(failure);
            }
            let Some(pause) = pauses.next() else {
                return Err(Failure::silent(format!("it is listed, and yet: {failure}")));
            };
            self.book.count(|seen| seen.denied += 1);
            avoided.extend(failure.node);
            clock::sleep(*pause).await;
        }
    }

    /// Writes into the journal that a version was read again and is the same.
    fn note(&self, place: &Place<'_>, row: Option<&Row>, read: &Content) {
        let (Some(noted), Some(row)) = (&self.journal, row) else {
            return;
        };
        let verified = Verified {
            number: row.number,
            sha256: read.sha256,
            node: &read.node,
            at_ms: noted.clock.wall(noted.clock.at()).as_millisecond(),
        };
        if let Err(words) = noted.journal.verified((place.bucket, place.key), &verified) {
            self.book.count(|seen| seen.broken.push(words));
        }
    }
}

/// The versions of both, each beside the one that it would be a copy of. Of a key with fewer versions on one side either the newest
/// are missing or the oldest: whichever leaves more that are the same.
fn side_by_side<'a>(
    one: &'a Entry,
    other: &'a Entry,
) -> Vec<(Option<&'a Version>, Option<&'a Version>)> {
    let (ones, others): (Vec<_>, Vec<_>) = (one.versions().collect(), other.versions().collect());
    let length = ones.len().max(others.len());
    let behind = |versions: &[&'a Version], skipped: usize| {
        let mut all = vec![None; skipped];
        all.extend(versions.iter().copied().map(Some));
        all.resize(length, None);
        all
    };
    let aligned = |is_newest: bool| {
        let side = |versions: &[&'a Version]| {
            behind(
                versions,
                if is_newest {
                    0
                } else {
                    length - versions.len()
                },
            )
        };
        side(&ones)
            .into_iter()
            .zip(side(&others))
            .collect::<Vec<_>>()
    };
    let same = |pairs: &[(Option<&Version>, Option<&Version>)]| {
        let is_same = |(one, other): &&(Option<&Version>, Option<&Version>)| {
            one.zip(*other)
                .is_some_and(|(one, other)| one.etag == other.etag)
        };
        pairs.iter().filter(is_same).count()
    };
    let (newest, oldest) = (aligned(true), aligned(false));
    if same(&oldest) > same(&newest) {
        oldest
    } else {
        newest
    }
}

/// Whether the bytes of a key are read: decided by the key itself, so that another run takes the same ones.
fn is_read(depth: Depth, key: &str) -> bool {
    match depth {
        Depth::Full => true,
        Depth::Sample(percent) => {
            let hash = Sha256::digest(key.as_bytes());
            let first = hash
                .iter()
                .take(4)
                .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
            f64::from(first) / f64::from(u32::MAX) * 100.0 < percent
        }
    }
}

/// What of two versions is not the same.
fn differences(one: &Content, other: &Content) -> Vec<String> {
    let mut all = Vec::new();
    if one.sha256 != other.sha256 {
        all.push("their bytes differ (SHA-256)".to_owned());
    }
    let names: Vec<&String> = one.about.keys().chain(other.about.keys()).collect();
    let mut names = names;
    names.sort();
    names.dedup();
    for name in names {
        let value = |content: &Content| content.about.get(name).cloned();
        let told = |value: Option<String>| {
            value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"))
        };
        if value(one) != value(other) {
            all.push(format!(
                "{name}: {} on the source, {} on the target",
                told(value(one)),
                told(value(other))
            ));
        }
    }
    all
}

/// Whether a store lists a version as it was listed before.
async fn is_listed(store: &S3, place: &Place<'_>, version: &Version) -> bool {
    let versions = match version.id {
        Some(_) => Versions::All,
        None => Versions::Latest,
    };
    let first = Walk::new(store, place.bucket, place.key, versions)
        .next()
        .await;
    let entry = first.ok().flatten().filter(|entry| entry.key == place.key);
    let is_it = |listed: &Version| (&listed.id, &listed.etag) == (&version.id, &version.etag);
    entry.is_some_and(|entry| entry.versions().any(is_it))
}

/// Reads a version, hashes its bytes, and gathers what belongs to it. A body that ends early or stands still is read again.
/// Where there are several nodes, another one is asked than those that are avoided.
async fn read(
    store: &S3,
    place: &Place<'_>,
    version: &Version,
    avoided: &[String],
) -> Result<Content, Failure> {
    let read = store.ask_avoiding(avoided, |client| async move {
        read_once(&client, place, version).await
    });
    let (mut content, node) = read.await?;
    content.node = node;
    Ok(content)
}

/// Asks for what belongs to a version, whose bytes were read before.
async fn asked(
    store: &S3,
    place: &Place<'_>,
    version: &Version,
    sha256: [u8; 32],
) -> Result<Content, Failure> {
    let ask = |client: Client| async move {
        let request = client.head_object().bucket(place.bucket).key(place.key);
        let answer = answered(request.set_version_id(version.id.clone()).send()).await?;
        let mut about = about!(answer);
        if answer.tag_count.unwrap_or_default() > 0 {
            about.extend(tags(&client, place, version).await?);
        }
        let size = answer.content_length.unwrap_or_default();
        Ok(Content {
            sha256,
            size_bytes: u64::try_from(size).unwrap_or_default(),
            etag: answer.e_tag.unwrap_or_default(),
            about,
            node: String::new(),
        })
    };
    store.ask(ask).await
}

/// A version's tags.
async fn tags(
    client: &Client,
    place: &Place<'_>,
    version: &Version,
) -> Result<Vec<(String, String)>, Failure> {
    let request = client
        .get_object_tagging()
        .bucket(place.bucket)
        .key(place.key);
    let tags = answered(request.set_version_id(version.id.clone()).send()).await?;
    let tags = tags.tag_set.into_iter();
    Ok(tags
        .map(|tag| (format!("tag {}", tag.key), tag.value))
        .collect())
}

async fn read_once(
    client: &Client,
    place: &Place<'_>,
    version: &Version,
) -> Result<Content, Failure> {
    let request = client.get_object().bucket(place.bucket).key(place.key);
    let request = request.set_version_id(version.id.clone());
    let mut answer = answered(request.send()).await?;
    let (mut hash, mut size_bytes) = (Sha256::new(), 0);
    loop {
        let chunk = clock::within(LIMIT, answer.body.next()).await;
        let chunk = chunk.map_err(|elapsed| Failure::silent(format!("its bytes: {elapsed}")))?;
        let Some(chunk) = chunk else { break };
        let chunk =
            chunk.map_err(|error| Failure::silent(format!("its bytes: {}", causes(&error))))?;
        size_bytes += chunk.len() as u64;
        hash.update(&chunk);
    }
    let announced = answer
        .content_length
        .and_then(|length| u64::try_from(length).ok());
    if announced.is_some_and(|announced| announced != size_bytes) {
        return Err(Failure::silent(format!(
            "{size_bytes} bytes came instead of {announced:?}"
        )));
    }
    let mut about = about!(answer);
    if answer.tag_count.unwrap_or_default() > 0 {
        about.extend(tags(client, place, version).await?);
    }
    Ok(Content {
        sha256: hash.finalize().into(),
        size_bytes,
        etag: answer.e_tag.unwrap_or_default(),
        about,
        node: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(byte: u8, about: &[(&str, &str)]) -> Content {
        let about = about
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Content {
            sha256: [byte; 32],
            size_bytes: 1,
            etag: String::new(),
            about: about.collect(),
            node: String::new(),
        }
    }

    #[test]
    fn bytes_and_all_that_belongs_to_them_are_compared() {
        let one = content(1, &[("Content-Type", "audio/flac"), ("tag a", "1")]);
        assert!(
            differences(
                &one,
                &content(1, &[("Content-Type", "audio/flac"), ("tag a", "1")])
            )
            .is_empty()
        );
        let words = differences(
            &one,
            &content(2, &[("Content-Type", "audio/mpeg"), ("tag b", "1")]),
        )
        .join("; ");
        for word in [
            "SHA-256",
            "Content-Type: \"audio/flac\" on the source",
            "tag a: \"1\" on the source, none",
            "tag b: none",
        ] {
            assert!(words.contains(word), "{word}: {words}");
        }
    }

    #[test]
    fn versions_stand_beside_what_they_are_a_copy_of() {
        let entry = |etags: &str| Entry {
            key: "k".to_owned(),
            history: etags
                .chars()
                .map(|etag| Version::of(None, &etag.to_string(), etag == 'M'))
                .collect(),
        };
        let pairs = |one: &str, other: &str| {
            let (one, other) = (entry(one), entry(other));
            let word =
                |version: Option<&Version>| version.map_or("-", |version| &version.etag).to_owned();
            let pairs = side_by_side(&one, &other).into_iter();
            let words: Vec<String> = pairs.map(|(one, other)| word(one) + &word(other)).collect();
            words.join(" ")
        };
        assert_eq!(pairs("321", "321"), "33 22 11");
        assert_eq!(pairs("321", "21"), "3- 22 11", "the newest is missing");
        assert_eq!(pairs("321", "3"), "33 2- 1-", "only the newest was copied");
        assert_eq!(pairs("21", "321"), "-3 22 11");
        assert_eq!(pairs("3M1", "x1"), "3x 11");
        assert_eq!(pairs("3", ""), "3-");
    }

    #[test]
    fn a_sample_is_about_its_share_and_always_the_same() {
        let keys: Vec<String> = (0..2000).map(|number| format!("tracks/{number}")).collect();
        let taken = |depth| keys.iter().filter(|key| is_read(depth, key)).count();
        assert_eq!(taken(Depth::Full), 2000);
        let tenth = taken(Depth::Sample(10.0));
        assert!((140..260).contains(&tenth), "{tenth}");
        assert_eq!(tenth, taken(Depth::Sample(10.0)));
    }
}
