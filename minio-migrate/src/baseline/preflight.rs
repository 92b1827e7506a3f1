//! What is tried before anything is copied: that the clocks agree, and that both logins may do everything that a copy does.

use std::time::Duration;

use aws_sdk_s3::Client;
use veza_probe::clock::{Clock, within};
use veza_probe::report::{Condition, Untouched};

use super::Bucket;
use crate::cli::{Args, Endpoint, Versions};
use crate::targets::s3::{Failure, S3, answered};
use crate::targets::walk::{Version, Walk};
use crate::targets::{self, Targets, refused};

/// How far a clock may be off, in seconds. Signatures that are 900 s off are refused (`RequestTimeTooSkewed`), and until then
/// retention and lifecycle mean other days than they say.
const SKEW_MAX_S: i64 = 300;

/// How long a node has to tell its time.
const LIMIT: Duration = Duration::from_secs(5);

/// Compares the clock of every node with this host's, by the `Date` of an answer, which is in whole seconds.
///
/// # Errors
/// Refused when one is far off.
pub async fn clocks(args: &Args, clock: &Clock) -> Result<Vec<Condition>, Untouched> {
    let client = targets::plain_client(args)?;
    let mut conditions = Vec::new();
    for Endpoint { name, url, .. } in args.source.iter().chain(&args.targets) {
        let asked = client.get(format!("{url}/minio/health/live")).send();
        let Ok(Ok(answer)) = within(LIMIT, asked).await else {
            continue;
        };
        let here_s = clock.wall(clock.at()).as_second();
        let date = answer.headers().get("date");
        let date = date.and_then(|date| date.to_str().ok());
        let Some(there_s) = date.and_then(seconds) else {
            continue;
        };
        let ahead_s = there_s - here_s;
        if ahead_s.abs() > SKEW_MAX_S {
            let words = format!("the clock of {name} is {ahead_s} s ahead of this host's");
            let next = "set both clocks (chrony), then run it again";
            return Err(refused("clock-skew", words, next));
        }
        conditions.push(Condition {
            name: format!("clock of {name}"),
            value: match ahead_s {
                -2..=1 => "as this host's, to the second".to_owned(),
                _ => format!("{ahead_s} s ahead of this host's"),
            },
        });
    }
    Ok(conditions)
}

/// A date as HTTP writes it (RFC 9110, 5.6.7), in seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    let zoned = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(zoned.timestamp().as_second())
}

/// What the object is called that is nobody's.
const CANARY: &str = "veza-canary-of-minio-migrate";

/// What is asked of a store, what it needs, and what came of it.
type Tried = (&'static str, &'static str, Result<(), Failure>);

/// Tries at the source to read the first object of each bucket with all that belongs to it, and at the target to write, read and remove an
/// object that is nobody's. What removing it would leave there (a bucket that locks what is written) is not written.
///
/// # Errors
/// Refused at the first thing that a login may not do.
pub async fn permitted(
    args: &Args,
    targets: &Targets,
    buckets: &[Bucket],
) -> Result<(), Untouched> {
    for bucket in buckets {
        let name = &bucket.name;
        let (key, tried) = read(args, targets, name).await;
        allowed("source", (name, &key), tried)?;
        if bucket.on_target {
            let key = format!("{}{CANARY}", args.prefix);
            let tried = written(targets, name, &key).await;
            allowed("target", (name, &key), tried)?;
        }
    }
    Ok(())
}

/// Only a refusal counts: what is not known there, or busy, is met again by the copy.
fn allowed(side: &str, (bucket, key): (&str, &str), tried: Vec<Tried>) -> Result<(), Untouched> {
    for (what, action, done) in tried {
        if let Err(failure) = done.as_ref()
            && failure.is_denied()
        {
            let words =
                format!("the {side}'s login may not {what} {bucket}/{key} ({action}): {failure}");
            let next = "see the policy of that user; nothing was copied";
            return Err(refused("not-permitted", words, next));
        }
    }
    Ok(())
}

