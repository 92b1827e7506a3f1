//! Objects in parts: each part as the source has it, so that the ETag stays the same.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::about::About;
use super::stream::{self, Hashed};
use super::{
    Carried, Carrier, HELD, Place, Taken, Trouble, carried, held, length, limit, of_both,
    of_source, reading,
};
use crate::targets::s3::{Failure, S3, answered, answered_within};
use crate::targets::walk::Version;

/// How many parts of an object are sent at the same time.
const AT_ONCE: usize = 4;

/// The most parts that S3 knows.
const MOST: u32 = 10_000;

/// Of how many parts an ETag is; none of one piece.
pub fn count(etag: &str) -> Option<u32> {
    let (_, count) = etag.trim_matches('"').rsplit_once('-')?;
    count
        .parse()
        .ok()
        .filter(|count| (1..=MOST).contains(count))
}

/// An upload under way.
struct Upload<'a> {
    carrier: &'a Carrier,
    place: Place<'a>,
    version: &'a Version,
    id: String,
    hash: Sha256,
    bytes: u64,
    sent: Vec<CompletedPart>,
    running: JoinSet<Result<CompletedPart, Failure>>,
}

impl Carrier {
    /// Carries a version in the parts that it has.
    ///
    /// # Errors
    /// [`Trouble`]; the upload is given up then.
    pub(super) async fn in_parts(
        &self,
        place: Place<'_>,
        version: &Version,
        count: u32,
    ) -> Result<(Carried, bool), Trouble> {
        // Its body is not read: the parts are asked for one by one.
        let opened = self.open(place, version);
        let (answer, about) = opened
            .await
            .map_err(|failure| of_source(version, failure))?;
        drop(answer);
        let created = self.target.ask(|client| {
            let request = client
                .create_multipart_upload()
                .bucket(place.bucket)
                .key(place.key);
            answered(about.create(request).send())
        });
        let id = created.await?.upload_id;
        let id =
            id.ok_or_else(|| Failure::silent("the target began an upload and gave it no name"))?;
        let mut upload = Upload {
            carrier: self,
            place,
            version,
            id,
            hash: Sha256::new(),
            bytes: 0,
            sent: Vec::new(),
            running: JoinSet::new(),
        };
        match upload.whole(count, about).await {
            Ok(done) => Ok(done),
            Err(trouble) => {
                upload.give_up().await;
                Err(trouble)
            }
        }
    }
}

