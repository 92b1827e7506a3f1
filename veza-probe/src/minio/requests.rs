//! What the nodes are serving at this moment. A request that was let in before its user was disabled is served to its end.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ring::hmac;
use serde_json::json;

use super::{Admin, Door, Error, Request};

/// Metrics of version 3 are counted when they are asked for; those of version 2 are up to 10 s old (cmd/metrics-v2.go, cacheInterval).
const PATH: &str = "/minio/metrics/v3/api/requests";
const METRIC: &str = "minio_api_requests_inflight_total{";

/// How long a token is good for, in seconds.
const GOOD_S: i64 = 60;

/// What does not change anything.
const READS: [&str; 4] = ["Get", "Head", "List", "Select"];

/// Requests of one kind at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// The node.
    pub node: String,
    /// MinIO's name of the call: `PutObject`.
    pub call: String,
    /// How many.
    pub count: u64,
}

impl Admin {
    /// Requests of S3 that may change something and are under way, at every node.
    ///
    /// # Errors
    /// [`Error`], also where a single node does not answer.
    pub async fn writes_under_way(&self) -> Result<Vec<UnderWay>, Error> {
        let asked = "requests that are under way";
        let request = Request::new(Method::GET, PATH, asked, "admin:Prometheus");
        let mut all = Vec::new();
        for door in &self.doors {
            let sent = door.client.get(format!("{}{PATH}", door.base));
            let answer = self
                .sent(door, &request, sent.bearer_auth(self.token()))
                .await?;
            all.extend(writes(door, &String::from_utf8_lossy(&answer)));
        }
        Ok(all)
    }

    /// Metrics are not asked for by a signature but by a JSON web token, signed with the login's secret key (cmd/jwt.go;
    /// HS512, RFC 7518).
    fn token(&self) -> String {
        let coded = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let now_s = self.clock.wall(self.clock.at()).as_second();
        let head = coded(json!({ "alg": "HS512", "typ": "JWT" }));
        let access = self.login.access.expose();
        let claims = coded(json!({ "exp": now_s + GOOD_S, "sub": access, "iss": "prometheus" }));
        let text = format!("{head}.{claims}");
        let key = hmac::Key::new(hmac::HMAC_SHA512, self.login.secret.expose().as_bytes());
        let signature = hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Reads the metrics of one node: those of S3 calls that are no reads, and are not zero.
fn writes(door: &Door, text: &str) -> Vec<UnderWay> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(METRIC));
    let read = lines.filter_map(|line| {
        let (labels, count) = line.rsplit_once("} ")?;
        let label = |name: &str| {
            let found = labels.split(',').find_map(|label| label.strip_prefix(name));
            found?.strip_prefix("=\"")?.strip_suffix('"')
        };
        let (call, kind) = (label("name")?, label("type")?);
        let count = count.trim().parse::<f64>().ok()? as u64;
        let is_read = READS.iter().any(|word| call.starts_with(word));
        (kind == "s3" && !is_read && count > 0).then(|| UnderWay {
            node: door.name.clone(),
            call: call.to_owned(),
            count,
        })
    });
    read.collect()
}
