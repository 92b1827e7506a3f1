//! One version of an object, with all that belongs to it, from the source to the target.

mod about;
mod stream;
mod parts;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use veza_probe::clock::Clock;

use super::pace::Memory;
use crate::cli::Versions;
use crate::targets::s3::{Failure, S3, answered, answered_within};
use crate::targets::walk::{Version, Walk};
use about::About;
use stream::Hashed;

/// Up to this size a body is held in memory, so that it can be sent again without asking the source again, and so that its SHA-256
/// goes ahead of it and the target itself refuses other bytes. In bytes.
pub const HELD: u64 = 16 << 20;

/// The slowest that a body may pass, in bytes each second; slower, and another connection is tried.
const SLOWEST: u64 = 512 << 10;

/// Who carries.
#[derive(Clone)]
pub struct Carrier {
    /// What is moved away from.
    pub source: S3,
    /// What is moved to.
    pub target: S3,
    /// What may be held of objects at the same time.
    pub memory: Memory,
    /// Whether another ETag for the same bytes is taken.
    pub other_etags: bool,
    /// The run's clock.
    pub clock: Clock,
}

/// A version that is on the target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// SHA-256 of what the source sent; zeroes of a mark of deletion.
    pub sha256: [u8; 32],
    /// How many bytes that were.
    pub size_bytes: u64,
    /// The target's id of it, where it has versions.
    pub target_id: Option<String>,
    /// The target's ETag of it.
    pub target_etag: String,
    /// The node that took it.
    pub node: String,
    /// What the target could not take, in words: a retention that is over.
    pub losses: Vec<String>,
}

/// Why a version was not carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not on the source any more, or another one than was listed: the key is to be listed again.
    Changed(String),
    /// It can't be carried, or not now.
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failed(failure)
    }
}

/// Where a version is, and which one is the newest on the target so far.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The target's id of what was the newest of this key there.
    pub before: Option<&'a str>,
}

/// What the target said of a version that it took.
struct Taken {
    id: Option<String>,
    etag: String,
    is_encrypted: bool,
}

