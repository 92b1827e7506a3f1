//! A small store, and what it does wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures_util::StreamExt;
use lab_test::Alone;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

pub const MIGRATE: Alone = Alone {
    program: env!("CARGO_BIN_EXE_minio-migrate"),
    env: &[
        ("MINIO_SRC_ACCESS_KEY", "a"),
        ("MINIO_SRC_SECRET_KEY", "hunter2-source"),
        ("MINIO_DST_ACCESS_KEY", "b"),
        ("MINIO_DST_SECRET_KEY", "hunter2-target"),
    ],
    complains: "USAGE bad-arguments; next: minio-migrate --help\n",
};

/// A store with one bucket, and what it does wrong.
#[derive(Default)]
pub struct Store {
    pub objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// How many requests for objects are answered 503 first.
    pub busy: AtomicUsize,
    /// How many requests for objects are answered 404 first.
    pub denied: AtomicUsize,
    /// How many bodies end in the middle first.
    pub cut: AtomicUsize,
    /// Whether every body has one bit flipped.
    pub flips: bool,
    /// Whether the second page of a listing never comes.
    pub loses_pages: AtomicBool,
    /// Whether what was listed is another one when it is read.
    pub changes: bool,
    /// How many writes are taken and not answered for first.
    pub lost_answers: AtomicUsize,
    /// Whether one bit of what is written is another one when it arrives.
    pub flips_writes: bool,
    /// How many writes there were.
    pub writes: AtomicUsize,
    /// After how many writes there is no room for more; none while there is.
    pub full_after: Mutex<Option<usize>>,
    /// Whether nobody may write what a copy writes.
    pub denies: bool,
    /// Whether nobody may write anything.
    pub denies_all: bool,
    /// How many listings began in the middle.
    pub ranges: AtomicUsize,
}

impl Store {
    pub fn with(objects: &[(&str, &str)]) -> Store {
        let objects = objects
            .iter()
            .map(|(key, text)| ((*key).to_owned(), text.as_bytes().to_vec()));
        Store {
            objects: Mutex::new(objects.collect()),
            ..Store::default()
        }
    }
}

