//! Flipped bytes on one drive: that reads stay right, that a deep look finds those shards and no others, and that a deep
//! heal gives them their bytes back.

use std::collections::BTreeSet;
use std::time::Duration;

use veza_probe::clock::At;

use crate::cli::course::Object;
use crate::fault::bitrot::{Shard, Shelf, changed, chosen};
use crate::observation::objects::{Reading, read_all};
use crate::observation::stage::Stage;
use crate::targets::store::LIMIT;

use super::Record;
use super::healer::Healer;
use super::look::{KeyVersion, Look};

/// How often is looked deep before anything is read: one look has been seen to miss one of four shards that the next one finds, and readings
/// mend what they meet, so that no later look can find it.
const LOOKS: usize = 3;

/// All that was seen of flipped bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rot {
    /// How many shards were to be flipped.
    pub asked: usize,
    /// The keys of the shards that were, as their hashes on the drive show.
    pub flipped: BTreeSet<String>,
    /// The keys that a deep look called corrupt on that drive, before a heal was asked for.
    pub found: BTreeSet<String>,
    /// How many of them the first one did.
    pub found_at_once: usize,
    /// What it called anything else than whole: key, drive and state.
    pub others: Vec<String>,
    /// How many of the flipped ones reading alone had mended, before anything was asked for.
    pub mended_by_reading: usize,
    /// Readings that failed while bytes were flipped.
    pub failed: Vec<Reading>,
    /// How many readings there were.
    pub readings: usize,
    /// Keys of shards on the drive that have not the bytes in the end that they had before.
    pub left: BTreeSet<String>,
    /// Whether the shards were looked at in the end.
    pub compared: bool,
    /// The healing.
    pub record: Record,
    /// What stood in the way.
    pub trouble: Option<String>,
}

impl Rot {
    /// How many flipped shards no deep look found. The first one has been seen to miss one of four that the second found.
    pub fn missed(&self) -> usize {
        self.flipped.difference(&self.found).count()
    }

    /// How many it found that nobody had flipped.
    pub fn beside(&self) -> usize {
        self.found.difference(&self.flipped).count() + self.others.len()
    }

    /// For people.
    pub fn told(&self, since: At) -> Vec<String> {
        let mut lines = vec![format!(
            "{} shards were flipped on one drive; a deep look called {} corrupt, looks after it {} more, {} of them not flipped; \
             {} readings meanwhile, {} failed; {} were mended by reading alone; {} shards differ from before in the end",
            self.flipped.len(),
            self.found_at_once,
            self.found.len() - self.found_at_once.min(self.found.len()),
            self.beside(),
            self.readings,
            self.failed.len(),
            self.mended_by_reading,
            self.left.len()
        )];
        lines.extend(
            self.others
                .iter()
                .map(|other| format!("also found: {other}")),
        );
        lines.extend(self.record.told(since));
        lines.extend(self.trouble.iter().cloned());
        lines
    }

    /// Takes over what a deep look said of the drive whose shards were flipped.
    pub fn saw(&mut self, look: &Look, drive: &str) {
        for ((key, _), lacks) in &look.lacking {
            for (on, state) in lacks {
                if on == drive && state == "corrupt" {
                    self.found.insert(key.clone());
                    continue;
                }
                let other = format!("{key} on {on}: {state}");
                if !self.others.contains(&other) {
                    self.others.push(other);
                }
            }
        }
    }
}

/// Flips bytes in the shards of `count` objects on one drive (`endpoint` is what the cluster calls it), and watches what
/// comes of it. `healer` looks deep.
pub async fn rot(
    stage: &Stage,
    healer: &Healer,
    (shelf, endpoint): (&Shelf, &str),
    (count, objects): (usize, &[Object]),
    deadline: At,
    say: &dyn Fn(String),
) -> Rot {
    let mut rot = Rot {
        asked: count,
        ..Rot::default()
    };
    let went = flip_and_mend(
        stage,
        healer,
        (shelf, endpoint),
        objects,
        (&mut rot, deadline, say),
    );
    if let Err(words) = went.await {
        rot.trouble = Some(words);
    }
    rot
}

async fn flip_and_mend(
    stage: &Stage,
    healer: &Healer,
    (shelf, endpoint): (&Shelf, &str),
    objects: &[Object],
    (rot, deadline, say): (&mut Rot, At, &dyn Fn(String)),
) -> Result<(), String> {
    let before = shelf.shards(&stage.incus).await?;
    let readable = |shard: &&Shard| {
        objects
            .iter()
            .any(|o| o.key == shard.key && o.sha256.is_some())
    };
    let candidates: Vec<Shard> = before.iter().filter(readable).cloned().collect();
    let shards = chosen(&candidates, rot.asked)?;
    shelf.flip(&stage.incus, &shards).await?;
    rot.flipped = changed(&before, &shelf.shards(&stage.incus).await?);
    say(format!(
        "{} shards on {} were flipped",
        rot.flipped.len(),
        shelf.instance
    ));
    for number in 0..LOOKS {
        let mut looked = Record::default();
        healer.look(&mut looked).await;
        let Some(look) = looked.looks.first() else {
            return Err(looked.trouble.join("; "));
        };
        rot.saw(look, endpoint);
        if number == 0 {
            rot.found_at_once = rot.found.len();
        }
        say(format!("a deep look found {} corrupt", rot.found.len()));
        if rot.missed() == 0 {
            break;
        }
    }
    let readings = read_all(&stage.through_all(), objects, LIMIT).await;
    rot.readings = readings.len();
    rot.failed = stage.log.take(readings);
    let after_reading = changed(&before, &shelf.shards(&stage.incus).await?);
    rot.mended_by_reading = rot.flipped.difference(&after_reading).count();
    healer
        .until_whole((Duration::ZERO, deadline), &mut rot.record, say)
        .await;
    for look in rot.record.looks.iter().take(rot.record.alone) {
        let on_drive = |(_, lacks): &(&KeyVersion, &Vec<(String, String)>)| {
            lacks.contains(&(endpoint.to_owned(), "corrupt".to_owned()))
        };
        let later = look.lacking.iter().filter(on_drive);
        rot.found.extend(later.map(|((key, _), _)| key.clone()));
    }
    rot.left = changed(&before, &shelf.shards(&stage.incus).await?);
    rot.compared = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn found_are_those_that_were_flipped_and_no_others() {
        let mut rot = Rot {
            flipped: keys(&["a", "b"]),
            ..Rot::default()
        };
        let mut look = Look::blank((At(0), At(1)), 4);
        let lacks = |drive: &str, state: &str| vec![(drive.to_owned(), state.to_owned())];
        let name = |key: &str| (key.to_owned(), "v".to_owned());
        look.lacking.insert(name("a"), lacks("d1", "corrupt"));
        rot.saw(&look, "d1");
        assert_eq!((rot.missed(), rot.beside()), (1, 0));
        look.lacking.insert(name("b"), lacks("d1", "corrupt"));
        rot.saw(&look, "d1");
        assert_eq!((rot.missed(), rot.beside()), (0, 0));
        look.lacking.clear();
        look.lacking.insert(name("c"), lacks("d1", "corrupt"));
        look.lacking.insert(name("d"), lacks("d2", "missing"));
        rot.saw(&look, "d1");
        assert_eq!((rot.missed(), rot.beside()), (0, 2));
        assert!(rot.told(At(0)).join("\n").contains("d on d2: missing"));
    }
}
