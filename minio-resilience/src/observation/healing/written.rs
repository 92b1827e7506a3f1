//! What is written while a node is away: new objects of every size, other bytes for some that were there, deletions,
//! and uploads in parts. Three of four drives take them; the fourth learns of them by healing alone.

use std::collections::BTreeSet;

use crate::cli::course::Object;
use crate::observation::objects::{PART_BYTES, Through, Wanted, wanted, write};
use crate::observation::stage::Stage;
use crate::targets::store::LIMIT;

use super::look::{KeyVersion, version};

/// The folders below a run's prefix that hold the working set; whatever else is there (probes' own objects) is no part
/// of what must be whole.
pub const FOLDERS: [&str; 3] = ["read/", "change/", "new/"];

/// How often a write is tried: the first ones after a node went away may time out.
const TRIES: usize = 3;

/// Which edition of an object's bytes is written here; the one that was there before is 0.
const EDITION: u32 = 1;

/// What one change is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An object that was not there.
    New(Wanted),
    /// Other bytes, of another size, for one that was there.
    Overwrite(String, u64),
    /// One that was there goes.
    Delete(String),
}

/// All that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meanwhile {
    /// How many objects are new.
    pub new: usize,
    /// How many of those were uploaded in parts.
    pub in_parts: usize,
    /// How many have other bytes now.
    pub overwritten: usize,
    /// How many were deleted.
    pub deleted: usize,
    /// How many tries failed before one succeeded.
    pub repeated: usize,
    /// What could not be written at all.
    pub failed: Vec<String>,
}

impl Meanwhile {
    /// For people.
    pub fn told(&self) -> String {
        let Meanwhile {
            new,
            in_parts,
            overwritten,
            deleted,
            repeated,
            failed,
        } = self;
        let mut words = format!(
            "{new} objects were written ({in_parts} of them in parts), {overwritten} overwritten and {deleted} deleted"
        );
        if *repeated > 0 {
            words = format!("{words}; {repeated} tries failed first");
        }
        if let Some(first) = failed.first() {
            words = format!(
                "{words}; {} could not be written, first {first}",
                failed.len()
            );
        }
        words
    }
}

/// What is changed: the objects of the folder `change/` are overwritten and deleted by turns, and new ones come.
pub fn changes(objects: &[Object], prefix: &str) -> Vec<Change> {
    let folder = format!("{prefix}change/");
    let there = objects
        .iter()
        .filter(|o| o.key.starts_with(&folder) && o.sha256.is_some());
    let mut changes: Vec<Change> = there
        .enumerate()
        .map(|(number, object)| match number % 2 {
            // From one way of storing to another, where the size is near a limit.
            0 => Change::Overwrite(object.key.clone(), object.size_bytes + 1),
            _ => Change::Delete(object.key.clone()),
        })
        .collect();
    let count = (objects.len() / 4).max(1);
    for (number, new) in wanted(count).into_iter().enumerate() {
        let name = format!("new/{number:05}");
        changes.push(Change::New(Wanted { name, ..new }));
    }
    changes.push(Change::New(Wanted {
        name: "new/parts".to_owned(),
        size_bytes: PART_BYTES as u64 + 5,
    }));
    changes
}

/// Writes all of it through the nodes that stay up, and returns every object as it must be now. What could not be
/// written stands in the second.
pub async fn write_meanwhile(stage: &Stage, objects: &[Object]) -> (Vec<Object>, Meanwhile) {
    let mut now = objects.to_vec();
    let mut done = Meanwhile::default();
    let through = stage.through_living();
    let nodes = through.iter().cycle();
    for (change, node) in changes(objects, &stage.prefix).into_iter().zip(nodes) {
        match change {
            Change::New(wanted) => {
                let key = format!("{}{}", stage.prefix, wanted.name);
                let Some(object) = put(node, &key, wanted.size_bytes, &mut done).await else {
                    continue;
                };
                done.new += 1;
                done.in_parts += usize::from(object.parts > 1);
                now.push(object);
            }
            Change::Overwrite(key, size_bytes) => {
                let Some(object) = put(node, &key, size_bytes, &mut done).await else {
                    continue;
                };
                done.overwritten += 1;
                now.retain(|old| old.key != key);
                now.push(object);
            }
            Change::Delete(key) => {
                if delete(node, &key, &mut done).await {
                    done.deleted += 1;
                    let gone = now.iter_mut().filter(|old| old.key == key);
                    gone.for_each(|old| old.sha256 = None);
                }
            }
        }
    }
    now.sort_by(|one, other| one.key.cmp(&other.key));
    (now, done)
}

