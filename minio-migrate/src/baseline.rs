//! What there is before anything is compared: both stores answer, the buckets, and what these are set to.

pub mod preflight;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::Client;
use veza_probe::clock::{self, At, Clock};
use veza_probe::report::{Condition, Untouched};

use crate::cli::Args;
use crate::targets::s3::{Failure, Node, S3, answered};
use crate::targets::{self, Targets, refused};

/// What stands in a message of a setting.
const SHOWN: usize = 160;

/// What was found.
pub struct Baseline {
    /// The buckets of the source that were asked for.
    pub buckets: Vec<Bucket>,
    /// Settings that differ: bucket and words.
    pub differences: Vec<(String, String)>,
    /// What a later reader must know to compare two runs.
    pub conditions: Vec<Condition>,
}

/// A bucket of the source.
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Whether the target has it.
    pub on_target: bool,
    /// Whether the source keeps versions of what is overwritten, and the target does not.
    pub loses_versions: bool,
}

/// Looks at both stores.
///
/// # Errors
/// Refused when a store does not answer or refuses the login, or there is no such bucket.
pub async fn measure(args: &Args, targets: &Targets) -> Result<Baseline, Untouched> {
    let clocks = preflight::clocks(args, &Clock::start()).await?;
    let source = buckets(&targets.source, "source").await?;
    // Each node must answer: what one does not would be asked of the others, and that is not what was typed.
    for node in targets.source.each().chain(targets.target.each()) {
        answers(node).await?;
    }
    let target = buckets(&targets.target, "target").await?;
    let wanted: Vec<&String> = source.iter().filter(|name| args.wants(name)).collect();
    let missing = |name: &&String| !name.contains('*') && !source.contains(name);
    if let Some(name) = args.buckets.iter().find(missing) {
        let words = format!("the source has no bucket {name}, or its login may not see it");
        return Err(refused(
            "no-bucket",
            words,
            "look at --bucket, and at the rights of MINIO_SRC_ACCESS_KEY",
        ));
    }
    if wanted.is_empty() {
        let words = "the source's login sees no bucket that was asked for";
        return Err(refused(
            "no-bucket",
            words,
            "look at --bucket, and at the rights of MINIO_SRC_ACCESS_KEY",
        ));
    }
    let (found, mut differences) = compared(targets, &wanted, &target).await;
    let quotas = quotas(args, &found).await;
    for bucket in found.iter().filter(|bucket| bucket.on_target) {
        agree(&targets.target, &bucket.name).await?;
    }
    let names = |store: &S3| store.names().collect::<Vec<_>>().join(", ");
    let condition = |name: &str, value: String| Condition {
        name: name.to_owned(),
        value,
    };
    let mut conditions = vec![
        condition("version", env!("CARGO_PKG_VERSION").to_owned()),
        condition("source", names(&targets.source)),
        condition("target", names(&targets.target)),
    ];
    conditions.extend(clocks);
    match quotas {
        Ok(others) => differences.extend(others),
        Err(words) => conditions.push(condition("quotas", format!("not compared: {words}"))),
    }
    Ok(Baseline {
        buckets: found,
        differences,
        conditions,
    })
}

/// Quotas that differ. They are no part of S3: a source that knows none is no reason to stop.
async fn quotas(args: &Args, buckets: &[Bucket]) -> Result<Vec<(String, String)>, String> {
    let admins = targets::admins(args, &Clock::start());
    let (source, target) = admins.map_err(|untouched| untouched.judgement.reason)?;
    let mut differences = Vec::new();
    for Bucket { name, .. } in buckets.iter().filter(|bucket| bucket.on_target) {
        let one = source
            .quota(name)
            .await
            .map_err(|error| error.to_string())?;
        let told = |bytes: Option<u64>| bytes.map_or("none".to_owned(), |b| format!("{b} B"));
        let words = match target.quota(name).await {
            Ok(other) if one.bytes() == other.bytes() => continue,
            Ok(other) => format!(
                "quota: {} on the source, {} on the target",
                told(one.bytes()),
                told(other.bytes())
            ),
            // What there is none of need not be known there.
            Err(_) if one.bytes().is_none() => continue,
            Err(error) => format!("quota could not be compared; target: {error}"),
        };
        differences.push((name.clone(), words));
    }
    Ok(differences)
}

