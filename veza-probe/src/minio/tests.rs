//! The admin client against a server that answers what it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// What a node was asked: the line, the headers and the body of each request.
type Heard = Arc<Mutex<Vec<String>>>;

/// A node that gives these answers in their order, the last one again and again; each is a status, and a body.
async fn node(answers: Vec<(u16, &'static str)>) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        let mut given = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = whole_request(&mut stream).await;
            hears.lock().unwrap().push(request);
            let (status, body) = answers[given.min(answers.len() - 1)];
            given += 1;
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, heard)
}

async fn whole_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                (name == "content-length").then(|| value.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let read = stream.read(&mut part).await.unwrap();
        if read == 0 {
            return text;
        }
        bytes.extend_from_slice(&part[..read]);
    }
}

fn door(name: &str, base: String) -> Door {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let name = name.to_owned();
    Door { name, base, client }
}

fn admin(doors: Vec<Door>) -> Admin {
    let login = Login {
        access: Secret::new("reader"),
        secret: Secret::new("hunter2hunter2"),
    };
    Admin::new(&Clock::start(), doors, &login, "us-east-1")
}

const INFO: &str = r#"{"mode":"online","deploymentID":"d1","backend":{"backendType":"Erasure","onlineDisks":3,
    "offlineDisks":1,"standardSCParity":2,"rrSCParity":1,"totalSets":[1],"totalDrivesPerSet":[4]},"servers":[
    {"state":"online","endpoint":"a:9000","uptime":61,"version":"2025-09-07T16:13:09Z","drives":[
    {"endpoint":"http://a:9000/data","path":"/data","state":"ok","uuid":"u1","healing":true,"totalspace":100,
    "availspace":90,"pool_index":0}]},
    {"state":"offline","endpoint":"b:9000"}]}"#;

#[tokio::test]
async fn a_question_is_signed_and_its_answer_read() {
    let (url, heard) = node(vec![(200, INFO)]).await;
    let info = admin(vec![door("a", url)]).info().await.unwrap();
    assert_eq!(
        (info.mode.as_str(), info.backend.as_str()),
        ("online", "Erasure")
    );
    assert_eq!((info.parity, info.drives_per_set.as_slice()), (2, &[4][..]));
    assert_eq!((info.drives_online, info.drives_offline), (3, 1));
    assert_eq!(info.nodes[0].drives[0].available_bytes, 90);
    let ailing = info.ailing();
    assert_eq!(
        ailing,
        [
            "b:9000 is offline",
            "drive http://a:9000/data is being healed"
        ]
    );
    let request = heard.lock().unwrap()[0].clone();
    assert!(
        request.starts_with("GET /minio/admin/v3/info HTTP/1.1"),
        "{request}"
    );
    assert!(request.contains("x-amz-date: 2"), "{request}");
    // Of no body: MinIO asks for the header, or it calls the request anonymous.
    let nothing =
        "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert!(request.contains(nothing), "{request}");
    let authorization = "authorization: AWS4-HMAC-SHA256 Credential=reader/2";
    assert!(request.contains(authorization), "{request}");
    assert!(request.contains("/us-east-1/s3/aws4_request"), "{request}");
    assert!(!request.contains("hunter2"), "{request}");
}

const STARTED: &str =
    r#"          {"clientToken":"7f@0+/=","clientAddress":"h","startTime":"2025-01-01T00:00:00Z"}"#;
const WAITING: &str =
    r#"{"Summary":"not started","StartTime":"0001-01-01T00:00:00Z","Settings":{},"Items":null}"#;
const RUNNING: &str = r#"{"Summary":"running","StartTime":"2025-01-01T00:00:00Z","Settings":{"recursive":true},"Items":[
    {"resultId":1,"type":"bucket","bucket":"b","object":"","versionId":"","detail":"",
     "before":{"drives":[{"uuid":"","endpoint":"http://a","state":"ok"}]},"after":{"drives":null}},
    {"resultId":2,"type":"object","bucket":"b","object":"p/one","versionId":"v1","detail":"",
     "before":{"drives":[{"endpoint":"http://a","state":"ok"},{"endpoint":"http://b","state":"missing"}]},
     "after":{"drives":[{"endpoint":"http://a","state":"ok"},{"endpoint":"http://b","state":"ok"}]}}]}"#;