impl Carrier {
    /// Carries a version as the newest of its key. What has an ETag of one piece is written in one piece, and what has one of N
    /// parts in parts of the same sizes: so the target's ETag is the source's, which proves that what was read is what the source
    /// has. Where it is another one, the version is removed again and carried once more.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn version(&self, place: Place<'_>, version: &Version) -> Result<Carried, Trouble> {
        let mut first: Option<[u8; 32]> = None;
        loop {
            let (mut carried, is_encrypted) = self.once(place, version).await?;
            if carried.target_etag == version.etag || is_encrypted {
                return Ok(carried);
            }
            let (ours, theirs) = (&version.etag, &carried.target_etag);
            let is_same = first == Some(carried.sha256);
            if is_same && self.other_etags {
                carried.losses.push(format!(
                    "etag: {ours} on the source, {theirs} on the target, of the same bytes"
                ));
                return Ok(carried);
            }
            self.remove(place, &carried).await?;
            if first.is_some() {
                let words = match is_same {
                    true => format!(
                        "what came twice from the source has the ETag {theirs}, and the source says {ours}: something changes bytes on the \
                         way, or the source's ETags are not made of the bytes (then --other-etags)"
                    ),
                    false => "each reading of the source came to other bytes: see the network and the source's drives".to_owned(),
                };
                return Err(Trouble::Failed(Failure::silent(words)));
            }
            first = Some(carried.sha256);
        }
    }

    async fn once(&self, place: Place<'_>, version: &Version) -> Result<(Carried, bool), Trouble> {
        // Each is kilobytes of state: on a thread's stack, one in the other, they don't fit in a build without optimization.
        match parts::count(&version.etag) {
            Some(count) => Box::pin(self.in_parts(place, version, count)).await,
            None if version.size_bytes <= HELD => Box::pin(self.held(place, version)).await,
            None => Box::pin(self.streamed(place, version)).await,
        }
    }

    /// Asks the source for a version and all that belongs to it.
    async fn open(
        &self,
        place: Place<'_>,
        version: &Version,
    ) -> Result<(GetObjectOutput, About), Failure> {
        let ask =
            |client: Client| async move { opened(&client, place, version, &self.clock).await };
        self.source.ask(ask).await
    }

    /// Removes what was just written and is not right.
    async fn remove(&self, place: Place<'_>, carried: &Carried) -> Result<(), Trouble> {
        // Without versions it is the one that is called null.
        let id = carried.target_id.as_deref().unwrap_or("null");
        let removed = self.target.ask(|client| {
            let request = client.delete_object().bucket(place.bucket).key(place.key);
            answered(request.version_id(id).send())
        });
        removed.await.map(drop).map_err(|failure| {
            let words = format!("it was written with other bytes, and removing that (version {id}) failed: {failure}");
            Trouble::Failed(Failure { words, ..failure })
        })
    }

    /// A body that is held while it is sent.
    async fn held(&self, place: Place<'_>, version: &Version) -> Result<(Carried, bool), Trouble> {
        let _held = self.memory.take(version.size_bytes).await;
        let read = self.source.ask(|client| async move {
            let (answer, about) = opened(&client, place, version, &self.clock).await?;
            let bytes = stream::gathered(answer, version.size_bytes).await?;
            Ok((bytes, about))
        });
        let (bytes, about) = read.await.map_err(|failure| of_source(version, failure))?;
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        let checksum = STANDARD.encode(sha256);
        let put = |client: Client| {
            let body = ByteStream::from(bytes.clone());
            let request = client.put_object().bucket(place.bucket).key(place.key);
            let request = about.put(request).checksum_sha256(&checksum).body(body);
            // Whoever changes a byte on the way must find another with the same SHA-256, which is signed.
            let sent = request.customize().disable_payload_signing().send();
            answered_within(limit(version.size_bytes), sent)
        };
        let (taken, node) = self.put(place, version, put).await?;
        let is_encrypted = taken.is_encrypted || about.is_encrypted;
        Ok((
            carried(version, sha256, taken, node, about.losses),
            is_encrypted,
        ))
    }

    /// A body that goes through without being held.
    async fn streamed(
        &self,
        place: Place<'_>,
        version: &Version,
    ) -> Result<(Carried, bool), Trouble> {
        // What is in the buffers of both connections.
        let _held = self.memory.take(1 << 20).await;
        let kept = Mutex::new(None);
        let last = &kept;
        let put = |client: Client| async move {
            let opened = self.open(place, version);
            let (answer, about) = opened.await.map_err(|failure| reading(last, failure))?;
            let (body, hash) = Hashed::new(answer.body.into_inner(), version.size_bytes);
            let request = client.put_object().bucket(place.bucket).key(place.key);
            let request = about.put(request);
            let request = request.content_length(length(version.size_bytes));
            let request = request.body(ByteStream::new(SdkBody::from_body_1_x(body)));
            let sent = request.customize().disable_payload_signing().send();
            let answer = answered_within(limit(version.size_bytes), sent).await;
            *held(last) = Some(Ok((hash.finished(), about)));
            answer
        };
        let put = self.put(place, version, put).await;
        let (taken, node) = put.map_err(|failure| of_both(version, &kept, failure))?;
        let kept = held(&kept).take();
        let Some(Ok((Some(sha256), about))) = kept else {
            let words = "the target took it before all of it was sent";
            return Err(Trouble::Failed(Failure::silent(words)));
        };
        let is_encrypted = taken.is_encrypted || about.is_encrypted;
        Ok((
            carried(version, sha256, taken, node, about.losses),
            is_encrypted,
        ))
    }

    /// Has a version written. One that was sent and not answered for may have been taken: that is looked for before it is sent again.
    async fn put<F>(
        &self,
        place: Place<'_>,
        version: &Version,
        put: impl Fn(Client) -> F,
    ) -> Result<(Taken, String), Failure>
    where
        F: Future<Output = Result<PutObjectOutput, Failure>>,
    {
        let (tries, put) = (&AtomicUsize::new(0), &put);
        let ask = |client: Client| async move {
            if tries.fetch_add(1, Ordering::Relaxed) > 0
                && let Some(found) = self.taken(place, version).await?
            {
                return Ok(found);
            }
            put(client).await.map(|answer| Taken {
                is_encrypted: answer.server_side_encryption.is_some(),
                id: answer.version_id,
                etag: answer.e_tag.unwrap_or_default(),
            })
        };
        self.target.ask_avoiding(&[], ask).await
    }

    /// Whether a version stands on the target as the newest, and did not before.
    async fn taken(&self, place: Place<'_>, version: &Version) -> Result<Option<Taken>, Failure> {
        let first = Walk::new(&self.target, place.bucket, place.key, Versions::All)
            .next()
            .await?;
        let newest = first.filter(|entry| entry.key == place.key);
        let newest = newest.and_then(|entry| entry.history.into_iter().next());
        let is_ours = |found: &Version| {
            found.id.is_some()
                && found.id.as_deref() != Some("null")
                && found.id.as_deref() != place.before
                && found.is_mark == version.is_mark
                && found.size_bytes == version.size_bytes
                && found.etag == version.etag
        };
        Ok(newest.filter(is_ours).map(|found| Taken {
            id: found.id,
            etag: found.etag,
            is_encrypted: false,
        }))
    }

    /// Sets a mark of deletion as the newest of a key.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn mark(&self, place: Place<'_>, version: &Version) -> Result<Carried, Trouble> {
        let tries = &AtomicUsize::new(0);
        let ask = |client: Client| async move {
            if tries.fetch_add(1, Ordering::Relaxed) > 0
                && let Some(found) = self.taken(place, version).await?
            {
                return Ok(found);
            }
            let delete = client.delete_object().bucket(place.bucket).key(place.key);
            let answer = answered(delete.send()).await?;
            Ok(Taken {
                id: answer.version_id,
                etag: String::new(),
                is_encrypted: false,
            })
        };
        let (taken, node) = self.target.ask_avoiding(&[], ask).await?;
        Ok(carried(version, [0; 32], taken, node, Vec::new()))
    }
}

