//! `puts BUCKET COUNT SIZE AT_ONCE`: writes objects from memory: what no copy can beat at the same concurrency. `MINIO_DST_ENDPOINTS` (the first is used), `MINIO_DST_ACCESS_KEY`, `MINIO_DST_SECRET_KEY_FILE`. For the benchmark of copies.
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

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation,
};
use base64::Engine;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

fn client() -> Client {
    let of = |name: &str| std::env::var(name).expect(name);
    let endpoints = of("MINIO_DST_ENDPOINTS");
    let secret = std::fs::read_to_string(of("MINIO_DST_SECRET_KEY_FILE")).unwrap();
    let access = of("MINIO_DST_ACCESS_KEY");
    let login = Credentials::new(access, secret.trim(), None, None, "arguments");
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoints.split(',').next().unwrap())
        .force_path_style(true)
        .credentials_provider(login)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bucket, count, size, at_once] = &args[..] else {
        panic!("puts BUCKET COUNT SIZE AT_ONCE");
    };
    let (count, at_once): (usize, usize) = (count.parse().unwrap(), at_once.parse().unwrap());
    let body: Bytes = (0..size.parse().unwrap())
        .map(|n: u32| (n % 251) as u8)
        .collect();
    let sum = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&body));
    let client = client();
    let mut running = JoinSet::new();
    for number in 0..count {
        if running.len() >= at_once {
            running.join_next().await.unwrap().unwrap();
        }
        let request = client
            .put_object()
            .bucket(bucket)
            .key(format!("{number:07}"));
        let request = request.body(body.clone().into()).checksum_sha256(&sum);
        running.spawn(async move { drop(request.send().await.expect("the write is taken")) });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}
