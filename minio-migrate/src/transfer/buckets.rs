//! Buckets of the target, made and set as the source's are. What would change objects on their way is set after they are there.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{BucketVersioningStatus, Tagging, VersioningConfiguration};
use veza_probe::clock;

use crate::baseline::Bucket;
use crate::targets::Targets;
use crate::targets::s3::{Failure, S3, answered};

/// What could not be set, as something to do.
pub type ToDo = Vec<String>;

/// Before objects are copied: makes a bucket, with versions and object lock where the source has them (lock can't be added later), and sets
/// encryption, tags, policy and CORS.
///
/// # Errors
/// What could not be made or versioned: then nothing may be copied.
pub async fn prepare(targets: &Targets, bucket: &Bucket) -> Result<ToDo, Failure> {
    let (name, target) = (bucket.name.as_str(), &targets.target);
    if !bucket.on_target {
        let asked = targets
            .source
            .ask(|client| answered(client.get_object_lock_configuration().bucket(name).send()));
        let is_locked = asked.await.is_ok();
        made(target, name, is_locked).await?;
    }
    if versioning(&targets.source, name).await?.is_some() {
        // Also where the source has suspended it by now: what it has of versions needs it.
        version(target, name, BucketVersioningStatus::Enabled).await?;
    }
    let mut todo = ToDo::new();
    let mut set = |what: &str, done: Result<(), Failure>| {
        if let Err(failure) = done {
            todo.push(format!(
                "{name}: {what} could not be set on the target, set it by hand: {failure}"
            ));
        }
    };
    set("encryption", encryption(targets, name).await);
    set("tags", tags(targets, name).await);
    set("the policy", policy(targets, name).await);
    set("CORS", cors(targets, name).await);
    Ok(todo)
}

/// How often a bucket is made that comes without its lock, and how often its nodes are asked for it.
const MAKES: usize = 5;
const ASKS: usize = 10;

/// Makes a bucket. MinIO that breaks off in the middle of that (nodes that have just been started) leaves it without the lock, which can't
/// be added; what is as new as that is empty, and is made again.
async fn made(target: &S3, name: &str, is_locked: bool) -> Result<(), Failure> {
    for _ in 0..MAKES {
        let made = target.ask(|client| {
            let request = client.create_bucket().bucket(name);
            let lock = is_locked.then_some(true);
            answered(request.set_object_lock_enabled_for_bucket(lock).send())
        });
        match made.await {
            // A try whose answer came too late to be one.
            Err(failure) if failure.word.as_deref() == Some("BucketAlreadyOwnedByYou") => {}
            made => drop(made?),
        }
        if !is_locked || locked(target, name).await {
            return Ok(());
        }
        let removed = target.ask(|client| answered(client.delete_bucket().bucket(name).send()));
        removed.await?;
    }
    Err(Failure::silent(
        "it was made five times, each time without object lock",
    ))
}

/// Whether every node says that a bucket locks objects.
async fn locked(target: &S3, name: &str) -> bool {
    for _ in 0..ASKS {
        let mut is_everywhere = true;
        for node in target.each() {
            let asked = node.client.get_object_lock_configuration().bucket(name);
            is_everywhere &= answered(asked.send()).await.is_ok();
        }
        if is_everywhere {
            return true;
        }
        clock::sleep(PAUSE).await;
    }
    false
}

/// After objects were copied: default retention (it would lock objects that have none), lifecycle (it would expire what is just being
/// copied), notification (it would tell of every copy), and versioning that is suspended.
pub async fn finish(targets: &Targets, bucket: &Bucket) -> ToDo {
    let name = bucket.name.as_str();
    let mut todo = ToDo::new();
    let mut set = |what: &str, done: Result<(), Failure>| {
        if let Err(failure) = done {
            todo.push(format!(
                "{name}: {what} could not be set on the target, set it by hand: {failure}"
            ));
        }
    };
    set("default retention", retention(targets, name).await);
    set("the lifecycle", lifecycle(targets, name).await);
    set("notification", notification(targets, name).await);
    let suspended = match versioning(&targets.source, name).await {
        Ok(Some(status)) if status == BucketVersioningStatus::Suspended => {
            version(&targets.target, name, status).await
        }
        Ok(_) => Ok(()),
        Err(failure) => Err(failure),
    };
    set("suspended versioning", suspended);
    todo
}

