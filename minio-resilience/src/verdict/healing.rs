//! The gates of the acts that prove healing.

use veza_probe::clock::At;
use veza_probe::verdict::{Gate, Measured};

use crate::cli::course::Act;
use crate::observation::healing::acts::{Kept, Played};
use crate::observation::healing::written::Meanwhile;

/// Nothing lacked anything where something was to be healed.
pub const NOTHING_TO_HEAL: &str = "nothing-to-heal";

/// What such an act saw, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Healing {
    /// Which act it was; none where it proves nothing about healing.
    pub act: Option<Act>,
    /// How many versions there must be.
    pub expected: usize,
    /// How many of them lacked something at the first look after the return; none when nobody looked.
    pub lacking_at_first: Option<usize>,
    /// How many lack something in the end; none when nobody looked.
    pub lacking: Option<usize>,
    /// From the return, or from the first heal that was asked for, until all were whole, in seconds.
    pub healed_s: Option<Measured>,
    /// How it came about, for people.
    pub how: String,
    /// How many changes were written while a node was away.
    pub written: usize,
    /// Changes that three of four drives did not take; none when none were tried.
    pub unwritten: Option<usize>,
    /// Drives that came back empty or as others, and nobody here had done that; none when that was not looked at.
    pub replaced: Option<usize>,
    /// Versions that somebody else wrote among those of the run.
    pub foreign: Option<String>,
    /// Whether the drive was emptied that was to be.
    pub emptied: Option<bool>,
    /// The flipped bytes.
    pub rot: Option<Rotten>,
    /// The proof's versions.
    pub kept: Option<Counted>,
    /// What stood in the way.
    pub trouble: Option<String>,
}

/// Flipped bytes, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotten {
    /// How many shards were to be flipped.
    pub asked: usize,
    /// How many were.
    pub flipped: usize,
    /// How many of them a deep look did not find.
    pub missed: usize,
    /// How many it found beside them.
    pub beside: usize,
    /// How many readings failed meanwhile.
    pub failed: usize,
    /// How many shards have not their bytes in the end; none when that was not compared.
    pub left: Option<usize>,
}

/// The proof's versions, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Not listed.
    pub lost: usize,
    /// Listed, and must not be.
    pub back: usize,
    /// With other bytes than were written, or not to be read.
    pub wrong: usize,
}

impl Healing {
    /// Takes over what was seen in an act.
    pub fn of(act: Act, played: &Played) -> Healing {
        let record = played.record.as_ref();
        let rot = played.rot.as_ref();
        let record = record.or_else(|| rot.map(|rot| &rot.record));
        let last = record.and_then(|record| record.looks.last());
        // MinIO says of what is only left over why it can't heal it; of what somebody wrote it says nothing.
        let foreign =
            last.and_then(|look| look.unexpected.iter().find(|(_, detail)| detail.is_empty()));
        let trouble = played.troubles.first().cloned();
        let rot_trouble = rot.and_then(|rot| rot.trouble.clone());
        Healing {
            act: matches!(
                act,
                Act::Degraded | Act::WipeDrive | Act::Bitrot | Act::Proof
            )
            .then_some(act),
            expected: record.map_or(0, |record| record.expected),
            lacking_at_first: record.and_then(|record| record.lacking_at_first()),
            lacking: last.and(record).map(|record| match record.is_whole() {
                true => 0,
                false => record.lacking_now().max(1),
            }),
            healed_s: record.and_then(|record| record.redundancy()),
            how: how(played),
            written: played
                .meanwhile
                .as_ref()
                .map_or(0, |all| all.new + all.overwritten + all.deleted),
            unwritten: played
                .meanwhile
                .as_ref()
                .map(|meanwhile| meanwhile.failed.len()),
            replaced: record
                .filter(|record| record.online.is_some())
                .map(|record| record.replaced.len()),
            foreign: foreign.map(|((key, version), _)| format!("{key} ({version})")),
            emptied: (act == Act::WipeDrive)
                .then_some(played.emptied.is_some_and(|files| files > 0)),
            rot: rot.map(|rot| Rotten {
                asked: rot.asked,
                flipped: rot.flipped.len(),
                missed: rot.missed(),
                beside: rot.beside(),
                failed: rot.failed.len(),
                left: rot.compared.then_some(rot.left.len()),
            }),
            kept: played.kept.as_ref().map(counted),
            trouble: trouble.or(rot_trouble),
        }
    }