async fn read(args: &Args, targets: &Targets, bucket: &str) -> (String, Vec<Tried>) {
    let (source, versions) = (&targets.source, args.versions);
    let action = match versions {
        Versions::All => "s3:ListBucketVersions",
        Versions::Latest => "s3:ListBucket",
    };
    let first = Walk::new(source, bucket, &args.prefix, versions)
        .next()
        .await;
    let entry = match first {
        Ok(Some(entry)) => entry,
        Ok(None) => return (String::new(), Vec::new()),
        Err(failure) => return (String::new(), vec![("list", action, Err(failure))]),
    };
    let key = entry.key.clone();
    let Some(version) = entry.versions().next() else {
        return (key, Vec::new());
    };
    let id = |version: &Version| version.id.clone();
    let get = source.ask(|client: Client| {
        let request = client.get_object().bucket(bucket).key(&key);
        // One byte of it: of an empty object there is none, which is said otherwise than a refusal.
        let request = request.range("bytes=0-0");
        answered(request.set_version_id(id(version)).send())
    });
    let tags = source.ask(|client: Client| {
        let request = client.get_object_tagging().bucket(bucket).key(&key);
        answered(request.set_version_id(id(version)).send())
    });
    let read = get.await.map(drop);
    let tried = vec![
        ("read", "s3:GetObject, s3:GetObjectVersion", read),
        (
            "read the tags of",
            "s3:GetObjectTagging",
            tags.await.map(drop),
        ),
    ];
    (key, tried)
}

async fn written(targets: &Targets, bucket: &str, key: &str) -> Vec<Tried> {
    let target = &targets.target;
    let lock =
        target.ask(|client| answered(client.get_object_lock_configuration().bucket(bucket).send()));
    let is_kept = lock.await.is_ok_and(|answer| {
        let lock = answer.object_lock_configuration;
        lock.is_some_and(|lock| lock.rule.is_some())
    });
    if is_kept {
        return Vec::new();
    }
    // Of a run that was killed just here.
    let left = Walk::new(target, bucket, key, Versions::All).next().await;
    let left = left.ok().flatten().map(|entry| entry.history);
    for version in left.unwrap_or_default() {
        let _ = removed(target, (bucket, key), version.id).await;
    }
    let put = target.ask(|client| {
        let request = client.put_object().bucket(bucket).key(key);
        let request = request.tagging("of=a-migration-that-begins");
        answered(request.body(Vec::new().into()).send())
    });
    const WRITES: &str = "s3:PutObject, s3:PutObjectTagging";
    let version = match put.await {
        Ok(answer) => answer.version_id,
        Err(failure) => return vec![("write", WRITES, Err(failure))],
    };
    let get = target.ask(|client| {
        let request = client.get_object().bucket(bucket).key(key);
        answered(request.set_version_id(version.clone()).send())
    });
    let get = get.await.map(drop);
    const REMOVES: &str = "s3:DeleteObject, s3:DeleteObjectVersion; a test object is left there";
    vec![
        ("read", "s3:GetObject, s3:GetObjectVersion", get),
        (
            "remove",
            REMOVES,
            removed(target, (bucket, key), version).await,
        ),
    ]
}

async fn removed(
    target: &S3,
    (bucket, key): (&str, &str),
    version: Option<String>,
) -> Result<(), Failure> {
    let delete = target.ask(|client| {
        let request = client.delete_object().bucket(bucket).key(key);
        answered(request.set_version_id(version.clone()).send())
    });
    delete.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_http_writes_them() {
        assert_eq!(
            seconds("Thu, 26 Nov 2026 18:22:29 GMT"),
            Some(1_795_717_349)
        );
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn only_a_refusal_stands_in_the_way() {
        let failure = |code| Failure {
            code,
            ..Failure::silent("so it is")
        };
        let tried = |code| vec![("write", "s3:PutObject", Err(failure(code)))];
        let place = ("b", "k");
        for passes in [None, Some(404), Some(501), Some(503)] {
            assert!(
                allowed("target", place, tried(passes)).is_ok(),
                "{passes:?}"
            );
        }
        let refused = allowed("target", place, tried(Some(403))).unwrap_err();
        let words = refused.judgement.reason;
        assert!(
            words.contains("target's login may not write b/k (s3:PutObject)"),
            "{words}"
        );
    }
}
