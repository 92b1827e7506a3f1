//! The S3 interface of one node: what this check asks of it, without retries, each with a deadline of its own.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
use sha2::{Digest, Sha256};
use veza_probe::clock::within;

use super::Login;
use crate::cli::Endpoint;

/// How long one request may take, where nothing else is said: the slowest reads that were seen with two nodes
/// away took 10 s.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How long a connection is kept without a request: less than any node is away.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// How many versions one request removes at most: S3's own limit.
const AT_ONCE: usize = 1000;

/// The S3 interface of one node, for one bucket.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    bucket: String,
}

/// Why a request did not come to what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status code, where the node answered at all.
    pub code: Option<u16>,
    /// S3's own word: `AccessDenied`, `SlowDownWrite`.
    pub word: Option<String>,
    /// What was said, for people.
    pub words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Failure {
    /// No answer, or none that S3 gives.
    fn silent(words: impl Into<String>) -> Failure {
        Failure {
            code: None,
            word: None,
            words: words.into(),
        }
    }

    /// Whether it says that there is no such object.
    pub fn is_absent(&self) -> bool {
        self.code == Some(404)
    }

    /// Whether the login is wrong, or may not do it.
    pub fn is_denied(&self) -> bool {
        self.code == Some(403)
    }

    /// Whether the server said that it can't do it now, and so did nothing that stays.
    pub fn is_unavailable(&self) -> bool {
        self.code == Some(503)
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// How many bytes.
    pub size_bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// The ETag.
    pub etag: String,
    /// The version, where the bucket keeps versions.
    pub version: Option<String>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The ETag.
    pub etag: String,
    /// The version, where the bucket keeps versions.
    pub version: Option<String>,
}

/// A version of an object, or a mark that it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its key.
    pub key: String,
    /// Its id; `null` where the bucket keeps no versions.
    pub id: Option<String>,
}

/// A name leads to one address: the one that Incus knows.
#[derive(Clone, Debug)]
struct Pinned(SocketAddr);

impl ResolveDns for Pinned {
    fn resolve_dns<'a>(&'a self, _name: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Ok(vec![self.0.ip()]))
    }
}

