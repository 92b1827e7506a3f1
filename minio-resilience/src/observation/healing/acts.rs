//! The acts that prove healing: what is done while a node is away or its drive is emptied, what is watched after that,
//! and, in the proof, that no version is lost and none is back.

use std::collections::BTreeSet;
use std::time::Duration;

use veza_probe::clock::{self, At};

use super::Record;
use super::healer::Healer;
use super::look::{KeyVersion, Look, short};
use super::rot::{Rot, rot};
use super::written::{Meanwhile, versions, write_meanwhile};
use crate::cli::course::{Act, Object};
use crate::fault::bitrot::Shelf;
use crate::fault::wipe::{self, empty};
use crate::observation::objects::{Read, Reading, Through, compare};
use crate::observation::stage::Stage;
use crate::targets::Node;
use crate::targets::store::{LIMIT, Version};
use veza_probe::minio::{ClusterInfo, Drive, NodeInfo};

/// How long it may take to look at every object of a cluster.
const EVERYWHERE_LIMIT: Duration = Duration::from_secs(120);

/// How long what was just written may take to be whole on every drive, before a heal is asked for and in all.
const WHOLE_PATIENCE: Duration = Duration::from_secs(3);
const WHOLE_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at what heals by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// All that was seen in such an act.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// What was written while a node was away.
    pub meanwhile: Option<Meanwhile>,
    /// Every version that there must be; empty while that is not known.
    pub versions: BTreeSet<KeyVersion>,
    /// Versions that were there before and are not the newest of their key now, with their bytes.
    pub old: Vec<Object>,
    /// The healing.
    pub record: Option<Record>,
    /// How many files a drive had that was emptied.
    pub emptied: Option<u64>,
    /// Flipped bytes.
    pub rot: Option<Rot>,
    /// What became of the versions in the proof.
    pub kept: Option<Kept>,
    /// What stood in the way.
    pub troubles: Vec<String>,
}

/// What became of the versions, as the nodes that stay up list them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many there must be.
    pub expected: usize,
    /// Those that are not listed, with the node.
    pub lost: Vec<String>,
    /// Those that are listed and must not be, with the node.
    pub back: Vec<String>,
    /// Old versions whose bytes are not those that were written.
    pub wrong: Vec<Reading>,
    /// Old versions that could not be read.
    pub unread: Vec<Reading>,
    /// How many old versions were read.
    pub read: usize,
}

impl Kept {
    /// For people.
    pub fn told(&self) -> String {
        let Kept {
            expected,
            lost,
            back,
            wrong,
            unread,
            read,
        } = self;
        let mut words = format!(
            "of {expected} versions {} are not listed; {} are listed that must not be; of {read} readings of old \
             versions {} were wrong and {} came to nothing",
            lost.len(),
            back.len(),
            wrong.len(),
            unread.len()
        );
        for first in [lost.first(), back.first()].into_iter().flatten() {
            words = format!("{words}; {first}");
        }
        for first in [wrong.first(), unread.first()].into_iter().flatten() {
            words = format!("{words}; {first}");
        }
        words
    }
}

/// A node is away: what can be written meanwhile is.
pub async fn write_away(stage: &Stage, objects: &[Object], played: &mut Played) -> Vec<Object> {
    stage.story.doing("writing while a node is away");
    let (now, meanwhile) = write_meanwhile(stage, objects).await;
    stage.story.say(&meanwhile.told());
    let changed = |old: &&Object| {
        let new = now.iter().find(|new| new.key == old.key);
        old.sha256.is_some()
            && new.is_some_and(|new| new.version != old.version || new.sha256.is_none())
    };
    let with_version = |old: &&Object| old.version.as_deref().is_some_and(|id| id != "null");
    played
        .old
        .extend(objects.iter().filter(changed).filter(with_version).cloned());
    played.meanwhile = Some(meanwhile);
    list(stage, &now, played).await;
    now
}

/// Which versions there must be, as a node says that stays up.
async fn list(stage: &Stage, objects: &[Object], played: &mut Played) {
    let through = stage.through_living();
    let Some(first) = through.first() else {
        return;
    };
    match versions(first, &stage.prefix, objects).await {
        Ok(versions) => played.versions = versions,
        Err(words) => played.troubles.push(words),
    }
}