fn carried(
    version: &Version,
    sha256: [u8; 32],
    taken: Taken,
    node: String,
    losses: Vec<String>,
) -> Carried {
    Carried {
        sha256,
        size_bytes: version.size_bytes,
        target_id: taken.id,
        target_etag: taken.etag,
        node,
        losses,
    }
}

/// Opens a version as it was listed, and asks for what belongs to it.
async fn opened(
    client: &Client,
    place: Place<'_>,
    version: &Version,
    clock: &Clock,
) -> Result<(GetObjectOutput, About), Failure> {
    let request = client.get_object().bucket(place.bucket).key(place.key);
    let request = request.if_match(&version.etag);
    let answer = answered(request.set_version_id(version.id.clone()).send()).await?;
    if answer.e_tag.as_ref() != Some(&version.etag) {
        let words = format!("412: its ETag is {:?} now", answer.e_tag);
        return Err(Failure {
            code: Some(412),
            ..Failure::silent(words)
        });
    }
    let about = {
        let now_ms = clock.wall(clock.at()).as_millisecond();
        About::of(client, place, version, (&answer, now_ms)).await?
    };
    Ok((answer, about))
}

/// What a failure to read says of a version.
fn of_source(version: &Version, failure: Failure) -> Trouble {
    if failure.is_gone() {
        let id = version.id.as_deref().unwrap_or("the only one");
        return Trouble::Changed(format!("version {id}: {failure}"));
    }
    Trouble::Failed(failure)
}

/// What reading came to that went on while something was written: what was read, or why not.
type Kept<T> = Mutex<Option<Result<T, Failure>>>;

fn held<T>(kept: &Kept<T>) -> MutexGuard<'_, Option<Result<T, Failure>>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps that reading failed, and says so to whoever writes.
fn reading<T>(kept: &Kept<T>, failure: Failure) -> Failure {
    *held(kept) = Some(Err(failure.clone()));
    let words = format!("reading it: {failure}");
    Failure { words, ..failure }
}

/// What a failure to write says of a version that was read meanwhile.
fn of_both<T>(version: &Version, kept: &Kept<T>, failure: Failure) -> Trouble {
    match held(kept).take() {
        Some(Err(read)) => of_source(version, read),
        _ => Trouble::Failed(failure),
    }
}

/// How long so many bytes may take.
fn limit(size_bytes: u64) -> Duration {
    crate::targets::s3::LIMIT + Duration::from_secs(size_bytes / SLOWEST)
}

fn length(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}
