//! `stub COUNT FILE`: two stores on loopback that keep nothing: one lists COUNT objects of 100 bytes each, the other takes whatever is
//! written. Writes both URLs to FILE and serves until it is ended. For measuring what a copy of very many objects keeps in memory.
#![expect(
    clippy::panic,
    reason = "a benchmark that is called wrongly has failed"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that can't go on has failed"
)]
#![expect(
    clippy::expect_used,
    reason = "a benchmark that can't go on has failed"
)]

use std::fmt::Write;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

const PAGE: usize = 1000;
const BUCKET: &str = "tracks";

fn key(number: usize) -> String {
    format!("album-{:05}/track-{:03}.flac", number / 100, number % 100)
}

fn bytes(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(100).collect()
}

/// The same on both for the same bytes.
fn etag(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    format!("\"{sum:016x}\"")
}

fn xml(status: StatusCode, text: String) -> Response {
    (status, [("content-type", "application/xml")], text).into_response()
}

fn page(count: usize, query: &str) -> Response {
    let mut parts = query.split('&');
    let token = parts.find_map(|part| part.strip_prefix("continuation-token="));
    let from: usize = token.map_or(0, |token| token.parse().unwrap());
    let to = count.min(from + PAGE);
    let mut text = String::from("<ListBucketResult><EncodingType>url</EncodingType>");
    for number in from..to {
        let key = key(number);
        let etag = etag(&bytes(&key));
        write!(
            text,
            "<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>100</Size></Contents>"
        )
        .unwrap();
    }
    if to < count {
        write!(text, "<NextContinuationToken>{to}</NextContinuationToken>").unwrap();
    }
    write!(
        text,
        "<IsTruncated>{}</IsTruncated></ListBucketResult>",
        to < count
    )
    .unwrap();
    xml(StatusCode::OK, text)
}

async fn serve(State(count): State<usize>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let is_write = request.method() == "PUT";
    let body = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap();
    match path.split_once('/') {
        _ if path.is_empty() => xml(
            StatusCode::OK,
            format!(
                "<ListAllMyBucketsResult><Buckets><Bucket><Name>{BUCKET}</Name></Bucket></Buckets></ListAllMyBucketsResult>"
            ),
        ),
        Some((BUCKET, key)) if !key.is_empty() => {
            let bytes = if is_write { body.to_vec() } else { bytes(key) };
            let headers = [
                ("etag", etag(&bytes)),
                ("content-type", "audio/flac".to_owned()),
            ];
            let body = if is_write {
                Body::empty()
            } else {
                Body::from(bytes)
            };
            (headers, body).into_response()
        }
        _ if query.contains("list-type=2") => page(count, &query),
        _ => xml(
            StatusCode::NOT_FOUND,
            "<Error><Code>NotSet</Code></Error>".to_owned(),
        ),
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, file] = &args[..] else {
        panic!("stub COUNT FILE");
    };
    let mut urls = Vec::new();
    let mut serving = tokio::task::JoinSet::new();
    for count in [count.parse().unwrap(), 0] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()));
        let router = Router::new().fallback(serve).with_state(count);
        serving.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    }
    std::fs::write(file, urls.join(" ")).unwrap();
    serving.join_next().await;
}
