//! What a copy would have to do: both stores are listed, and nothing is read or written.

use std::cell::RefCell;
use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use veza_probe::minio::ClusterInfo;

use super::{Step, Watch};
use crate::targets::keys;
use crate::targets::s3::Failure;
use crate::targets::walk::Entry;

/// The borders of the sizes that are counted apart, in bytes: what MinIO keeps beside its metadata, one part, what is held while it is sent.
pub const SIZES: [u64; 3] = [128 << 10, 1 << 20, 16 << 20];

/// How many refused keys are named.
const NAMED: usize = 20;

/// What a store has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Keys.
    pub keys: u64,
    /// Versions, without marks of deletion.
    pub versions: u64,
    /// Marks of deletion.
    pub marks: u64,
    /// Bytes of all versions.
    pub bytes: u64,
}

/// A bucket, as both stores list it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// Its name.
    pub bucket: String,
    /// The source.
    pub source: Sums,
    /// The target.
    pub target: Sums,
    /// Keys that both list alike: the same versions and marks, by size and ETag.
    pub alike: u64,
    /// Keys that both have otherwise.
    pub otherwise: u64,
    /// Keys that only the target has.
    pub others: u64,
    /// Versions and marks of keys that the target has not, and their bytes.
    pub to_copy: (u64, u64),
    /// Versions in parts.
    pub in_parts: u64,
    /// Versions up to each of [`SIZES`], and above.
    pub sizes: [u64; 4],
    /// Keys that the target would refuse, and why; the first ones.
    pub refused: BTreeMap<String, &'static str>,
    /// How many there are.
    pub refused_count: u64,
    /// How long both listings took side by side, in seconds.
    pub listing_s: f64,
}

/// What a copy takes on the target's drives, and what there is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Data, parity and metadata of what is to be copied.
    pub needed: u64,
    /// As much as can be written until the fullest drive has none.
    pub free: u64,
}

/// What a version takes on each drive beside its shard: its metadata, a block of the file system.
const BESIDE: u64 = 4 << 10;

impl Room {
    /// Of a cluster and what is to be copied. None of a cluster whose drives do not say how much they have.
    pub fn of(cluster: &ClusterInfo, planned: &[Planned]) -> Option<Room> {
        let drives = *cluster.drives_per_set.first()? as u64;
        let data = drives
            .checked_sub(cluster.parity as u64)
            .filter(|data| *data > 0)?;
        let sum = |of: fn(&Planned) -> u64| planned.iter().map(of).sum::<u64>();
        let bytes = sum(|planned| planned.to_copy.1).saturating_mul(drives) / data;
        let beside = sum(|planned| planned.to_copy.0).saturating_mul(BESIDE * drives);
        let least = cluster
            .drives()
            .map(|(_, drive)| drive.available_bytes)
            .min()?;
        Some(Room {
            needed: bytes + beside,
            free: least * cluster.drives().count() as u64,
        })
    }

    /// Whether a tenth is left over.
    pub fn is_enough(self) -> bool {
        self.needed.saturating_add(self.needed / 10) <= self.free
    }
}

impl Sums {
    fn add(&mut self, entry: &Entry) {
        self.keys += 1;
        self.versions += entry.versions().count() as u64;
        self.marks += (entry.history.len() - entry.versions().count()) as u64;
        self.bytes += bytes(entry);
    }
}

fn bytes(entry: &Entry) -> u64 {
    entry.versions().map(|version| version.size_bytes).sum()
}

impl Watch<'_> {
    /// Lists a bucket on both sides.
    ///
    /// # Errors
    /// [`Failure`] when a listing broke off.
    pub async fn planned(&self, bucket: &str, on_target: bool) -> Result<Planned, Failure> {
        let began = self.clock.at();
        let planned = RefCell::new(Planned {
            bucket: bucket.to_owned(),
            ..Planned::default()
        });
        let ranges = self.ranges(bucket).await?;
        let listed = ranges.iter().map(async |range| {
            let mut pair = self.pair(bucket, on_target, range);
            while let Some(step) = pair.next().await? {
                if self.takes(bucket, step.key()) {
                    planned.borrow_mut().take(&step);
                }
            }
            Ok::<_, Failure>(())
        });
        try_join_all(listed).await?;
        let mut planned = planned.into_inner();
        planned.listing_s = self.clock.at().us_since(began) as f64 / 1e6;
        Ok(planned)
    }
}

