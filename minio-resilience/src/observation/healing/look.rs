//! One look: which of the versions that must be there are whole, as a dry run of a heal says. What the dry run does not
//! list is not whole, and what it lists and nobody wrote is told.

use std::collections::{BTreeMap, BTreeSet};

use veza_probe::clock::At;

use veza_probe::minio::ObjectHealth;

/// How many are named where they are many.
const NAMED: usize = 5;

/// A key and a version of it; the version is empty where the bucket keeps none.
pub type KeyVersion = (String, String);

/// A version as the admin API names it: without versions S3 may say `null`.
pub fn version(id: Option<&str>) -> String {
    id.filter(|id| *id != "null").unwrap_or_default().to_owned()
}

/// How many versions are in which state, by drive; those that are ok are left out.
pub type ByDrive = BTreeMap<String, BTreeMap<String, usize>>;

/// What one dry run said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When it was asked for.
    pub asked: At,
    /// When all of it was there.
    pub answered: At,
    /// How many versions there must be.
    pub expected: usize,
    /// How many of them every drive has all of.
    pub whole: usize,
    /// What is lacking, by drive.
    pub drives: ByDrive,
    /// The versions that lack something, with the drives and what these have.
    pub lacking: BTreeMap<KeyVersion, Vec<(String, String)>>,
    /// Versions that must be there and were not listed.
    pub unlisted: Vec<KeyVersion>,
    /// Versions that were listed and that nobody here wrote, with what MinIO says of them.
    pub unexpected: Vec<(KeyVersion, String)>,
}

impl Look {
    /// A look that has found nothing yet.
    pub fn blank((asked, answered): (At, At), expected: usize) -> Look {
        Look {
            asked,
            answered,
            expected,
            whole: 0,
            drives: ByDrive::new(),
            lacking: BTreeMap::new(),
            unlisted: Vec::new(),
            unexpected: Vec::new(),
        }
    }

    /// What a dry run says of what must be there on this many drives.
    pub fn of(
        when: (At, At),
        expected: &BTreeSet<KeyVersion>,
        drives: usize,
        items: &[ObjectHealth],
    ) -> Look {
        let mut look = Look::blank(when, expected.len());
        let mut listed = BTreeSet::new();
        for item in items {
            let name = (item.object.clone(), version(Some(&item.version)));
            if !expected.contains(&name) {
                look.unexpected.push((name, item.detail.clone()));
                continue;
            }
            // A second result for the same version does not count twice.
            if !listed.insert(name.clone()) {
                continue;
            }
            if item.is_whole(drives) && item.detail.is_empty() {
                look.whole += 1;
                continue;
            }
            let mut lacks = Vec::new();
            for (drive, state) in item.lacking() {
                let of_drive = look.drives.entry(drive.clone()).or_default();
                *of_drive.entry(state.told().to_owned()).or_default() += 1;
                lacks.push((drive.clone(), state.told().to_owned()));
            }
            look.lacking.insert(name, lacks);
        }
        look.unlisted = expected.difference(&listed).cloned().collect();
        look
    }

    /// Whether all that must be there is whole, and nothing else is there. Nothing at all is not whole.
    pub fn is_whole(&self) -> bool {
        self.expected > 0 && self.whole == self.expected && self.unexpected.is_empty()
    }

    /// Whether a drive is in this state for any version.
    pub fn has(&self, state: &str) -> bool {
        self.drives
            .values()
            .any(|states| states.contains_key(state))
    }

    /// What is not as it must be, for people.
    pub fn told(&self, of: usize) -> String {
        let mut words = vec![format!("{} of {of} versions whole", self.whole)];
        if !self.drives.is_empty() {
            words.push(format!("lacking on drives: {}", by_drive(&self.drives)));
        }
        let some = |names: Vec<String>| {
            let more = names.len().saturating_sub(NAMED);
            let mut told = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            if more > 0 {
                told = format!("{told} and {more} more");
            }
            told
        };
        let name = |(key, version): &KeyVersion| match version.as_str() {
            "" => key.clone(),
            version => format!("{key} ({version})"),
        };
        if !self.lacking.is_empty() {
            words.push(format!(
                "lacking: {}",
                some(self.lacking.keys().map(name).collect())
            ));
        }
        if !self.unlisted.is_empty() {
            words.push(format!(
                "not listed: {}",
                some(self.unlisted.iter().map(name).collect())
            ));
        }
        if !self.unexpected.is_empty() {
            let names = self
                .unexpected
                .iter()
                .map(|(named, detail)| match detail.as_str() {
                    "" => name(named),
                    detail => format!("{}: {detail}", name(named)),
                });
            words.push(format!(
                "listed and not written by this run: {}",
                some(names.collect())
            ));
        }
        words.join("; ")
    }
}