impl Upload<'_> {
    async fn whole(&mut self, count: u32, about: About) -> Result<(Carried, bool), Trouble> {
        for number in 1..=count {
            Box::pin(self.part(number)).await?;
            while self.running.len() >= AT_ONCE {
                self.one_ended().await?;
            }
        }
        while !self.running.is_empty() {
            self.one_ended().await?;
        }
        let (bytes, size) = (self.bytes, self.version.size_bytes);
        if bytes != size || self.sent.len() != count as usize {
            let sent = self.sent.len();
            let words = format!("{bytes} of {size} bytes in {sent} of {count} parts came");
            return Err(Trouble::Failed(Failure::silent(words)));
        }
        self.sent.sort_by_key(|part| part.part_number);
        let (taken, node) = Box::pin(self.complete()).await?;
        let is_encrypted = taken.is_encrypted || about.is_encrypted;
        let sha256 = self.hash.clone().finalize().into();
        Ok((
            carried(self.version, sha256, taken, node, about.losses),
            is_encrypted,
        ))
    }

    /// Reads the next part, and has it sent.
    async fn part(&mut self, number: u32) -> Result<(), Trouble> {
        let (place, version) = (self.place, self.version);
        let asked = self
            .carrier
            .source
            .ask(|client| part(client, place, version, number));
        let answer = asked.await.map_err(|failure| of_source(version, failure))?;
        let size_bytes = answer
            .content_length
            .and_then(|length| u64::try_from(length).ok());
        let size_bytes = size_bytes.unwrap_or_default();
        if size_bytes > HELD {
            // Large parts pass one after the other.
            drop(answer);
            return Box::pin(self.streamed(number, size_bytes)).await;
        }
        let held = self.carrier.memory.take(size_bytes).await;
        let read = match stream::gathered(answer, size_bytes).await {
            Ok(bytes) => Ok(bytes),
            // Broken off: once more, and by the rules from here on.
            Err(_) => {
                let again = |client: Client| async move {
                    let answer = part(client, place, version, number).await?;
                    stream::gathered(answer, size_bytes).await
                };
                self.carrier.source.ask(again).await
            }
        };
        let bytes = read.map_err(|failure| of_source(version, failure))?;
        self.hash.update(&bytes);
        self.bytes += size_bytes;
        let sending = send(
            self.carrier.target.clone(),
            (
                place.bucket.to_owned(),
                place.key.to_owned(),
                self.id.clone(),
            ),
            (number, bytes),
            held,
        );
        self.running.spawn(sending);
        Ok(())
    }

    /// A part that is too large to be held.
    async fn streamed(&mut self, number: u32, size_bytes: u64) -> Result<(), Trouble> {
        let (place, version, id) = (self.place, self.version, self.id.clone());
        let source = &self.carrier.source;
        let _held = self.carrier.memory.take(1 << 20).await;
        let before = self.hash.clone();
        let kept = Mutex::new(None);
        let (after, before, id) = (&kept, &before, &id);
        let ask = |client: Client| async move {
            let answer = source
                .ask(|client| part(client, place, version, number))
                .await;
            let answer = answer.map_err(|failure| reading(after, failure))?;
            let (body, hash) = Hashed::behind(before.clone(), answer.body.into_inner(), size_bytes);
            let request = client.upload_part().bucket(place.bucket).key(place.key);
            let request = request.upload_id(id).part_number(part_number(number));
            let request = request.content_length(length(size_bytes));
            let request = request.body(ByteStream::new(SdkBody::from_body_1_x(body)));
            let sent = request.customize().disable_payload_signing().send();
            let answer = answered_within(limit(size_bytes), sent).await?;
            *held(after) = Some(Ok(hash.state()));
            Ok(answer.e_tag)
        };
        let etag = self.carrier.target.ask(ask).await;
        let etag = etag.map_err(|failure| of_both(version, &kept, failure))?;
        let after = held(&kept).take().and_then(Result::ok).flatten();
        let words = "the target took a part before all of it was sent";
        self.hash = after.ok_or_else(|| Failure::silent(words))?;
        self.bytes += size_bytes;
        self.sent.push(completed(number, etag));
        Ok(())
    }

    async fn one_ended(&mut self) -> Result<(), Trouble> {
        match self.running.join_next().await {
            None => Ok(()),
            Some(Ok(part)) => {
                self.sent.push(part?);
                Ok(())
            }
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(error)) => Err(Trouble::Failed(Failure::silent(error.to_string()))),
        }
    }

    /// Makes an object of the parts. An answer that was lost may have been yes.
    async fn complete(&self) -> Result<(Taken, String), Trouble> {
        let Upload {
            carrier,
            place,
            version,
            id,
            sent,
            ..
        } = self;
        let parts = CompletedMultipartUpload::builder();
        let parts = parts.set_parts(Some(sent.clone())).build();
        let (tries, parts) = (&AtomicUsize::new(0), &parts);
        let ask = |client: Client| async move {
            if tries.fetch_add(1, Ordering::Relaxed) > 0
                && let Some(found) = carrier.taken(*place, version).await?
            {
                return Ok(found);
            }
            let request = client
                .complete_multipart_upload()
                .bucket(place.bucket)
                .key(place.key);
            let request = request.upload_id(id).multipart_upload(parts.clone());
            let answer = answered_within(limit(version.size_bytes / 8), request.send()).await?;
            Ok(Taken {
                is_encrypted: answer.server_side_encryption.is_some(),
                id: answer.version_id,
                etag: answer.e_tag.unwrap_or_default(),
            })
        };
        Ok(carrier.target.ask_avoiding(&[], ask).await?)
    }

    /// What was sent is removed. What could not be is removed by the target itself after some days.
    async fn give_up(&mut self) {
        self.running.shutdown().await;
        let (place, id) = (self.place, &self.id);
        let given_up = self.carrier.target.ask(|client| {
            let request = client
                .abort_multipart_upload()
                .bucket(place.bucket)
                .key(place.key);
            answered(request.upload_id(id).send())
        });
        let _ = given_up.await;
    }
}

/// Asks the source for a part.
async fn part(
    client: Client,
    place: Place<'_>,
    version: &Version,
    number: u32,
) -> Result<GetObjectOutput, Failure> {
    let request = client.get_object().bucket(place.bucket).key(place.key);
    let request = request
        .if_match(&version.etag)
        .part_number(part_number(number));
    answered(request.set_version_id(version.id.clone()).send()).await
}

/// Sends a part; it is held until it is taken.
async fn send(
    target: S3,
    (bucket, key, id): (String, String, String),
    (number, bytes): (u32, Bytes),
    held: Option<OwnedSemaphorePermit>,
) -> Result<CompletedPart, Failure> {
    let checksum = STANDARD.encode(Sha256::digest(&bytes));
    let ask = |client: Client| {
        let request = client
            .upload_part()
            .bucket(&bucket)
            .key(&key)
            .upload_id(&id);
        let request = request
            .part_number(part_number(number))
            .checksum_sha256(&checksum);
        let request = request.body(ByteStream::from(bytes.clone()));
        let sent = request.customize().disable_payload_signing().send();
        answered_within(limit(bytes.len() as u64), sent)
    };
    let answer = target.ask(ask).await?;
    drop(held);
    Ok(completed(number, answer.e_tag))
}

fn completed(number: u32, etag: Option<String>) -> CompletedPart {
    let part = CompletedPart::builder().part_number(part_number(number));
    part.set_e_tag(etag).build()
}

fn part_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_tells_the_number_of_parts() {
        assert_eq!(count("\"d41d8cd98f00b204e9800998ecf8427e-3\""), Some(3));
        assert_eq!(count("\"d41d8cd98f00b204e9800998ecf8427e\""), None);
        assert_eq!(count("\"x-0\""), None);
        assert_eq!(count("\"x-10001\""), None);
        assert_eq!(count(""), None);
    }
}
