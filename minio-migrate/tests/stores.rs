//! The real program against two small stores of the test's own, which do to it what networks and servers do: nothing that is
//! wrong may ever be called the same.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::expect_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

const MIGRATE: Alone = Alone {
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
struct Store {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// How many requests for objects are answered 503 first.
    busy: AtomicUsize,
    /// How many bodies end in the middle first.
    cut: AtomicUsize,
    /// Whether every body has one bit flipped.
    flips: bool,
    /// Whether the second page of a listing never comes.
    loses_pages: bool,
    /// Whether what was listed is another one when it is read.
    changes: bool,
    /// How many writes are taken and not answered for first.
    lost_answers: AtomicUsize,
    /// Whether one bit of what is written is another one when it arrives.
    flips_writes: bool,
    /// How many writes there were.
    writes: AtomicUsize,
}

impl Store {
    fn with(objects: &[(&str, &str)]) -> Store {
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
fn once_more(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

fn xml(status: StatusCode, text: String) -> Response {
    (status, [("content-type", "application/xml")], text).into_response()
}

fn error(status: StatusCode, code: &str) -> Response {
    xml(
        status,
        format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>"),
    )
}

fn etag(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    format!("\"{sum:016x}\"")
}

/// Two keys on each page.
fn page(store: &Store, query: &str) -> Response {
    let token = query
        .split('&')
        .find_map(|part| part.strip_prefix("continuation-token="));
    let from: usize = token.map_or(0, |token| token.parse().unwrap());
    if from > 0 && store.loses_pages {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    let objects = store.objects.lock().unwrap();
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

fn object(store: &Store, key: &str) -> Response {
    if once_more(&store.busy) {
        return error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
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
async fn write(store: &Store, key: &str, headers: HeaderMap, body: Body) -> Response {
    let Ok(bytes) = axum::body::to_bytes(body, 1 << 20).await else {
        return error(StatusCode::BAD_REQUEST, "IncompleteBody");
    };
    store.writes.fetch_add(1, Ordering::Relaxed);
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

async fn serve(State(store): State<Arc<Store>>, request: Request) -> Response {
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
        Some(("tracks", key)) if !key.is_empty() => object(&store, key),
        _ if query.contains("list-type=2") => page(&store, query),
        _ => error(StatusCode::NOT_FOUND, "NotSet"),
    }
}

/// Serves a store until the test ends; returns its URL.
async fn started(store: Store) -> String {
    served(Arc::new(store)).await
}

async fn served(store: Arc<Store>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(serve).with_state(store);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Compares two stores; returns exit code and first line.
async fn verified(source: Store, target: Store, more: &[&str]) -> (i32, String) {
    let ends = (started(source).await, started(target).await);
    ran("verify", &ends, more).await
}

/// Does a word with two stores; returns exit code and reason id.
async fn ran(word: &str, (source, target): &(String, String), more: &[&str]) -> (i32, String) {
    let args: Vec<String> = [word, "--versions=latest", "--quiet"]
        .map(str::to_owned)
        .into();
    let ends = [
        format!("--source-endpoint={source}"),
        format!("--target-endpoint={target}"),
    ];
    let args: Vec<String> = args
        .into_iter()
        .chain(ends)
        .chain(more.iter().map(|arg| (*arg).to_owned()))
        .collect();
    let ran = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let state =
            std::env::temp_dir().join(format!("minio-migrate-stores-{}", std::process::id()));
        MIGRATE.run(
            &args,
            &[
                ("VEZA_FORMAT", "json"),
                ("VEZA_STATE_DIR", state.to_str().unwrap()),
            ],
        )
    });
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

const OBJECTS: [(&str, &str); 5] = [
    ("a", "one"),
    ("b", "two"),
    ("c", ""),
    ("d", "four"),
    ("e", "five"),
];

fn good() -> Store {
    Store::with(&OBJECTS)
}

fn came(code: i32, reason_id: &str) -> (i32, String) {
    (code, reason_id.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_the_same_also_through_busy_servers_and_lost_connections() {
    assert_eq!(
        verified(good(), good(), &[]).await,
        came(0, "all-gates-held")
    );
    let busy = Store {
        busy: 2.into(),
        cut: 1.into(),
        ..good()
    };
    assert_eq!(verified(busy, good(), &[]).await, came(0, "all-gates-held"));
    let cut = Store {
        cut: 2.into(),
        ..good()
    };
    assert_eq!(verified(good(), cut, &[]).await, came(0, "all-gates-held"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_never_the_same() {
    let flips = Store {
        flips: true,
        ..good()
    };
    assert_eq!(
        verified(good(), flips, &[]).await,
        came(2, "different-missed")
    );
    let other = Store::with(&[
        ("a", "one"),
        ("b", "TWO"),
        ("c", ""),
        ("d", "four"),
        ("e", "five"),
    ]);
    assert_eq!(
        verified(good(), other, &[]).await,
        came(2, "different-missed")
    );
    let fewer = Store::with(OBJECTS.get(..4).unwrap());
    assert_eq!(
        verified(good(), fewer, &[]).await,
        came(2, "missing-missed")
    );
    let fewer = Store::with(OBJECTS.get(..4).unwrap());
    assert_eq!(
        verified(fewer, good(), &[]).await,
        came(2, "unexpected-missed")
    );
    let fewer = Store::with(OBJECTS.get(..4).unwrap());
    assert_eq!(
        verified(fewer, good(), &["--allow-unexpected"]).await,
        came(0, "all-gates-held")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_each_time_is_unread() {
    let cut = Store {
        cut: usize::MAX.into(),
        ..good()
    };
    assert_eq!(
        verified(good(), cut, &["--workers=64"]).await,
        came(2, "unread-missed")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_compared_to_the_end_proves_nothing() {
    let lost = Store {
        loses_pages: true,
        ..good()
    };
    assert_eq!(verified(lost, good(), &[]).await, came(5, "listing-broken"));
    let lost = Store {
        loses_pages: true,
        ..good()
    };
    assert_eq!(verified(good(), lost, &[]).await, came(5, "listing-broken"));
    assert_eq!(
        verified(Store::default(), Store::default(), &[]).await,
        came(5, "nothing-compared")
    );
    let changes = Store {
        changes: true,
        ..good()
    };
    assert_eq!(
        verified(changes, good(), &[]).await,
        came(5, "changed-meanwhile")
    );
    assert_eq!(
        verified(good(), good(), &["--bucket=others"]).await,
        came(1, "no-bucket")
    );
}

#[test]
fn bad_arguments_are_usage_before_anybody_is_asked() {
    MIGRATE.usage(&["verify"], &[], "MINIO_SRC_ENDPOINT");
    let source = "--source-endpoint=http://127.0.0.1:1";
    MIGRATE.usage(&["verify", source], &[], "MINIO_DST_ENDPOINTS");
    let target = "--target-endpoint=http://127.0.0.1:2";
    MIGRATE.usage(&["moved", source, target], &[], "moved");
    for (more, word) in [
        (&["copy", "--shard=5/4"][..], "--shard"),
        (&["copy", "--memory=much"], "--memory"),
        (&["copy", "--recover"], "--recover"),
        (&["cutover"], "--writer-access-key"),
        (
            &["cutover", "--writer-access-key=app"],
            "MINIO_WRITER_SECRETS_FILE",
        ),
        (
            &["cutover", "--accept-unfrozen", "--accept-loss=all"],
            "--accept-loss",
        ),
    ] {
        MIGRATE.usage(&[&[source, target], more].concat(), &[], word);
    }
    let no_login = MIGRATE.run(&["verify", source, target], &[("MINIO_DST_SECRET_KEY", "")]);
    assert_eq!(no_login.status.code(), Some(64));
    let told = String::from_utf8(no_login.stdout).unwrap();
    assert!(
        told.contains("MINIO_DST_SECRET_KEY_FILE must be set"),
        "{told}"
    );
    let refused = MIGRATE.run(&["verify", source, target], &[]);
    assert_eq!(refused.status.code(), Some(1), "nobody answers");
}

#[test]
fn logins_may_come_from_a_file_of_variables() {
    let path = std::env::temp_dir().join(format!("minio-migrate-env-{}", std::process::id()));
    let text = "MINIO_DST_SECRET_KEY_FILE=/run/s\nMINIO_DST_ENDPOINTS=http://a:9000\n";
    std::fs::write(&path, text).unwrap();
    let flag = format!("--env-file={}", path.display());
    let mine = ("MINIO_DST_SECRET_KEY", "");
    let output = MIGRATE.run(&[&flag, "--version"], &[mine]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// A journal of the test's own, gone with it.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str) -> Kept {
        let folder =
            std::env::temp_dir().join(format!("minio-migrate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Kept(folder)
    }

    fn flag(&self) -> String {
        format!("--journal={}", self.0.join("journal.sqlite").display())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Copies to an empty store; what it came to, and what is there then.
async fn copied(
    name: &str,
    source: Store,
    target: Store,
) -> ((i32, String), BTreeMap<String, Vec<u8>>) {
    let kept = Kept::new(name);
    let target = Arc::new(target);
    let ends = (started(source).await, served(Arc::clone(&target)).await);
    let came = ran("copy", &ends, &[&kept.flag()]).await;
    let objects = target.objects.lock().unwrap().clone();
    (came, objects)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_is_what_the_source_has_through_whatever_happens() {
    let all = good().objects.into_inner().unwrap();
    let (came_to, there) = copied("plain", good(), Store::default()).await;
    assert_eq!((came_to, there), (came(0, "copied"), all.clone()));
    let source = Store {
        busy: 2.into(),
        cut: 2.into(),
        ..good()
    };
    let target = Store {
        lost_answers: 2.into(),
        ..Store::default()
    };
    let (came_to, there) = copied("busy", source, target).await;
    assert_eq!((came_to, there), (came(0, "copied"), all));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_on_the_way_are_never_called_copied() {
    let flips = Store {
        flips: true,
        ..good()
    };
    let (came_to, there) = copied("from", flips, Store::default()).await;
    assert_eq!(came_to, came(5, "keys-left"));
    assert_eq!(
        there.keys().collect::<Vec<_>>(),
        ["c"],
        "what was wrong is gone again"
    );
    let flips = Store {
        flips_writes: true,
        ..Store::default()
    };
    let (came_to, there) = copied("to", good(), flips).await;
    assert_eq!(came_to, came(5, "keys-left"));
    let empty: Vec<&String> = there.keys().collect();
    assert_eq!(empty, ["c"], "only what has no byte can't be changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_incomplete_and_gone_on_from() {
    let kept = Kept::new("lost");
    let target = Arc::new(Store::default());
    let to = served(Arc::clone(&target)).await;
    let lost = Store {
        loses_pages: true,
        ..good()
    };
    let source = Arc::new(lost);
    let from = served(Arc::clone(&source)).await;
    let ends = (from, to);
    assert_eq!(
        ran("copy", &ends, &[&kept.flag()]).await,
        came(5, "listing-broken")
    );
    let count = target.objects.lock().unwrap().len();
    assert!((1..5).contains(&count), "what was listed before: {count}");
    assert_eq!(
        ran("status", &ends, &[&kept.flag()]).await,
        came(5, "walk-unfinished")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_written_once() {
    let kept = Kept::new("once");
    let target = Arc::new(Store::default());
    let ends = (started(good()).await, served(Arc::clone(&target)).await);
    for _ in 0..2 {
        assert_eq!(ran("copy", &ends, &[&kept.flag()]).await, came(0, "copied"));
    }
    assert_eq!(target.writes.load(Ordering::Relaxed), OBJECTS.len());
    // Somebody else writes there: it is named, and stays.
    let other = Arc::new(Store::with(&[("b", "TWO")]));
    let ends = (ends.0, served(Arc::clone(&other)).await);
    let own = Kept::new("other");
    assert_eq!(
        ran("copy", &ends, &[&own.flag()]).await,
        came(5, "conflicts")
    );
    assert_eq!(other.objects.lock().unwrap().get("b").unwrap(), b"TWO");
    assert_eq!(
        ran("copy", &ends, &[&own.flag(), "--overwrite"]).await,
        came(0, "copied")
    );
    assert_eq!(other.objects.lock().unwrap().get("b").unwrap(), b"two");
    let words = ran("copy", &ends, &[&kept.flag()]).await;
    assert_eq!(
        words,
        came(1, "journal-unusable"),
        "it is of another target"
    );
}
