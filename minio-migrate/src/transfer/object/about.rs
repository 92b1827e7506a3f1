//! All that belongs to an object beside its bytes.

use std::collections::HashMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockLegalHoldStatus, ObjectLockMode, StorageClass, Tag};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Place;
use crate::targets::s3::{Failure, answered};
use crate::targets::walk::Version;

/// What is written with an object.
#[derive(Clone, Debug, Default)]
pub struct About {
    content_type: Option<String>,
    cache_control: Option<String>,
    content_disposition: Option<String>,
    content_encoding: Option<String>,
    content_language: Option<String>,
    expires: Option<DateTime>,
    website_redirect: Option<String>,
    metadata: Option<HashMap<String, String>>,
    tags: Option<String>,
    class: Option<StorageClass>,
    retention: Option<(ObjectLockMode, DateTime)>,
    hold: Option<ObjectLockLegalHoldStatus>,
    /// Whether the source keeps it encrypted, so that its ETag is none of its bytes.
    pub is_encrypted: bool,
    /// What can't be written.
    pub losses: Vec<String>,
}

/// Sets everything on a request to write: two types with the same names.
macro_rules! written {
    ($about:ident, $request:ident) => {
        $request
            .set_content_type($about.content_type.clone())
            .set_cache_control($about.cache_control.clone())
            .set_content_disposition($about.content_disposition.clone())
            .set_content_encoding($about.content_encoding.clone())
            .set_content_language($about.content_language.clone())
            .set_expires($about.expires)
            .set_website_redirect_location($about.website_redirect.clone())
            .set_metadata($about.metadata.clone())
            .set_tagging($about.tags.clone())
            .set_storage_class($about.class.clone())
            .set_object_lock_mode($about.retention.as_ref().map(|(mode, _)| mode.clone()))
            .set_object_lock_retain_until_date($about.retention.as_ref().map(|(_, until)| *until))
            .set_object_lock_legal_hold_status($about.hold.clone())
    };
}

impl About {
    /// From an answer of the source; tags are asked for where there are some.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn of(
        client: &Client,
        place: Place<'_>,
        version: &Version,
        (answer, now_ms): (&GetObjectOutput, i64),
    ) -> Result<About, Failure> {
        let mut tags = None;
        if answer.tag_count.unwrap_or_default() > 0 {
            let request = client
                .get_object_tagging()
                .bucket(place.bucket)
                .key(place.key);
            let set = answered(request.set_version_id(version.id.clone()).send()).await?;
            tags = Some(query(&set.tag_set));
        }
        let mut about = About {
            content_type: answer.content_type.clone(),
            cache_control: answer.cache_control.clone(),
            content_disposition: answer.content_disposition.clone(),
            content_encoding: answer.content_encoding.clone(),
            content_language: answer.content_language.clone(),
            website_redirect: answer.website_redirect_location.clone(),
            metadata: answer.metadata.clone(),
            tags,
            // What the target calls standard is its own matter.
            class: answer
                .storage_class
                .clone()
                .filter(|class| *class == StorageClass::ReducedRedundancy),
            hold: answer.object_lock_legal_hold_status.clone(),
            is_encrypted: answer.server_side_encryption.is_some()
                || answer.sse_customer_algorithm.is_some(),
            ..About::default()
        };
        about.expires(answer.expires_string.as_deref());
        about.retention(answer, now_ms);
        Ok(about)
    }

    fn expires(&mut self, text: Option<&str>) {
        use aws_sdk_s3::primitives::DateTimeFormat::HttpDate;
        let Some(text) = text else { return };
        match DateTime::from_str(text, HttpDate) {
            Ok(date) => self.expires = Some(date),
            Err(_) => self
                .losses
                .push(format!("expires: the header is no date: {text:?}")),
        }
    }

    /// A retention that is over can't be set.
    fn retention(&mut self, answer: &GetObjectOutput, now_ms: i64) {
        let (Some(mode), Some(until)) = (
            &answer.object_lock_mode,
            answer.object_lock_retain_until_date,
        ) else {
            return;
        };
        let until_ms = until.to_millis().unwrap_or_default();
        if until_ms <= now_ms {
            self.losses.push(format!(
                "retention: it is over ({} until {until})",
                mode.as_str()
            ));
        } else {
            self.retention = Some((mode.clone(), until));
        }
    }

    /// A request to write it in one piece.
    pub fn put(&self, request: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        written!(self, request)
    }

    /// A request to write it in parts.
    pub fn create(
        &self,
        request: CreateMultipartUploadFluentBuilder,
    ) -> CreateMultipartUploadFluentBuilder {
        written!(self, request)
    }
}

/// Tags as a header takes them.
fn query(tags: &[Tag]) -> String {
    let plain = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = tags
        .iter()
        .map(|tag| format!("{}={}", plain(&tag.key), plain(&tag.value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_a_query() {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
        assert_eq!(
            query(&[tag("a", "1 & 2"), tag("é", "")]),
            "a=1%20%26%202&%C3%A9="
        );
    }

    #[test]
    fn a_retention_that_is_over_is_a_loss() {
        let answer = GetObjectOutput::builder()
            .object_lock_mode(ObjectLockMode::Governance)
            .object_lock_retain_until_date(DateTime::from_millis(1000))
            .build();
        let with = |now_ms| {
            let mut about = About::default();
            about.retention(&answer, now_ms);
            (about.retention.is_some(), about.losses.len())
        };
        assert_eq!((with(999), with(1000)), ((true, 0), (false, 1)));
    }

    #[test]
    fn an_odd_expiry_is_a_loss() {
        let mut about = About::default();
        about.expires(Some("Thu, 01 Dec 2033 16:00:00 GMT"));
        assert!(about.expires.is_some() && about.losses.is_empty());
        about.expires(Some("soon"));
        assert_eq!(about.losses.len(), 1);
    }
}