async fn put(
    (name, store): &Through,
    key: &str,
    size_bytes: u64,
    done: &mut Meanwhile,
) -> Option<Object> {
    for left in (0..TRIES).rev() {
        match write(store, key, EDITION, size_bytes, LIMIT).await {
            Ok(object) => return Some(object),
            Err(_) if left > 0 => done.repeated += 1,
            Err(failure) => done.failed.push(format!("{key} through {name}: {failure}")),
        }
    }
    None
}

async fn delete((name, store): &Through, key: &str, done: &mut Meanwhile) -> bool {
    for left in (0..TRIES).rev() {
        match store.delete(key, LIMIT).await {
            Ok(()) => return true,
            Err(_) if left > 0 => done.repeated += 1,
            Err(failure) => done
                .failed
                .push(format!("deleting {key} through {name}: {failure}")),
        }
    }
    false
}

/// Every version of the working set that is there, marks of deletion among them, as a node that took all writes lists
/// them. Each version that was written must be among them.
///
/// # Errors
/// What stood in the way, or is not there.
pub async fn versions(
    through: &Through,
    prefix: &str,
    objects: &[Object],
) -> Result<BTreeSet<KeyVersion>, String> {
    let (name, store) = through;
    let listed = store.versions(prefix, LIMIT).await;
    let listed = listed.map_err(|failure| format!("listing {prefix} through {name}: {failure}"))?;
    let of_set = listed
        .into_iter()
        .filter(|version| is_of_set(&version.key, prefix));
    let listed: BTreeSet<KeyVersion> = of_set.map(|v| (v.key, version(v.id.as_deref()))).collect();
    let there = objects.iter().filter(|object| object.sha256.is_some());
    let unlisted = there
        .map(|object| (object.key.clone(), version(object.version.as_deref())))
        .find(|written| !listed.contains(written));
    match unlisted {
        Some((key, version)) => Err(format!(
            "{name} does not list {key} ({version}), which was written"
        )),
        None if listed.is_empty() => Err(format!("{name} lists nothing below {prefix}")),
        None => Ok(listed),
    }
}

/// Whether a key is of the working set.
pub fn is_of_set(key: &str, prefix: &str) -> bool {
    let name = key.strip_prefix(prefix);
    name.is_some_and(|name| FOLDERS.iter().any(|folder| name.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size_bytes: u64) -> Object {
        Object {
            key: key.to_owned(),
            size_bytes,
            sha256: Some("aa".to_owned()),
            etag: "e".to_owned(),
            version: Some("v".to_owned()),
            parts: 1,
        }
    }

    #[test]
    fn there_is_something_of_each_kind_in_the_smallest_set() {
        let set: Vec<Object> = wanted(10)
            .iter()
            .map(|w| object(&format!("p/{}", w.name), w.size_bytes))
            .collect();
        let changes = changes(&set, "p/");
        let count = |is: fn(&Change) -> bool| changes.iter().filter(|change| is(change)).count();
        assert_eq!(count(|c| matches!(c, Change::Overwrite(..))), 1);
        assert_eq!(count(|c| matches!(c, Change::Delete(_))), 1);
        assert!(
            count(|c| matches!(c, Change::New(new) if new.size_bytes > PART_BYTES as u64)) == 1
        );
        assert!(count(|c| matches!(c, Change::New(_))) > 1);
        // What readers read all the time is left alone.
        let read = |c: &Change| match c {
            Change::Overwrite(key, _) | Change::Delete(key) => key.starts_with("p/read/"),
            Change::New(new) => new.name.starts_with("read/"),
        };
        assert!(!changes.iter().any(read));
    }

    #[test]
    fn the_working_set_is_its_folders() {
        assert!(is_of_set("p/new/1", "p/") && is_of_set("p/read/1", "p/"));
        assert!(!is_of_set("p/back/minio-1", "p/") && !is_of_set("q/new/1", "p/"));
    }

    #[test]
    fn what_was_written_is_told() {
        let told = Meanwhile {
            new: 5,
            in_parts: 1,
            overwritten: 2,
            deleted: 3,
            repeated: 1,
            failed: vec!["x: no".to_owned()],
        };
        let words = told.told();
        assert!(
            words.contains("1 tries failed first") && words.contains("first x: no"),
            "{words}"
        );
    }
}