/// Each bucket that is wanted, and what differs.
async fn compared(
    targets: &Targets,
    wanted: &[&String],
    target: &[String],
) -> (Vec<Bucket>, Vec<(String, String)>) {
    let mut differences = Vec::new();
    let mut found = Vec::new();
    for &name in wanted {
        let on_target = target.contains(name);
        let mut loses_versions = false;
        if on_target {
            let both = (
                settings(&targets.source, name).await,
                settings(&targets.target, name).await,
            );
            let keeps =
                |settings: &Settings| matches!(settings.get("versioning"), Some(Ok(Some(_))));
            loses_versions = keeps(&both.0) && !keeps(&both.1);
            differences.extend(
                differ(&both.0, &both.1)
                    .into_iter()
                    .map(|words| (name.clone(), words)),
            );
        } else {
            differences.push((name.clone(), "the target has no such bucket".to_owned()));
        }
        found.push(Bucket {
            name: name.clone(),
            on_target,
            loses_versions,
        });
    }
    (found, differences)
}

async fn answers(node: &Node) -> Result<(), Untouched> {
    let asked = answered(node.client.list_buckets().send()).await;
    asked
        .map(|_| ())
        .map_err(|failure| unwell(&node.name, &failure))
}

async fn lock_and_versioning(node: &Node, bucket: &str) -> Result<String, Failure> {
    let asked = answered(node.client.get_bucket_versioning().bucket(bucket).send()).await?;
    let versioning = asked
        .status
        .map_or("none".to_owned(), |status| status.as_str().to_owned());
    let asked = answered(
        node.client
            .get_object_lock_configuration()
            .bucket(bucket)
            .send(),
    )
    .await;
    let lock = match asked {
        Ok(answer) => told(&answer.object_lock_configuration),
        Err(failure) => none(&failure).map_err(|_| failure)?,
    };
    let lock = lock.map_or(String::new(), |_| ", object lock".to_owned());
    Ok(format!("{versioning}{lock}"))
}

/// How long nodes may need to agree on what a bucket is set to.
const AGREES: Duration = Duration::from_secs(10);

/// Refuses when nodes of a store think otherwise of a bucket's versioning: a node of MinIO that was not reached when it was set has
/// the old state in memory for minutes, and writes through it leave no versions (seen).
async fn agree(store: &S3, bucket: &str) -> Result<(), Untouched> {
    let clock = Clock::start();
    loop {
        let mut said = BTreeMap::<String, Vec<&str>>::new();
        for node in store.each() {
            let state = match lock_and_versioning(node, bucket).await {
                Ok(state) => state,
                Err(failure) => failure.to_string(),
            };
            said.entry(state).or_default().push(&node.name);
        }
        if said.len() <= 1 {
            return Ok(());
        }
        if clock.at() > At(0).plus(AGREES) {
            let words = said
                .iter()
                .map(|(state, nodes)| format!("{state} by {}", nodes.join(", ")));
            let words = words.collect::<Vec<_>>().join("; ");
            let words = format!(
                "{bucket}: nodes of the target say otherwise of its versioning and object lock: {words}"
            );
            let next = "mc admin service restart the target, or set its versioning again, then run it again";
            return Err(refused("nodes-disagree", words, next));
        }
        clock::sleep(Duration::from_millis(500)).await;
    }
}

async fn buckets(store: &S3, side: &str) -> Result<Vec<String>, Untouched> {
    let listed = store
        .ask(|client| answered(client.list_buckets().send()))
        .await;
    let listed = listed.map_err(|failure| unwell(side, &failure))?;
    let names = listed.buckets.unwrap_or_default().into_iter();
    Ok(names.filter_map(|bucket| bucket.name).collect())
}

/// Why a store, or a node of it, can't be compared.
fn unwell(who: &str, failure: &Failure) -> Untouched {
    let words = format!("{who}: asked for its buckets: {failure}");
    match failure.code {
        Some(401 | 403) => refused(
            "credentials-refused",
            words,
            "look at MINIO_SRC_* and MINIO_DST_*",
        ),
        _ => refused(
            "store-unreachable",
            words,
            "look at the store, then run it again",
        ),
    }
}

/// What a bucket is set to, by a name for people: none where nothing is set, a failure where it could not be asked.
type Settings = BTreeMap<&'static str, Result<Option<String>, String>>;