async fn versioning(store: &S3, bucket: &str) -> Result<Option<BucketVersioningStatus>, Failure> {
    let asked = store.ask(|client| answered(client.get_bucket_versioning().bucket(bucket).send()));
    Ok(asked.await?.status)
}

/// How often versioning is set until every node says so, and the pause between: a node of MinIO that was not reached when it was set keeps
/// what it knew for minutes.
const TRIES: usize = 40;
const PAUSE: Duration = Duration::from_millis(500);

async fn version(store: &S3, bucket: &str, status: BucketVersioningStatus) -> Result<(), Failure> {
    for _ in 0..TRIES {
        let mut is_everywhere = true;
        for node in store.each() {
            let asked = answered(node.client.get_bucket_versioning().bucket(bucket).send()).await;
            is_everywhere &= asked.is_ok_and(|answer| answer.status.as_ref() == Some(&status));
        }
        if is_everywhere {
            return Ok(());
        }
        set_version(store, bucket, &status).await?;
        clock::sleep(PAUSE).await;
    }
    Err(Failure::silent(
        "not every node says that its versions are kept",
    ))
}

async fn set_version(
    store: &S3,
    bucket: &str,
    status: &BucketVersioningStatus,
) -> Result<(), Failure> {
    let configuration = VersioningConfiguration::builder()
        .status(status.clone())
        .build();
    let set = store.ask(|client: Client| {
        let request = client.put_bucket_versioning().bucket(bucket);
        answered(
            request
                .versioning_configuration(configuration.clone())
                .send(),
        )
    });
    set.await.map(drop)
}

/// What a source says of a setting; none where it has none, or knows no such thing.
fn there<T>(asked: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if matches!(failure.code, Some(404 | 501)) => Ok(None),
        Err(failure) if failure.word.as_deref() == Some("NotImplemented") => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Copies a setting: how it is asked for, what of the answer is set, and how.
macro_rules! copied {
    ($name:ident, $get:ident, $answer:ident => $value:expr, $put:ident, $with:ident) => {
        async fn $name(targets: &Targets, bucket: &str) -> Result<(), Failure> {
            let asked = targets
                .source
                .ask(|client| answered(client.$get().bucket(bucket).send()));
            let Some($answer) = there(asked.await)? else {
                return Ok(());
            };
            let Some(value) = $value else { return Ok(()) };
            let set = targets.target.ask(|client: Client| {
                answered(client.$put().bucket(bucket).$with(value.clone()).send())
            });
            set.await.map(drop)
        }
    };
}

copied!(encryption, get_bucket_encryption, answer => answer.server_side_encryption_configuration, put_bucket_encryption, server_side_encryption_configuration);
copied!(policy, get_bucket_policy, answer => answer.policy, put_bucket_policy, policy);
copied!(retention, get_object_lock_configuration, answer => answer.object_lock_configuration.filter(|lock| lock.rule.is_some()), put_object_lock_configuration, object_lock_configuration);
copied!(tags, get_bucket_tagging, answer => Tagging::builder().set_tag_set(Some(answer.tag_set)).build().ok(), put_bucket_tagging, tagging);
copied!(cors, get_bucket_cors, answer => aws_sdk_s3::types::CorsConfiguration::builder().set_cors_rules(answer.cors_rules).build().ok(), put_bucket_cors, cors_configuration);
copied!(lifecycle, get_bucket_lifecycle_configuration, answer => answer.rules.and_then(|rules| aws_sdk_s3::types::BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().ok()), put_bucket_lifecycle_configuration, lifecycle_configuration);
copied!(notification, get_bucket_notification_configuration, answer => ({
    let queues = answer.queue_configurations.filter(|all| !all.is_empty());
    queues.map(|queues| aws_sdk_s3::types::NotificationConfiguration::builder().set_queue_configurations(Some(queues)).build())
}), put_bucket_notification_configuration, notification_configuration);
