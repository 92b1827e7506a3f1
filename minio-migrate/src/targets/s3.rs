//! The S3 interface of one store, through its nodes in turn: what this tool asks of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use veza_probe::clock::{self, Clock};

use super::Login;
use crate::cli::Endpoint;

/// How long one answer may take, and how long its body may stand still.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How long is waited before each try but the first: what is busy or restarted is there again after that.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
];

/// For how long others are asked before a node that did not answer.
const AWAY: Duration = Duration::from_secs(10);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// One store.
#[derive(Clone)]
pub struct S3 {
    nodes: Arc<Vec<Node>>,
    next: Arc<AtomicUsize>,
    slowdowns: Arc<AtomicU64>,
    clock: Clock,
}

/// One node of a store.
#[derive(Clone)]
pub struct Node {
    /// Its host and port, for people.
    pub name: String,
    /// Its client.
    pub client: Client,
    /// Until when others are asked first: it did not answer. In microseconds of the store's clock.
    away_us: Arc<AtomicI64>,
}

/// Why a request did not come to what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status code, where the node answered at all.
    pub code: Option<u16>,
    /// S3's own word: `AccessDenied`.
    pub word: Option<String>,
    /// What was said, for people.
    pub words: String,
    /// The node that said so.
    pub node: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Failure {
    /// No answer, or none that S3 gives.
    pub fn silent(words: impl Into<String>) -> Failure {
        Failure {
            code: None,
            word: None,
            words: words.into(),
            node: None,
        }
    }

    /// Whether it says that there is no such thing, or not in this state any more.
    pub fn is_gone(&self) -> bool {
        matches!(self.code, Some(404 | 405 | 412))
    }

    /// Whether the store has no room for anything more: MinIO's own words for it (cmd/api-errors.go), and AWS' code for none.
    pub fn is_full(&self) -> bool {
        const WORDS: [&str; 3] = [
            "XMinioStorageFull",
            "XMinioAdminBucketQuotaExceeded",
            "QuotaExceeded",
        ];
        let is_it = |word: &String| WORDS.contains(&word.as_str());
        self.code == Some(507) || self.word.as_ref().is_some_and(is_it)
    }

    /// Whether the login may not do that.
    pub fn is_denied(&self) -> bool {
        matches!(self.code, Some(401 | 403))
    }

    /// Whether the same request may come to more later, or elsewhere.
    fn is_passing(&self) -> bool {
        let is_busy = |code| code >= 500 || code == 408 || code == 429;
        self.code.is_none_or(is_busy) && !self.is_full()
    }
}