    /// The gates of the act.
    pub fn gates(&self, heal_target_s: f64) -> Vec<Gate> {
        let mut gates = Vec::new();
        let none = |id: &str, title: &str, unit: &str, count: Option<usize>| {
            let count = count.map(|count| Measured::exact(count as f64));
            Gate::at_most(id, title, 0.0, unit, count)
        };
        let (versions, shards) = ("versions", "shards");
        match self.act {
            Some(act @ (Act::Degraded | Act::WipeDrive)) => {
                if act == Act::Degraded {
                    let title = "changes that were refused although write quorum was there";
                    gates.push(none("unwritten", title, "changes", self.unwritten));
                }
                let title = "versions that a drive lacks something of in the end";
                gates.push(none("not-whole", title, versions, self.lacking));
                let title =
                    "time until every version was whole, from the return or the first asked heal";
                gates.push(Gate::at_most(
                    "healed",
                    title,
                    heal_target_s,
                    "s",
                    self.healed_s,
                ));
                let title =
                    "drives that came back empty or as others, and nobody here had done that";
                gates.push(none("replaced", title, "drives", self.replaced));
            }
            Some(Act::Bitrot) => {
                let rot = self.rot.filter(|rot| rot.left.is_some());
                let of = |count: fn(&Rotten) -> usize| rot.as_ref().map(count);
                let title = "flipped shards that a deep look did not find";
                gates.push(none("missed", title, shards, of(|rot| rot.missed)));
                let title = "shards that it called bad and nobody had flipped";
                gates.push(none("beside", title, shards, of(|rot| rot.beside)));
                let title = "reads that failed while bytes were flipped";
                gates.push(none("failed-reads", title, "reads", of(|rot| rot.failed)));
                let title = "shards that have not the bytes in the end that they had before";
                gates.push(none(
                    "unmended",
                    title,
                    shards,
                    rot.and_then(|rot| rot.left),
                ));
                let title = "versions that a drive lacks something of in the end";
                gates.push(none("not-whole", title, versions, self.lacking));
            }
            Some(Act::Proof) => {
                let of = |count: fn(&Counted) -> usize| self.kept.as_ref().map(count);
                let title = "versions that are not listed any more";
                gates.push(none("lost-versions", title, versions, of(|kept| kept.lost)));
                let title = "versions that are listed again after they were removed";
                gates.push(none("back-versions", title, versions, of(|kept| kept.back)));
                let title = "older versions that could not be read as they were written";
                gates.push(none("old-versions", title, versions, of(|kept| kept.wrong)));
            }
            Some(Act::Lose) | None => {}
        }
        gates
    }

    /// Why the act proves nothing, if it doesn't: a heal that had nothing to heal is no heal.
    pub fn says_nothing(&self) -> Option<(&'static str, String)> {
        if let Some(foreign) = &self.foreign {
            let words = format!("somebody else wrote below the prefix of this run: {foreign}");
            return Some(("changed-by-others", words));
        }
        let act = self.act?;
        if self.emptied == Some(false) {
            let words = self.trouble.as_deref().unwrap_or("it was not tried");
            return Some((
                "nothing-emptied",
                format!("the drive was not emptied: {words}"),
            ));
        }
        // A drive that was emptied had nothing: what it has was healed, however soon.
        if act == Act::Degraded && self.lacking_at_first == Some(0) {
            let words = format!(
                "none of {} versions lacked anything when it was first looked: there was nothing to heal, so nothing \
                 is known about healing",
                self.expected
            );
            return Some((NOTHING_TO_HEAL, words));
        }
        if act == Act::Bitrot {
            let Some(rot) = self.rot else {
                let words = self.trouble.as_deref().unwrap_or("it was not tried");
                return Some(("nothing-flipped", format!("no byte was flipped: {words}")));
            };
            if rot.flipped != rot.asked || rot.flipped == 0 {
                let words = self
                    .trouble
                    .as_deref()
                    .unwrap_or("the drive does not show it");
                let Rotten { asked, flipped, .. } = rot;
                return Some((
                    "nothing-flipped",
                    format!("{flipped} of {asked} shards were flipped: {words}"),
                ));
            }
        }
        match &self.trouble {
            Some(words) => Some(("healing-unseen", words.clone())),
            None => None,
        }
    }
}