/// A server is held down: its drive is emptied.
pub async fn empty_drive(stage: &Stage, unit: &str, objects: &[Object], played: &mut Played) {
    list(stage, objects, played).await;
    let Some(node) = stage.taken().first().copied() else {
        return;
    };
    let Some(drive) = drive_of(node, &stage.before) else {
        let words = format!(
            "nothing was deleted: the cluster tells of no drive of {}",
            node.name
        );
        return played.troubles.push(words);
    };
    let wiped = wipe::Drive {
        instance: &node.instance,
        unit,
        path: &drive.path,
        deployment_id: &stage.before.deployment_id,
    };
    match empty(&stage.incus, &wiped).await {
        Ok(files) => {
            stage.story.say(&format!(
                "{} of {} was emptied of {files} files",
                drive.path, node.name
            ));
            played.emptied = Some(files);
        }
        Err(words) => played.troubles.push(words),
    }
}

/// After the return, which began at `since`: who lacks what, until nobody lacks anything or `deadline`.
pub async fn heal(stage: &Stage, since: At, deadline: At, played: &mut Played) {
    let emptied = played.emptied.and_then(|_| stage.taken().first().copied());
    let emptied = emptied.and_then(|node| node_of(node, &stage.before));
    let mut healer = healer(stage, played.versions.clone());
    healer.emptied = emptied.map(|node| node.endpoint.clone());
    let record = played.record.insert(Record {
        returned: Some(since),
        ..Record::default()
    });
    let say = |words: String| stage.story.say(&words);
    healer
        .until_whole((stage.args.self_heal_wait, deadline), record, &say)
        .await;
}

/// Flips bytes on the drive of the act's node, and watches them being found and mended.
pub async fn flip(
    stage: &Stage,
    (count, objects): (usize, &[Object]),
    deadline: At,
    played: &mut Played,
) {
    list(stage, objects, played).await;
    let node = stage.taken().first().copied();
    let drive = node.and_then(|node| Some((node, drive_of(node, &stage.before)?)));
    let Some((node, drive)) = drive else {
        return played
            .troubles
            .push("nothing was flipped: the node's drive is not known".to_owned());
    };
    let shelf = Shelf {
        instance: node.instance.clone(),
        path: drive.path.clone(),
        bucket: stage.args.bucket.clone(),
        prefix: stage.prefix.clone(),
    };
    let mut healer = healer(stage, played.versions.clone());
    healer.deep = true;
    let say = |words: String| stage.story.say(&words);
    let on = (&shelf, drive.endpoint.as_str());
    played.rot = Some(rot(stage, &healer, on, (count, objects), deadline, &say).await);
}

/// Sees to it that everything of this run is whole before anything is broken, and looks, before a drive is emptied, at
/// every bucket, as all of them are on it.
///
/// A write has succeeded with three of four drives, too, and does just after a node has come back. With two nodes away such
/// an object has one shard left, and while it is being healed nobody reads it: one object of a hundred was away for 104 s.
/// That is not what two lost nodes cost.
///
/// # Errors
/// What is not whole, or stood in the way of looking.
pub async fn whole_before(stage: &Stage, act: Act, objects: &[Object]) -> Result<(), String> {
    let (everywhere, lose) = (act == Act::WipeDrive, act == Act::Lose);
    let mut played = Played::default();
    list(stage, objects, &mut played).await;
    let mut record = Record::default();
    let healer = healer(stage, played.versions);
    let begun = stage.clock.at();
    let deadline = begun.plus(WHOLE_LIMIT);
    // What somebody else has put there does not make ours unreadable; whether he changes it is seen by reading.
    let settled = |record: &Record| match record.looks.last() {
        Some(look) if lose => look.whole == look.expected && look.expected > 0,
        last => last.is_some_and(Look::is_whole),
    };
    loop {
        // What is left of writes that were refused goes with the first look.
        healer.look(&mut record).await;
        let now = stage.clock.at();
        if settled(&record) || now >= deadline {
            break;
        }
        match now >= begun.plus(WHOLE_PATIENCE) {
            true => healer.ask(deadline, &mut record, &|_| {}).await,
            false => clock::sleep(LOOK_AGAIN).await,
        }
    }
    let troubles = played
        .troubles
        .into_iter()
        .chain(record.trouble.iter().cloned());
    match record.looks.last() {
        Some(_) if settled(&record) => {}
        Some(look) => return Err(look.told(look.expected)),
        None => return Err(troubles.collect::<Vec<_>>().join("; ")),
    }
    let (lacking, of) = (
        record.lacking_at_first().unwrap_or_default(),
        record.expected,
    );
    if lacking > 0 {
        let asked = match record.asks.is_empty() {
            true => "by itself",
            false => "after a heal was asked for",
        };
        stage.story.say(&format!(
            "{lacking} of {of} versions lacked something before anything was broken; all are whole now, {asked}"
        ));
    }
    match everywhere {
        true => whole_everywhere(stage).await,
        false => Ok(()),
    }
}