impl Store {
    /// A client for one node, by its address; a name is only signed for and checked.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn new(
        (endpoint, address): (&Endpoint, SocketAddr),
        certificates: Option<Vec<u8>>,
        (login, region): (&Login, &str),
        bucket: &str,
    ) -> Result<Store, String> {
        let mut context = TlsContext::builder();
        if let Some(bytes) = certificates {
            context = context.with_trust_store(TrustStore::empty().with_pem_certificate(bytes));
        }
        let context = context
            .build()
            .map_err(|error| format!("MINIO_CA_FILE: {error}"))?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context)
            // A node that was taken away leaves connections that are dead without saying so.
            .pool_idle_timeout(IDLE_LIMIT)
            .build_with_resolver(Pinned(address));
        let (access, secret) = (login.access.expose(), login.secret.expose());
        let config = Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint.url())
            .force_path_style(true)
            .credentials_provider(Credentials::new(access, secret, None, None, "arguments"))
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Bytes are hashed here; a checksum of the store's would only be believed.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Ok(Store {
            client: Client::from_conf(config),
            bucket: bucket.to_owned(),
        })
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Reads an object, and hashes its bytes.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn get(&self, key: &str, limit: Duration) -> Result<Got, Failure> {
        let newest = Version {
            key: key.to_owned(),
            id: None,
        };
        self.get_version(&newest, limit).await
    }

    /// Reads one version of an object, and hashes its bytes; the newest where none is named.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn get_version(&self, version: &Version, limit: Duration) -> Result<Got, Failure> {
        let read = async {
            let request = self
                .client
                .get_object()
                .bucket(&self.bucket)
                .key(&version.key);
            let sent = request.set_version_id(version.id.clone()).send().await;
            let mut answer = sent.map_err(|error| of_sdk(&error))?;
            let (mut hash, mut size_bytes) = (Sha256::new(), 0);
            while let Some(chunk) = answer.body.next().await {
                let chunk = chunk.map_err(|error| Failure::silent(error.to_string()))?;
                size_bytes += chunk.len() as u64;
                hash.update(&chunk);
            }
            Ok(Got {
                size_bytes,
                sha256: hex(&hash.finalize()),
                etag: answer.e_tag.unwrap_or_default(),
                version: answer.version_id,
            })
        };
        limited(limit, read).await
    }

    /// Writes an object in one piece.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn put(
        &self,
        key: &str,
        bytes: Vec<u8>,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let body = ByteStream::from(bytes);
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(body);
        let written = async {
            let answer = request.send().await.map_err(|error| of_sdk(&error))?;
            let etag = answer.e_tag.unwrap_or_default();
            Ok(Written {
                etag,
                version: answer.version_id,
            })
        };
        limited(limit, written).await
    }

    /// Writes an object in parts of this size; all but the last must have 5 MiB.
    ///
    /// # Errors
    /// [`Failure`]; an upload that was begun stays, and goes with its prefix.
    pub async fn put_parts(
        &self,
        key: &str,
        bytes: &[u8],
        part_bytes: usize,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let written = async {
            let begun = self
                .client
                .create_multipart_upload()
                .bucket(&self.bucket)
                .key(key);
            let begun = begun.send().await.map_err(|error| of_sdk(&error))?;
            let upload = begun.upload_id.unwrap_or_default();
            let mut parts = Vec::new();
            for (number, part) in (1_i32..).zip(bytes.chunks(part_bytes)) {
                let request = self.client.upload_part().bucket(&self.bucket).key(key);
                let request = request.upload_id(&upload).part_number(number);
                let sent = request.body(ByteStream::from(part.to_vec())).send().await;
                let etag = sent.map_err(|error| of_sdk(&error))?.e_tag;
                let part = CompletedPart::builder().part_number(number).set_e_tag(etag);
                parts.push(part.build());
            }
            let all = CompletedMultipartUpload::builder()
                .set_parts(Some(parts))
                .build();
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(&self.bucket)
                .key(key);
            let request = request.upload_id(&upload).multipart_upload(all);
            let answer = request.send().await.map_err(|error| of_sdk(&error))?;
            let etag = answer.e_tag.unwrap_or_default();
            Ok(Written {
                etag,
                version: answer.version_id,
            })
        };
        limited(limit, written).await
    }

    /// Deletes an object; where the bucket keeps versions, a mark is set.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete(&self, key: &str, limit: Duration) -> Result<(), Failure> {
        let request = self.client.delete_object().bucket(&self.bucket).key(key);
        let sent = async { request.send().await.map_err(|error| of_sdk(&error)) };
        limited(limit, sent).await.map(|_| ())
    }

    /// Every version below a prefix, marks of deletion among them.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn versions(&self, prefix: &str, limit: Duration) -> Result<Vec<Version>, Failure> {
        let listed = async {
            let mut all = Vec::new();
            let (mut key, mut id) = (None, None);
            loop {
                let request = self.client.list_object_versions().bucket(&self.bucket);
                let request = request
                    .prefix(prefix)
                    .set_key_marker(key)
                    .set_version_id_marker(id);
                let page = request.send().await.map_err(|error| of_sdk(&error))?;
                let versions = page.versions.unwrap_or_default().into_iter();
                all.extend(versions.filter_map(|v| {
                    Some(Version {
                        key: v.key?,
                        id: v.version_id,
                    })
                }));
                let marks = page.delete_markers.unwrap_or_default().into_iter();
                all.extend(marks.filter_map(|m| {
                    Some(Version {
                        key: m.key?,
                        id: m.version_id,
                    })
                }));
                if page.is_truncated != Some(true) {
                    // A store that ignores the prefix must not lose what is not ours.
                    all.retain(|version| version.key.starts_with(prefix));
                    return Ok(all);
                }
                (key, id) = (page.next_key_marker, page.next_version_id_marker);
            }
        };
        limited(limit, listed).await
    }

    /// Removes versions for good.
    ///
    /// # Errors
    /// [`Failure`], also where the store left one of them.
    pub async fn remove(&self, versions: &[Version], limit: Duration) -> Result<(), Failure> {
        let removed = async {
            for some in versions.chunks(AT_ONCE) {
                let ids = some.iter().filter_map(|version| {
                    let id = ObjectIdentifier::builder().key(&version.key);
                    id.set_version_id(version.id.clone()).build().ok()
                });
                let all = Delete::builder()
                    .set_objects(Some(ids.collect()))
                    .quiet(true)
                    .build();
                let all = all.map_err(|error| Failure::silent(error.to_string()))?;
                let request = self
                    .client
                    .delete_objects()
                    .bucket(&self.bucket)
                    .delete(all);
                let answer = request.send().await.map_err(|error| of_sdk(&error))?;
                if let Some(left) = answer.errors.unwrap_or_default().first() {
                    let (key, why) = (left.key().unwrap_or("?"), left.message().unwrap_or("?"));
                    return Err(Failure::silent(format!("{key} was not removed: {why}")));
                }
            }
            Ok(())
        };
        limited(limit, removed).await
    }

    /// Ends every upload in parts below a prefix that was not completed; returns how many.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn abort_uploads(&self, prefix: &str, limit: Duration) -> Result<usize, Failure> {
        let aborted = async {
            let request = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(prefix);
            let page = request.send().await.map_err(|error| of_sdk(&error))?;
            let mut count = 0;
            for upload in page.uploads.unwrap_or_default() {
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else {
                    continue;
                };
                if key.starts_with(prefix) {
                    let request = self.client.abort_multipart_upload().bucket(&self.bucket);
                    let sent = request.key(key).upload_id(id).send().await;
                    sent.map_err(|error| of_sdk(&error))?;
                    count += 1;
                }
            }
            Ok(count)
        };
        limited(limit, aborted).await
    }

    /// Removes everything below a prefix: all versions, marks, and open uploads. MinIO lists open uploads of one exact
    /// key only, so the keys of `uploads` are asked for, too. Returns how many versions.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn clear(&self, prefix: &str, uploads: &[String]) -> Result<usize, Failure> {
        self.abort_uploads(prefix, LIMIT).await?;
        for key in uploads {
            self.abort_uploads(key, LIMIT).await?;
        }
        let versions = self.versions(prefix, LIMIT).await?;
        self.remove(&versions, 3 * LIMIT).await?;
        let left = self.versions(prefix, LIMIT).await?;
        match left.first() {
            None => Ok(versions.len()),
            Some(version) => Err(Failure::silent(format!("{} is there again", version.key))),
        }
    }
}

async fn limited<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let answered = within(limit, asked).await;
    answered.unwrap_or_else(|elapsed| Err(Failure::silent(elapsed.to_string())))
}

/// What the SDK says of a request, in one sentence. A name of a key that was given away is no secret; the secret key
/// never travels.
fn of_sdk<E>(error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let word = error.code().map(str::to_owned);
    let words = match (&word, error.message(), code) {
        (Some(word), Some(message), Some(code)) => format!("{code} {word}: {message}"),
        (Some(word), None, Some(code)) => format!("{code} {word}"),
        (None, _, Some(code)) => format!("status {code}"),
        _ => DisplayErrorContext(error).to_string(),
    };
    Failure { code, word, words }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