async fn settings(store: &S3, bucket: &str) -> Settings {
    let mut all = Settings::new();
    macro_rules! setting {
        ($name:literal, $ask:ident, $told:expr) => {
            let ask = |client: Client| answered(client.$ask().bucket(bucket).send());
            let answer = store.ask(ask).await;
            all.insert($name, answer.map($told).or_else(|failure| none(&failure)));
        };
    }
    setting!("versioning", get_bucket_versioning, |answer| answer
        .status
        .map(|status| status.as_str().to_owned()));
    setting!("object lock", get_object_lock_configuration, |answer| told(
        &answer.object_lock_configuration
    ));
    setting!("lifecycle", get_bucket_lifecycle_configuration, |answer| {
        answer.rules.map(|rules| sorted(&rules))
    });
    setting!("policy", get_bucket_policy, |answer| answer
        .policy
        .map(|policy| plain_json(&policy)));
    setting!("tags", get_bucket_tagging, |answer| Some(sorted(
        &answer.tag_set
    )));
    setting!("CORS", get_bucket_cors, |answer| answer
        .cors_rules
        .map(|rules| sorted(&rules)));
    setting!("encryption", get_bucket_encryption, |answer| told(
        &answer.server_side_encryption_configuration
    ));
    setting!(
        "notification",
        get_bucket_notification_configuration,
        |answer| {
            let parts = [
                told(&answer.queue_configurations.filter(|all| !all.is_empty())),
                told(&answer.topic_configurations.filter(|all| !all.is_empty())),
                told(
                    &answer
                        .lambda_function_configurations
                        .filter(|all| !all.is_empty()),
                ),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            (!parts.is_empty()).then(|| parts.join("; "))
        }
    );
    all
}

/// A store says in several ways that nothing is set, or that it knows no such thing.
fn none(failure: &Failure) -> Result<Option<String>, String> {
    let knows_none = failure.word.as_deref() == Some("NotImplemented");
    match failure.code {
        Some(404 | 501) => Ok(None),
        Some(_) if knows_none => Ok(None),
        _ => Err(failure.to_string()),
    }
}

fn told<T: std::fmt::Debug>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(|value| format!("{value:?}"))
}

/// In whatever order a store lists them.
fn sorted<T: std::fmt::Debug>(all: &[T]) -> String {
    let mut all: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
    all.sort();
    all.join("; ")
}

/// JSON without its own blanks and order of keys.
fn plain_json(text: &str) -> String {
    let value = serde_json::from_str::<serde_json::Value>(text);
    value.map_or_else(|_| text.to_owned(), |value| value.to_string())
}

/// Each difference, as something to do.
fn differ(source: &Settings, target: &Settings) -> Vec<String> {
    let mut all = Vec::new();
    for (name, one) in source {
        let Some(other) = target.get(name) else {
            continue;
        };
        match (one, other) {
            (Ok(one), Ok(other)) if one == other => {}
            (Ok(one), Ok(other)) => {
                let shown = |value: &Option<String>| {
                    value.as_deref().map_or_else(|| "none".to_owned(), short)
                };
                all.push(format!(
                    "{name}: {} on the source, {} on the target",
                    shown(one),
                    shown(other)
                ));
            }
            (Err(words), _) => all.push(format!("{name} could not be compared; source: {words}")),
            (_, Err(words)) => all.push(format!("{name} could not be compared; target: {words}")),
        }
    }
    all
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_something_to_do() {
        let settings = |versioning: Option<&str>, policy: Result<Option<String>, String>| {
            let versioning = Ok(versioning.map(str::to_owned));
            Settings::from([("versioning", versioning), ("policy", policy)])
        };
        let one = settings(
            Some("Enabled"),
            Ok(Some(plain_json("{\"b\": 1, \"a\": [2]}"))),
        );
        let same = settings(Some("Enabled"), Ok(Some(plain_json("{\"a\":[2],\"b\":1}"))));
        assert!(differ(&one, &same).is_empty());
        let words = differ(&one, &settings(None, Err("403 AccessDenied".to_owned()))).join("; ");
        assert!(
            words.contains("versioning: Enabled on the source, none on the target"),
            "{words}"
        );
        assert!(
            words.contains("policy could not be compared; target: 403"),
            "{words}"
        );
    }

    #[test]
    fn nothing_set_and_nothing_known_are_none() {
        let failure = |code, word: &str| Failure {
            code: Some(code),
            word: Some(word.to_owned()),
            ..Failure::silent("")
        };
        assert_eq!(
            none(&failure(404, "NoSuchLifecycleConfiguration")),
            Ok(None)
        );
        assert_eq!(none(&failure(501, "NotImplemented")), Ok(None));
        assert!(
            none(&failure(403, "AccessDenied")).is_err() && none(&Failure::silent("x")).is_err()
        );
    }
}