/// Whether every object of every bucket is whole.
async fn whole_everywhere(stage: &Stage) -> Result<(), String> {
    let doing = "looking whether every object of the cluster is whole";
    stage.story.doing(doing);
    let drives = stage.before.drives().count();
    let mut amiss = None;
    for _ in 0..2 {
        let looked = stage
            .admin
            .heal_dry_run("", "", false, EVERYWHERE_LIMIT)
            .await;
        let looked = looked.map_err(|error| error.to_string())?;
        amiss = looked.into_iter().find(|object| !object.is_whole(drives));
        if amiss.is_none() {
            break;
        }
    }
    let Some(object) = amiss else { return Ok(()) };
    let lacks = object.lacking();
    let lacks = lacks.map(|(drive, state)| format!("{} on {}", state.told(), short(drive)));
    let lacks = lacks.collect::<Vec<_>>().join(", ");
    let (key, version, detail) = (&object.object, &object.version, &object.detail);
    Err(format!("{key} ({version}) is not whole: {lacks} {detail}"))
}

/// The proof's part that reading the newest versions does not show: every version is listed, none is back, and the old
/// ones have their bytes.
pub async fn look_at_versions(
    stage: &Stage,
    expected: &BTreeSet<KeyVersion>,
    old: &[Object],
) -> Result<Kept, String> {
    let mut kept = Kept {
        expected: expected.len(),
        ..Kept::default()
    };
    for through in stage.through_living() {
        // Nothing that was written is asked for here, so nothing that was lost is an error.
        let listed = versions(&through, &stage.prefix, &[]).await?;
        let named =
            |(key, version): &KeyVersion| format!("{key} ({version}) through {}", through.0);
        kept.lost.extend(expected.difference(&listed).map(named));
        kept.back.extend(listed.difference(expected).map(named));
        for object in old {
            let reading = read_version(&through, object).await;
            kept.read += 1;
            match reading.read {
                Read::Right => {}
                Read::Failed(_) => kept.unread.push(reading),
                Read::Wrong(_) | Read::Denied(_) | Read::Changed(_) => kept.wrong.push(reading),
            }
        }
    }
    Ok(kept)
}

async fn read_version((name, store): &Through, object: &Object) -> Reading {
    let version = Version {
        key: object.key.clone(),
        id: object.version.clone(),
    };
    let got = store.get_version(&version, LIMIT).await;
    Reading {
        key: object.key.clone(),
        node: name.clone(),
        read: compare(object, got),
    }
}

fn healer(stage: &Stage, expected: BTreeSet<KeyVersion>) -> Healer {
    // The node that comes back is asked last: a heal is forgotten where its server is started anew.
    let living: Vec<&str> = stage
        .living()
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    Healer {
        clock: stage.clock,
        admin: stage.admin.through(&living),
        bucket: stage.args.bucket.clone(),
        prefix: stage.prefix.clone(),
        expected,
        before: stage.before.clone(),
        emptied: None,
        deep: false,
    }
}

/// A node's drive, as the cluster calls it.
fn drive_of<'a>(node: &Node, cluster: &'a ClusterInfo) -> Option<&'a Drive> {
    node_of(node, cluster)?.drives.first()
}

/// A node as the cluster calls it: by the host of its endpoint, by its address, or by the name of its instance.
fn node_of<'a>(node: &Node, cluster: &'a ClusterInfo) -> Option<&'a NodeInfo> {
    let ip = node.address.ip().to_string();
    let own = [node.endpoint.host.as_str(), ip.as_str(), node.name.as_str()];
    cluster.nodes.iter().find(|known| {
        let host = known.endpoint.split(':').next().unwrap_or_default();
        let first = host.split('.').next().unwrap_or_default();
        own.contains(&host) || first == node.name
    })
}
