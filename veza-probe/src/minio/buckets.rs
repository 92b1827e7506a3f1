//! Buckets: how much is in them, and how much may be.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Admin, Error, Request, read};

/// What is in a bucket, as MinIO's scanner counted it: minutes ago, or hours in a large cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Bytes of all versions.
    #[serde(rename = "size", default)]
    pub bytes: u64,
    /// Keys.
    #[serde(rename = "objectsCount", default)]
    pub keys: u64,
}

#[derive(Deserialize)]
struct Usages {
    #[serde(rename = "bucketsUsageInfo", default)]
    buckets: BTreeMap<String, Usage>,
}

/// A bucket's quota (madmin-go, BucketQuota).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// As many bytes may be in it; 0 is as many as there is room for. Older releases name it so.
    #[serde(default)]
    quota: u64,
    /// The same.
    #[serde(default)]
    size: u64,
    #[serde(rename = "quotatype", default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

impl Quota {
    /// In bytes; none where there is none.
    pub fn bytes(&self) -> Option<u64> {
        Some(self.size.max(self.quota)).filter(|bytes| *bytes > 0)
    }
}

impl Admin {
    /// What is in each bucket.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn usage(&self) -> Result<BTreeMap<String, Usage>, Error> {
        let asked = "the usage of buckets";
        let request = Request::new(Method::GET, "/datausageinfo", asked, "admin:DataUsageInfo");
        let (door, answer) = self.ask(&request).await?;
        Ok(read::<Usages>(&request, door, &answer)?.buckets)
    }

    /// A bucket's quota.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn quota(&self, bucket: &str) -> Result<Quota, Error> {
        let asked = format!("the quota of {bucket}");
        let path = "/get-bucket-quota";
        let mut request = Request::new(Method::GET, path, &asked, "admin:GetBucketQuota");
        request.query.push(("bucket", bucket.to_owned()));
        let (door, answer) = self.ask(&request).await?;
        read(&request, door, &answer)
    }

    /// Gives a bucket another's quota.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_quota(&self, bucket: &str, quota: &Quota) -> Result<(), Error> {
        let bytes = quota.bytes().unwrap_or(0);
        let quota = Quota {
            quota: bytes,
            size: bytes,
            kind: Some("hard".to_owned()),
        };
        let asked = format!("the quota of {bucket} to be {bytes} B");
        let path = "/set-bucket-quota";
        let mut request = Request::new(Method::PUT, path, &asked, "admin:SetBucketQuota");
        request.query.push(("bucket", bucket.to_owned()));
        request.body = serde_json::to_string(&quota).map_err(|error| Error::Request {
            words: error.to_string(),
        })?;
        self.ask(&request).await.map(drop)
    }
}