impl Planned {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Source(entry) => {
                self.to_copy.0 += entry.history.len() as u64;
                self.to_copy.1 += bytes(entry);
                self.of_source(entry);
            }
            Step::Target(entry) => {
                self.others += 1;
                self.target.add(entry);
            }
            Step::Both(one, other) => {
                self.of_source(one);
                self.target.add(other);
                let same = |entry: &Entry| {
                    let history = entry.history.iter();
                    let told = history
                        .map(|version| (version.is_mark, version.size_bytes, version.etag.clone()));
                    told.collect::<Vec<_>>()
                };
                if same(one) == same(other) {
                    self.alike += 1;
                } else {
                    self.otherwise += 1;
                }
            }
        }
    }

    fn of_source(&mut self, entry: &Entry) {
        self.source.add(entry);
        for version in entry.versions() {
            self.in_parts += u64::from(version.etag.contains('-'));
            let size = SIZES
                .iter()
                .position(|border| version.size_bytes <= *border);
            if let Some(count) = self.sizes.get_mut(size.unwrap_or(SIZES.len())) {
                *count += 1;
            }
        }
        if let Some(why) = keys::refused(&entry.key) {
            self.refused_count += 1;
            if self.refused.len() < NAMED {
                self.refused.insert(entry.key.clone(), why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_for_data_parity_and_metadata_on_the_fullest_drive() {
        use veza_probe::minio::{Drive, NodeInfo};
        let drive = |available_bytes| Drive {
            available_bytes,
            ..Drive::default()
        };
        let cluster = |free: [u64; 2]| ClusterInfo {
            parity: 1,
            drives_per_set: vec![2],
            nodes: vec![NodeInfo {
                drives: free.map(drive).to_vec(),
                ..NodeInfo::default()
            }],
            ..ClusterInfo::default()
        };
        let planned = [Planned {
            to_copy: (10, 1_000_000),
            ..Planned::default()
        }];
        let room = Room::of(&cluster([5_000_000, 1_200_000]), &planned).unwrap();
        assert_eq!((room.needed, room.free), (2_081_920, 2_400_000));
        assert!(room.is_enough());
        assert!(
            !Room::of(&cluster([5_000_000, 1_100_000]), &planned)
                .unwrap()
                .is_enough()
        );
        assert_eq!(Room::of(&ClusterInfo::default(), &planned), None);
    }
    use crate::targets::walk::Version;

    fn entry(key: &str, etags: &[&str]) -> Entry {
        let version = |etag: &&str| Version::of(Some("id".to_owned()), etag, *etag == "M");
        Entry {
            key: key.to_owned(),
            history: etags.iter().map(version).collect(),
        }
    }

    #[test]
    fn what_is_to_be_done_is_counted_by_key() {
        let mut planned = Planned::default();
        planned.take(&Step::Source(entry("a", &["M", "2", "1-3"])));
        planned.take(&Step::Both(entry("b", &["1"]), entry("b", &["1"])));
        planned.take(&Step::Both(entry("c", &["2", "1"]), entry("c", &["1"])));
        planned.take(&Step::Target(entry("d", &["1"])));
        planned.take(&Step::Source(entry("e//f", &["1"])));
        assert_eq!(
            planned.to_copy,
            (4, 3),
            "each version of a test has one byte"
        );
        assert_eq!(
            (planned.alike, planned.otherwise, planned.others),
            (1, 1, 1)
        );
        assert_eq!(
            (
                planned.source.keys,
                planned.source.versions,
                planned.source.marks
            ),
            (4, 6, 1)
        );
        assert_eq!(
            (planned.target.keys, planned.in_parts, planned.sizes),
            (3, 1, [6, 0, 0, 0])
        );
        assert_eq!(planned.refused_count, 1);
        assert!(planned.refused.contains_key("e//f"));
    }
}