/// `minio-1: 12 missing; minio-2: 1 corrupt`.
pub fn by_drive(drives: &ByDrive) -> String {
    let told = drives.iter().map(|(drive, states)| {
        let states = states
            .iter()
            .map(|(state, count)| format!("{count} {state}"));
        format!(
            "{}: {}",
            short(drive),
            states.collect::<Vec<_>>().join(", ")
        )
    });
    told.collect::<Vec<_>>().join("; ")
}

/// `minio-1/data` of `http://minio-1.lxd:9000/data`.
pub fn short(drive: &str) -> String {
    let rest = drive.split_once("://").map_or(drive, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.split(['.', ':']).next().unwrap_or(host);
    // An address has dots, too.
    let host = match host.chars().all(|c| c.is_ascii_digit()) {
        true => rest.split([':', '/']).next().unwrap_or(host),
        false => host,
    };
    match path {
        "" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veza_probe::minio::DriveState;

    fn name(key: &str) -> KeyVersion {
        (key.to_owned(), "v".to_owned())
    }

    fn item(key: &str, states: &[DriveState]) -> ObjectHealth {
        let drives = states.iter().zip(1..);
        let drives =
            drives.map(|(state, n)| (format!("http://minio-{n}.lxd:9000/data"), state.clone()));
        ObjectHealth {
            object: key.to_owned(),
            version: "v".to_owned(),
            drives: drives.collect(),
            detail: String::new(),
        }
    }

    use DriveState::{Corrupt, Missing, Ok};

    fn looked(items: &[ObjectHealth]) -> Look {
        let expected = [name("a"), name("b")].into();
        Look::of((At(0), At(1)), &expected, 2, items)
    }

    #[test]
    fn whole_is_every_version_on_every_drive() {
        let good = item("a", &[Ok, Ok]);
        let look = looked(&[good.clone(), item("b", &[Ok, Ok])]);
        assert!(look.is_whole() && look.whole == 2, "{look:?}");
        let look = looked(&[good.clone(), item("b", &[Ok, Missing])]);
        assert!(!look.is_whole() && look.whole == 1, "{look:?}");
        assert_eq!(by_drive(&look.drives), "minio-2/data: 1 missing");
        let told = look.told(2);
        assert!(told.contains("lacking: b (v)"), "{told}");
        // Bytes that are wrong are no less than none.
        let look = looked(&[good.clone(), item("b", &[Corrupt, Ok])]);
        assert_eq!(by_drive(&look.drives), "minio-1/data: 1 corrupt");
        // A drive that nothing was said of has nothing.
        assert!(!looked(&[good.clone(), item("b", &[Ok])]).is_whole());
        let mut odd = item("b", &[Ok, Ok]);
        odd.detail = "quorum loss".to_owned();
        assert!(!looked(&[good, odd]).is_whole());
    }

    #[test]
    fn what_was_not_listed_is_not_whole() {
        let good = item("a", &[Ok, Ok]);
        let look = looked(std::slice::from_ref(&good));
        assert!(!look.is_whole());
        assert_eq!(look.unlisted, [name("b")]);
        assert!(looked(&[]).told(2).contains("not listed: a (v), b (v)"));
        let look = looked(&[good.clone(), good]);
        assert_eq!(look.whole, 1, "listed twice is there once");
        let nothing = Look::of((At(0), At(1)), &BTreeSet::new(), 2, &[]);
        assert!(!nothing.is_whole(), "nothing to heal proves nothing");
    }

    #[test]
    fn what_nobody_wrote_is_told() {
        let all = [
            item("a", &[Ok, Ok]),
            item("b", &[Ok, Ok]),
            item("c", &[Ok, Ok]),
        ];
        let look = looked(&all);
        assert!(!look.is_whole());
        assert!(look.told(2).contains("not written by this run: c (v)"));
    }

    #[test]
    fn drives_are_told_in_short() {
        assert_eq!(short("http://minio-1.lxd:9000/data"), "minio-1/data");
        assert_eq!(short("http://198.18.0.7:9000/data"), "198.18.0.7/data");
        assert_eq!(short("/data/disk1"), "/data/disk1");
        assert_eq!(version(Some("null")), "");
        assert_eq!(version(None), "");
    }
}
