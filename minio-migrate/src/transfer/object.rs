//! One version of an object, with all that belongs to it, from the source to the target.

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use veza_probe::clock;

use super::pace::Memory;
use crate::targets::s3::{Failure, LIMIT, S3, answered, causes};
use crate::targets::walk::Version;

/// Who carries.
#[derive(Clone)]
pub struct Carrier {
    /// What is moved away from.
    pub source: S3,
    /// What is moved to.
    pub target: S3,
    /// What may be held of objects at the same time.
    pub memory: Memory,
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

impl Carrier {
    /// How often a store asked for fewer requests so far.
    pub fn slowdowns(&self) -> u64 {
        0
    }

    /// Carries a version as the newest of its key.
    ///
    /// # Errors
    /// [`Trouble`]; then nothing of it stands on the target as the newest version.
    pub async fn version(
        &self,
        bucket: &str,
        key: &str,
        version: &Version,
    ) -> Result<Carried, Trouble> {
        let _held = self.memory.take(version.size_bytes).await;
        let read = self
            .source
            .ask(|client| read(client, (bucket, key), version));
        let (answer, bytes, tags) = read.await.map_err(|failure| {
            if failure.is_gone() {
                Trouble::Changed(failure.to_string())
            } else {
                Trouble::Failed(failure)
            }
        })?;
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        let checksum = STANDARD.encode(sha256);
        let put = self.target.ask_avoiding(None, |client| {
            let request = client.put_object().bucket(bucket).key(key);
            let request = request
                .set_content_type(answer.content_type.clone())
                .set_cache_control(answer.cache_control.clone())
                .set_content_disposition(answer.content_disposition.clone())
                .set_content_encoding(answer.content_encoding.clone())
                .set_content_language(answer.content_language.clone())
                .set_metadata(answer.metadata.clone())
                .set_object_lock_mode(
                    answer
                        .object_lock_mode
                        .as_ref()
                        .map(|mode| mode.as_str().into()),
                )
                .set_object_lock_retain_until_date(answer.object_lock_retain_until_date)
                .set_object_lock_legal_hold_status(answer.object_lock_legal_hold_status.clone())
                .set_tagging(tags.clone())
                .checksum_sha256(&checksum)
                .body(ByteStream::from(bytes.clone()));
            answered(request.customize().disable_payload_signing().send())
        });
        let (put, node) = put.await.map_err(Trouble::Failed)?;
        Ok(Carried {
            sha256,
            size_bytes: bytes.len() as u64,
            target_id: put.version_id,
            target_etag: put.e_tag.unwrap_or_default(),
            node,
            losses: Vec::new(),
        })
    }

    /// Sets a mark of deletion as the newest of a key.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn mark(&self, bucket: &str, key: &str) -> Result<Carried, Trouble> {
        let delete = self.target.ask_avoiding(None, |client| {
            answered(client.delete_object().bucket(bucket).key(key).send())
        });
        let (answer, node) = delete.await.map_err(Trouble::Failed)?;
        Ok(Carried {
            sha256: [0; 32],
            size_bytes: 0,
            target_id: answer.version_id,
            target_etag: String::new(),
            node,
            losses: Vec::new(),
        })
    }
}

async fn read(
    client: &Client,
    (bucket, key): (&str, &str),
    version: &Version,
) -> Result<(GetObjectOutput, Vec<u8>, Option<String>), Failure> {
    let request = client
        .get_object()
        .bucket(bucket)
        .key(key)
        .if_match(&version.etag);
    let mut answer = answered(request.set_version_id(version.id.clone()).send()).await?;
    let mut bytes = Vec::new();
    loop {
        let chunk = clock::within(LIMIT, answer.body.next()).await;
        let chunk = chunk.map_err(|elapsed| Failure::silent(format!("its bytes: {elapsed}")))?;
        let Some(chunk) = chunk else { break };
        let chunk =
            chunk.map_err(|error| Failure::silent(format!("its bytes: {}", causes(&error))))?;
        bytes.extend_from_slice(&chunk);
    }
    let mut tags = None;
    if answer.tag_count.unwrap_or_default() > 0 {
        let request = client.get_object_tagging().bucket(bucket).key(key);
        let set = answered(request.set_version_id(version.id.clone()).send()).await?;
        let plain = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pair =
            |tag: aws_sdk_s3::types::Tag| format!("{}={}", plain(&tag.key), plain(&tag.value));
        tags = Some(
            set.tag_set
                .into_iter()
                .map(pair)
                .collect::<Vec<_>>()
                .join("&"),
        );
    }
    Ok((answer, bytes, tags))
}