const FINISHED: &str = r#"    {"Summary":"finished","StartTime":"2025-01-01T00:00:00Z","Items":[
    {"resultId":3,"type":"object","bucket":"b","object":"p/two","versionId":"","detail":"quorum loss",
     "before":{"drives":[{"endpoint":"http://a","state":"corrupt"},{"endpoint":"http://b","state":"unknown (x)"}]},
     "after":{"drives":[{"endpoint":"http://a","state":"corrupt"},{"endpoint":"http://b","state":"offline"}]}}]}"#;

#[tokio::test]
async fn a_heal_is_started_once_and_read_to_its_end() {
    let (url, heard) = node(vec![
        (200, STARTED),
        (200, WAITING),
        (200, RUNNING),
        (200, FINISHED),
    ])
    .await;
    let admin = admin(vec![door("a", url)]);
    let healed = admin
        .heal("b", "p q/", true, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(healed.summary, "finished");
    let names: Vec<_> = healed
        .items
        .iter()
        .map(|(b, _)| b.object.as_str())
        .collect();
    assert_eq!(names, ["p/one", "p/two"], "the bucket itself is no object");
    let mended: Vec<_> = healed.mended().map(|(b, _)| b.object.as_str()).collect();
    assert_eq!(mended, ["p/one"]);
    let (before, after) = &healed.items[0];
    assert!(!before.is_whole(2) && after.is_whole(2) && !after.is_whole(3));
    assert_eq!(before.lacking().next().unwrap().1, DriveState::Missing);
    let states: Vec<_> = healed.items[1]
        .0
        .drives
        .iter()
        .map(|(_, s)| s.told())
        .collect();
    assert_eq!(states, ["corrupt", "unknown (x)"]);
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 4);
    let first = "POST /minio/admin/v3/heal/b/p%20q/?forceStart=true HTTP/1.1";
    assert!(heard[0].starts_with(first), "{}", heard[0]);
    let options = r#"{"dryRun":false,"recursive":true,"scanMode":2}"#;
    assert!(heard[0].ends_with(options), "{}", heard[0]);
    let next = "POST /minio/admin/v3/heal/b/p%20q/?clientToken=7f%400%2B%2F%3D HTTP/1.1";
    for poll in &heard[1..] {
        assert!(
            poll.starts_with(next) && poll.ends_with("\r\n\r\n"),
            "{poll}"
        );
    }
}

#[tokio::test]
async fn a_dry_run_that_did_not_come_to_its_end_says_nothing() {
    let stopped = r#"{"Summary":"stopped","Detail":"drive not found","StartTime":"2025-01-01T00:00:00Z","Items":[]}"#;
    let forgotten =
        r#"{"Summary":"finished","StartTime":"0001-01-01T00:00:00Z","Settings":{},"Items":null}"#;
    let looked = async |last| {
        let (url, _) = node(vec![(200, STARTED), (200, last)]).await;
        let admin = admin(vec![door("a", url)]);
        let limit = Duration::from_millis(250);
        admin
            .heal_dry_run("b", "p/", false, limit)
            .await
            .unwrap_err()
    };
    let error = looked(stopped).await;
    assert!(error.to_string().contains("drive not found"), "{error}");
    let error = looked(forgotten).await;
    assert!(matches!(error, Error::Forgotten { .. }), "{error}");
    // It never ends: the limit does, and it is told to stop.
    let (url, heard) = node(vec![(200, STARTED), (200, RUNNING)]).await;
    let admin = admin(vec![door("a", url)]);
    let limit = Duration::from_millis(250);
    let error = admin
        .heal_dry_run("b", "p/", false, limit)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unfinished { .. }), "{error}");
    let last = heard.lock().unwrap().last().unwrap().clone();
    assert!(last.contains("?forceStop=true"), "{last}");
}