/// Counts down; whether there was something left.
pub fn once_more(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

pub fn xml(status: StatusCode, text: String) -> Response {
    (status, [("content-type", "application/xml")], text).into_response()
}

pub fn error(status: StatusCode, code: &str) -> Response {
    xml(
        status,
        format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>"),
    )
}

pub fn etag(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    format!("\"{sum:016x}\"")
}

/// Two keys on each page.
pub fn page(store: &Store, query: &str) -> Response {
    let value = |name: &str| {
        let mut parts = query.split('&');
        let value = parts.find_map(|part| part.strip_prefix(name));
        value.map(|value| {
            percent_decode_str(value)
                .decode_utf8()
                .unwrap()
                .into_owned()
        })
    };
    let token = value("continuation-token=");
    if token.is_some() && store.loses_pages.load(Ordering::Relaxed) {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    let prefix = value("prefix=").unwrap_or_default();
    let objects = store.objects.lock().unwrap();
    let mut objects = objects.clone();
    objects.retain(|key, _| key.starts_with(&prefix));
    if value("delimiter=").is_some() {
        return folders(&objects, &prefix);
    }
    let from = match (token, value("start-after=")) {
        (Some(token), _) => token.parse().unwrap(),
        (None, None) => 0,
        (None, Some(key)) => {
            store.ranges.fetch_add(1, Ordering::Relaxed);
            objects.keys().filter(|known| **known <= key).count()
        }
    };
    let contents: String = objects
        .iter()
        .skip(from)
        .take(2)
        .map(|(key, bytes)| {
            let (etag, size) = (etag(bytes), bytes.len());
            format!("<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>{size}</Size></Contents>")
        })
        .collect();
    let more = from + 2 < objects.len();
    let next = if more {
        format!(
            "<NextContinuationToken>{}</NextContinuationToken>",
            from + 2
        )
    } else {
        String::new()
    };
    let text = format!(
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>{next}{contents}</ListBucketResult>"
    );
    xml(StatusCode::OK, text)
}

/// What keys have before their next slash, all on one page.
fn folders(objects: &BTreeMap<String, Vec<u8>>, prefix: &str) -> Response {
    let rest = |key: &String| key.strip_prefix(prefix).map(str::to_owned);
    let folder = |rest: String| rest.split_once('/').map(|(folder, _)| folder.to_owned());
    let folders: BTreeSet<String> = objects.keys().filter_map(rest).filter_map(folder).collect();
    let folders = folders.iter().map(|folder| {
        format!("<CommonPrefixes><Prefix>{prefix}{folder}/</Prefix></CommonPrefixes>")
    });
    let folders: String = folders.collect();
    let text =
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{folders}</ListBucketResult>");
    xml(StatusCode::OK, text)
}

pub fn object(store: &Store, key: &str) -> Response {
    if once_more(&store.busy) {
        return error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    if once_more(&store.denied) {
        return error(StatusCode::NOT_FOUND, "NoSuchKey");
    }
    let objects = store.objects.lock().unwrap();
    let Some(bytes) = objects.get(key) else {
        return error(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let mut bytes = bytes.clone();
    let mut headers = HeaderMap::new();
    if store.changes {
        bytes.push(b'!');
    }
    headers.insert("content-type", "audio/flac".parse().unwrap());
    headers.insert("etag", etag(&bytes).parse().unwrap());
    headers.insert("content-length", bytes.len().to_string().parse().unwrap());
    if let (true, Some(first)) = (store.flips, bytes.first_mut()) {
        *first ^= 1;
    }
    if once_more(&store.cut) {
        bytes.truncate(bytes.len() / 2);
        let lost = Err(io::Error::from(io::ErrorKind::ConnectionReset));
        // Headers and the first half are on their way before the connection is lost.
        let stream = futures_util::stream::iter([Ok(bytes), lost]).then(async |piece| {
            veza_probe::clock::sleep(Duration::from_millis(20)).await;
            piece
        });
        return (headers, Body::from_stream(stream)).into_response();
    }
    (headers, bytes).into_response()
}

/// Takes an object, if it is the one that was announced.
pub async fn write(store: &Store, key: &str, headers: HeaderMap, body: Body) -> Response {
    let Ok(bytes) = axum::body::to_bytes(body, 1 << 20).await else {
        return error(StatusCode::BAD_REQUEST, "IncompleteBody");
    };
    // What a copy tries first is not counted.
    if key.contains("veza-canary") {
        let denied = error(StatusCode::FORBIDDEN, "AccessDenied");
        return if store.denies_all {
            denied
        } else {
            StatusCode::OK.into_response()
        };
    }
    let before = store.writes.fetch_add(1, Ordering::Relaxed);
    if store.denies {
        return error(StatusCode::FORBIDDEN, "AccessDenied");
    }
    let room = *store.full_after.lock().unwrap();
    if room.is_some_and(|room| before >= room) {
        return error(StatusCode::INSUFFICIENT_STORAGE, "XMinioStorageFull");
    }
    let mut bytes = bytes.to_vec();
    if let (true, Some(first)) = (store.flips_writes, bytes.first_mut()) {
        *first ^= 1;
    }
    let announced = headers
        .get("x-amz-checksum-sha256")
        .map(|value| value.to_str().unwrap().to_owned());
    let sum = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&bytes));
    if announced.is_some_and(|announced| announced != sum) {
        return error(StatusCode::BAD_REQUEST, "XAmzContentChecksumMismatch");
    }
    let answer = [("etag", etag(&bytes))];
    store.objects.lock().unwrap().insert(key.to_owned(), bytes);
    if once_more(&store.lost_answers) {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    (StatusCode::OK, answer).into_response()
}

pub async fn serve(State(store): State<Arc<Store>>, request: Request) -> Response {
    if request.method() == "DELETE" {
        let key = request.uri().path().trim_start_matches("/tracks/");
        store.objects.lock().unwrap().remove(key);
        return StatusCode::NO_CONTENT.into_response();
    }
    if request.method() == "PUT" {
        let (parts, body) = request.into_parts();
        let key = parts.uri.path().trim_start_matches("/tracks/").to_owned();
        return write(&store, &key, parts.headers, body).await;
    }
    let (path, query) = (
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
    );
    match path.trim_start_matches('/').split_once('/') {
        _ if path == "/" => xml(
            StatusCode::OK,
            "<ListAllMyBucketsResult><Buckets><Bucket><Name>tracks</Name></Bucket></Buckets></ListAllMyBucketsResult>".to_owned(),
        ),
        Some(("tracks", _)) if query.contains("tagging") => {
            error(StatusCode::NOT_FOUND, "NoSuchTagSet")
        }
        Some(("tracks", key)) if !key.is_empty() => object(&store, key),
        _ if query.contains("list-type=2") => page(&store, query),
        _ => error(StatusCode::NOT_FOUND, "NotSet"),
    }
}

/// Serves a store until the test ends; returns its URL.
pub async fn started(store: Store) -> String {
    served(Arc::new(store)).await
}

pub async fn served(store: Arc<Store>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(serve).with_state(store);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Serves both ends, which the test can look at meanwhile; returns their URLs.
pub async fn both(source: &Arc<Store>, target: &Arc<Store>) -> (String, String) {
    (
        served(Arc::clone(source)).await,
        served(Arc::clone(target)).await,
    )
}

/// Compares two stores; returns exit code and first line.
pub async fn verified(source: Store, target: Store, more: &[&str]) -> (i32, String) {
    let ends = (started(source).await, started(target).await);
    ran("verify", &ends, more).await
}

/// The program, about to do a word with two stores.
fn command(word: &str, (source, target): &(String, String), more: &[&str]) -> Command {
    let ends = [
        format!("--source-endpoint={source}"),
        format!("--target-endpoint={target}"),
    ];
    let args = [word, "--versions=latest", "--quiet", &ends[0], &ends[1]];
    let state = std::env::temp_dir().join(format!("minio-migrate-stores-{}", std::process::id()));
    let env = [
        ("VEZA_FORMAT", "json"),
        ("VEZA_STATE_DIR", state.to_str().unwrap()),
    ];
    MIGRATE.command(&[&args, more].concat(), &env)
}

/// Does a word with two stores; returns exit code and reason id.
pub async fn ran(word: &str, ends: &(String, String), more: &[&str]) -> (i32, String) {
    let mut command = command(word, ends, more);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = ran.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("hunter2"), "{told}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let reason = report
        .get("reason_id")
        .and_then(|id| id.as_str())
        .unwrap_or_default()
        .to_owned();
    (output.status.code().expect("it ended by itself"), reason)
}

/// Copies to a store, and is killed when it has taken so many writes more.
pub async fn killed(ends: &(String, String), more: &[&str], target: &Store, writes: usize) {
    let writes = target.writes.load(Ordering::Relaxed) + writes;
    let mut command = command("copy", ends, more);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut check = quiet.spawn().unwrap();
    while target.writes.load(Ordering::Relaxed) < writes {
        assert_eq!(check.try_wait().unwrap(), None, "it ended by itself");
        veza_probe::clock::sleep(Duration::from_millis(2)).await;
    }
    check.kill().unwrap();
    check.wait().unwrap();
}

pub const OBJECTS: [(&str, &str); 5] = [
    ("a", "one"),
    ("b", "two"),
    ("c", ""),
    ("d", "four"),
    ("e", "five"),
];

pub fn good() -> Store {
    Store::with(&OBJECTS)
}

pub fn came(code: i32, reason_id: &str) -> (i32, String) {
    (code, reason_id.to_owned())
}