fn counted(kept: &Kept) -> Counted {
    Counted {
        lost: kept.lost.len(),
        back: kept.back.len(),
        wrong: kept.wrong.len() + kept.unread.len(),
    }
}

/// What is said when everything held.
fn how(played: &Played) -> String {
    let mut words = Vec::new();
    words.extend(played.meanwhile.as_ref().map(Meanwhile::told));
    if let Some(record) = &played.record {
        let lacking = record.lacking_at_first().unwrap_or(0);
        let (of, asks) = (record.expected, record.asks.len());
        let by = match record.healed_alone() {
            true => "healed by itself".to_owned(),
            false => format!("whole after {asks} asked heals"),
        };
        words.push(format!("{lacking} of {of} versions lacked something, {by}"));
    }
    if let Some(rot) = &played.rot {
        words.extend(rot.told(At(0)).into_iter().next());
    }
    words.extend(played.kept.as_ref().map(Kept::told));
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use veza_probe::verdict::{Outcome, worst};

    use super::*;

    fn degraded() -> Healing {
        Healing {
            act: Some(Act::Degraded),
            expected: 100,
            lacking_at_first: Some(40),
            lacking: Some(0),
            healed_s: Some(Measured {
                lower: 4.0,
                upper: Some(5.0),
            }),
            unwritten: Some(0),
            replaced: Some(0),
            ..Healing::default()
        }
    }

    fn rotten() -> Healing {
        Healing {
            act: Some(Act::Bitrot),
            expected: 100,
            lacking_at_first: Some(0),
            lacking: Some(0),
            rot: Some(Rotten {
                asked: 3,
                flipped: 3,
                left: Some(0),
                ..Rotten::default()
            }),
            ..Healing::default()
        }
    }

    fn proof() -> Healing {
        Healing {
            act: Some(Act::Proof),
            kept: Some(Counted::default()),
            ..Healing::default()
        }
    }

    /// The gates that did not hold.
    fn not_held(healing: &Healing) -> Vec<(String, Outcome)> {
        let gates = healing.gates(10.0);
        let bad = gates
            .into_iter()
            .filter(|gate| gate.outcome != Outcome::Held);
        bad.map(|gate| (gate.id, gate.outcome)).collect()
    }

    fn with(base: Healing, change: impl FnOnce(&mut Healing)) -> Vec<(String, Outcome)> {
        let mut healing = base;
        change(&mut healing);
        not_held(&healing)
    }

    fn missed(id: &str) -> Vec<(String, Outcome)> {
        vec![(id.to_owned(), Outcome::Missed)]
    }

    #[test]
    fn whole_is_every_version_and_no_less() {
        assert_eq!(not_held(&degraded()), []);
        assert_eq!(
            with(degraded(), |h| h.lacking = Some(1)),
            missed("not-whole")
        );
        let unknown = with(degraded(), |h| h.lacking = None);
        assert_eq!(unknown, [("not-whole".to_owned(), Outcome::Unclear)]);
        assert_eq!(
            with(degraded(), |h| h.unwritten = Some(1)),
            missed("unwritten")
        );
        assert_eq!(
            with(degraded(), |h| h.replaced = Some(1)),
            missed("replaced")
        );
        let wiped = || Healing {
            act: Some(Act::WipeDrive),
            unwritten: None,
            ..degraded()
        };
        assert_eq!(not_held(&wiped()), []);
        assert_eq!(with(wiped(), |h| h.lacking = Some(1)), missed("not-whole"));
    }

    #[test]
    fn healed_at_below_and_above_its_limit() {
        let took = |lower: f64, upper: Option<f64>| {
            with(degraded(), |h| h.healed_s = Some(Measured { lower, upper }))
        };
        assert_eq!(took(8.0, Some(9.9)), []);
        assert_eq!(took(9.0, Some(10.0)), []);
        assert_eq!(took(10.1, Some(11.0)), missed("healed"));
        assert_eq!(
            took(9.9, Some(10.1)),
            [("healed".to_owned(), Outcome::Unclear)]
        );
        assert_eq!(took(10.1, None), missed("healed"));
    }

    #[test]
    fn every_flipped_shard_and_no_other() {
        assert_eq!(not_held(&rotten()), []);
        let rot = |change: fn(&mut Rotten)| with(rotten(), |h| change(h.rot.as_mut().unwrap()));
        assert_eq!(rot(|r| r.missed = 1), missed("missed"));
        assert_eq!(rot(|r| r.beside = 1), missed("beside"));
        assert_eq!(rot(|r| r.failed = 1), missed("failed-reads"));
        assert_eq!(rot(|r| r.left = Some(1)), missed("unmended"));
        assert_eq!(
            rot(|r| r.left = None).len(),
            4,
            "what was not compared is not known"
        );
        assert_eq!(with(rotten(), |h| h.lacking = Some(2)), missed("not-whole"));
    }

    #[test]
    fn no_version_is_lost_and_none_is_back() {
        assert_eq!(not_held(&proof()), []);
        let kept = |change: fn(&mut Counted)| with(proof(), |h| change(h.kept.as_mut().unwrap()));
        assert_eq!(kept(|k| k.lost = 1), missed("lost-versions"));
        assert_eq!(kept(|k| k.back = 1), missed("back-versions"));
        assert_eq!(kept(|k| k.wrong = 1), missed("old-versions"));
        assert_eq!(worst(&with_none().gates(10.0)), Outcome::Unclear);
    }

    fn with_none() -> Healing {
        Healing {
            kept: None,
            ..proof()
        }
    }

    #[test]
    fn what_had_nothing_to_heal_proves_nothing() {
        let nothing = |healing: Healing| healing.says_nothing().map(|(id, _)| id);
        for good in [degraded(), rotten(), proof(), Healing::default()] {
            assert_eq!(nothing(good), None);
        }
        let vacuous = Healing {
            lacking_at_first: Some(0),
            ..degraded()
        };
        assert_eq!(nothing(vacuous), Some(NOTHING_TO_HEAL));
        let foreign = Healing {
            foreign: Some("p/x".to_owned()),
            ..degraded()
        };
        assert_eq!(nothing(foreign), Some("changed-by-others"));
        let soon = Healing {
            act: Some(Act::WipeDrive),
            emptied: Some(true),
            lacking_at_first: Some(0),
            ..degraded()
        };
        assert_eq!(nothing(soon), None);
        let kept = Healing {
            act: Some(Act::WipeDrive),
            emptied: Some(false),
            ..degraded()
        };
        assert_eq!(nothing(kept), Some("nothing-emptied"));
        assert_eq!(
            nothing(Healing {
                rot: None,
                ..rotten()
            }),
            Some("nothing-flipped")
        );
        let few = Rotten {
            asked: 3,
            flipped: 2,
            left: Some(0),
            ..Rotten::default()
        };
        assert_eq!(
            nothing(Healing {
                rot: Some(few),
                ..rotten()
            }),
            Some("nothing-flipped")
        );
        let trouble = Healing {
            trouble: Some("no".to_owned()),
            ..degraded()
        };
        assert_eq!(nothing(trouble), Some("healing-unseen"));
    }
}