#[tokio::test]
async fn what_is_refused_is_told_with_what_to_do_and_without_secrets() {
    let denied = r#"{"Code":"SignatureDoesNotMatch","Message":"The signature does not match.","Resource":"/x"}"#;
    let overlap = r#"   {"Code":"XMinioHealOverlappingPaths","Message":"The path overlaps: b/p"}"#;
    for (status, body, words) in [
        (
            403,
            denied,
            "SignatureDoesNotMatch: The signature does not match: the user needs admin:Heal",
        ),
        // After a space had sent status 200 already.
        (200, overlap, "mc admin heal --force-stop"),
        (503, "<html>busy</html>", "503"),
        (200, "<html>a console</html>", "--s3-only"),
        (200, r#"{"clientToken":7}"#, "can't be read"),
    ] {
        let (url, _) = node(vec![(status, body)]).await;
        let admin = admin(vec![door("a", url)]);
        let asked = admin.heal("b", "p/", false, Duration::from_secs(5)).await;
        let error = asked.unwrap_err();
        let told = format!("{error} {error:?} {admin:?}", admin = admin.login);
        assert!(
            told.contains(words) && told.contains("heal of b/p/"),
            "{told}"
        );
        assert!(!told.contains("hunter2"), "{told}");
        assert_eq!(error.is_credentials(), status == 403);
    }
}

#[tokio::test]
async fn the_next_node_is_asked_where_one_is_silent() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let (url, _) = node(vec![(200, INFO)]).await;
    let both = admin(vec![door("gone", gone), door("here", url)]);
    assert_eq!(both.info().await.unwrap().deployment_id, "d1");
    let one = both.through(&["gone"]);
    let error = one.info().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error.to_string().contains("gone (http://127.0.0.1:"),
        "{error}"
    );
    // A name that nobody has narrows nothing.
    assert!(both.through(&["nobody"]).info().await.is_ok());
    // Without any node there is no answer either.
    assert!(admin(Vec::new()).info().await.is_err());
}

#[tokio::test]
async fn writes_under_way_are_those_of_every_node_that_are_no_reads() {
    const METRICS: &str = "# TYPE minio_api_requests_inflight_total gauge\n\
        minio_api_requests_inflight_total{name=\"PutObject\",server=\"a:9000\",type=\"s3\"} 2\n\
        minio_api_requests_inflight_total{name=\"GetObject\",server=\"a:9000\",type=\"s3\"} 9\n\
        minio_api_requests_inflight_total{name=\"CopyObject\",server=\"a:9000\",type=\"s3\"} 0\n\
        minio_api_requests_inflight_total{name=\"ServerInfo\",server=\"a:9000\",type=\"admin\"} 1\n\
        minio_api_requests_total{name=\"PutObject\",server=\"a:9000\",type=\"s3\"} 7\n";
    let (one, heard) = node(vec![(200, METRICS)]).await;
    let (other, _) = node(vec![(200, "")]).await;
    let admin_of = |other: String| admin(vec![door("a", one.clone()), door("b", other)]);
    let seen = admin_of(other).writes_under_way().await.unwrap();
    let expected = UnderWay {
        node: "a".to_owned(),
        call: "PutObject".to_owned(),
        count: 2,
    };
    assert_eq!(seen, [expected]);
    let heard = heard.lock().unwrap()[0].clone();
    assert!(
        heard.starts_with("GET /minio/metrics/v3/api/requests "),
        "{heard}"
    );
    assert!(
        heard.contains("authorization: Bearer ey") && !heard.contains("hunter2"),
        "{heard}"
    );
    // One node that does not answer may serve anything.
    let (denies, _) = node(vec![(403, r#"{"Code":"AccessDenied","Message":"No."}"#)]).await;
    let error = admin_of(denies).writes_under_way().await.unwrap_err();
    assert!(
        error.is_credentials() && error.to_string().contains("admin:Prometheus"),
        "{error}"
    );
}

#[tokio::test]
async fn usage_and_quotas_are_read_and_set() {
    const USAGE: &str = r#"{"objectsCount":3,"bucketsUsageInfo":{"b":{"size":30,"objectsCount":3,"versionsCount":5}}}"#;
    const QUOTA: &str = r#"{"quota":0,"size":1000,"rate":0,"requests":0,"quotatype":"hard"}"#;
    let (url, heard) = node(vec![(200, USAGE), (200, QUOTA), (200, "")]).await;
    let admin = admin(vec![door("a", url)]);
    let usage = admin.usage().await.unwrap();
    assert_eq!(usage["b"], Usage { bytes: 30, keys: 3 });
    let quota = admin.quota("b").await.unwrap();
    assert_eq!(quota.bytes(), Some(1000));
    assert_eq!(Quota::default().bytes(), None);
    admin.set_quota("c", &quota).await.unwrap();
    let heard = heard.lock().unwrap();
    assert!(
        heard[1].starts_with("GET /minio/admin/v3/get-bucket-quota?bucket=b "),
        "{}",
        heard[1]
    );
    assert!(
        heard[2].starts_with("PUT /minio/admin/v3/set-bucket-quota?bucket=c "),
        "{}",
        heard[2]
    );
    assert!(
        heard[2].ends_with(r#"{"quota":1000,"size":1000,"quotatype":"hard"}"#),
        "{}",
        heard[2]
    );
}