impl S3 {
    /// A store by its nodes.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn new(
        endpoints: &[Endpoint],
        certificates: Option<Vec<u8>>,
        (login, region): (&Login, &str),
    ) -> Result<S3, String> {
        // Fails when somebody was here before: then it is done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut context = TlsContext::builder();
        if let Some(bytes) = certificates {
            context = context.with_trust_store(TrustStore::empty().with_pem_certificate(bytes));
        }
        let context = context
            .build()
            .map_err(|error| format!("MINIO_CA_FILE: {error}"))?;
        let node = |endpoint: &Endpoint| {
            let http = aws_smithy_http_client::Builder::new();
            // Reading all certificates of the system takes as long as a thousand objects: not where none is looked at.
            let http = match endpoint.url.starts_with("https://") {
                true => http
                    .tls_provider(Provider::Rustls(CryptoMode::Ring))
                    .tls_context(context.clone())
                    .build_https(),
                false => http.build_http(),
            };
            let (access, secret) = (login.access.expose(), login.secret.expose());
            let config = Builder::new()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new(region.to_owned()))
                .endpoint_url(&endpoint.url)
                .force_path_style(true)
                .credentials_provider(Credentials::new(access, secret, None, None, "arguments"))
                .http_client(http)
                // Repeated here, through another node.
                .retry_config(RetryConfig::disabled())
                .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                // Bytes are hashed here; a checksum of the store's would only be believed.
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
                .build();
            Node {
                name: endpoint.name.clone(),
                client: Client::from_conf(config),
                away_us: Arc::default(),
            }
        };
        Ok(S3 {
            nodes: Arc::new(endpoints.iter().map(node).collect()),
            next: Arc::default(),
            slowdowns: Arc::default(),
            clock: Clock::start(),
        })
    }

    /// Its nodes' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// Every node, each as a store of its own.
    pub fn each(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// How often it asked for fewer requests so far.
    pub fn slowdowns(&self) -> u64 {
        self.slowdowns.load(Ordering::Relaxed)
    }

    /// The nodes in the order in which they are asked: in turn, those that did not answer lately and the avoided one last.
    fn order(&self, avoided: &[String]) -> Vec<&Node> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.nodes.len().max(1);
        let (behind, ahead) = self.nodes.split_at(first);
        let mut nodes: Vec<&Node> = ahead.iter().chain(behind).collect();
        let now_us = self.clock.at().0;
        let is_away = |node: &Node| node.away_us.load(Ordering::Relaxed) > now_us;
        nodes.sort_by_key(|node| (is_away(node), avoided.contains(&node.name)));
        nodes
    }

    /// Asks through the nodes in turn until an answer is final: what is busy or does not answer is asked again, of the
    /// next node, at most five times.
    ///
    /// # Errors
    /// The last [`Failure`], with the node.
    pub async fn ask<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.ask_avoiding(&[], ask).await.map(|(answer, _)| answer)
    }

    /// As [`S3::ask`], of other nodes than these first, where there are some; and which node it was.
    ///
    /// # Errors
    /// The last [`Failure`], with the node.
    pub async fn ask_avoiding<T, F>(
        &self,
        avoided: &[String],
        ask: impl Fn(Client) -> F,
    ) -> Result<(T, String), Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let nodes = self.order(avoided);
        let mut last = Failure::silent("there is no node");
        for number in 0..=PAUSES.len() {
            if let Some(pause) = number.checked_sub(1).and_then(|before| PAUSES.get(before)) {
                clock::sleep(*pause).await;
            }
            let Some(node) = nodes.get(number % nodes.len().max(1)) else {
                break;
            };
            match ask(node.client.clone()).await {
                Ok(answer) => {
                    node.away_us.store(0, Ordering::Relaxed);
                    return Ok((answer, node.name.clone()));
                }
                Err(failure) => {
                    if matches!(failure.code, Some(429 | 503)) {
                        self.slowdowns.fetch_add(1, Ordering::Relaxed);
                    } else if failure.code.is_none() {
                        let until = self.clock.at().plus(AWAY);
                        node.away_us.store(until.0, Ordering::Relaxed);
                    }
                    let words = format!("{}: {}", node.name, failure.words);
                    last = Failure {
                        words,
                        node: Some(node.name.clone()),
                        ..failure
                    };
                    if !last.is_passing() {
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}

/// An answer within [`LIMIT`].
///
/// # Errors
/// [`Failure`].
pub async fn answered<T, E>(
    sent: impl Future<Output = Result<T, SdkError<E>>>,
) -> Result<T, Failure>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    answered_within(LIMIT, sent).await
}

/// An answer within a limit of its own.
///
/// # Errors
/// [`Failure`].
pub async fn answered_within<T, E>(
    limit: Duration,
    sent: impl Future<Output = Result<T, SdkError<E>>>,
) -> Result<T, Failure>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match clock::within(limit, sent).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(of_sdk(&error)),
        Err(elapsed) => Err(Failure::silent(elapsed.to_string())),
    }
}

/// What the SDK says of a request, in one sentence.
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
        _ => causes(error),
    };
    Failure {
        code,
        word,
        ..Failure::silent(words)
    }
}

/// An error and what caused it, each once.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_asked_again_and_an_answer_is_not() {
        let failure = |code| Failure {
            code,
            ..Failure::silent("")
        };
        for code in [None, Some(500), Some(503), Some(429)] {
            assert!(failure(code).is_passing(), "{code:?}");
        }
        for code in [Some(403), Some(404), Some(412)] {
            assert!(!failure(code).is_passing(), "{code:?}");
        }
        let full = failure(Some(507));
        assert!(full.is_full() && !full.is_passing());
        let quota = Failure {
            word: Some("XMinioAdminBucketQuotaExceeded".to_owned()),
            ..failure(Some(400))
        };
        assert!(quota.is_full() && !failure(Some(503)).is_full());
        assert!(failure(Some(403)).is_denied() && !failure(Some(404)).is_denied());
        assert!(failure(Some(412)).is_gone() && !failure(Some(403)).is_gone());
    }
}
