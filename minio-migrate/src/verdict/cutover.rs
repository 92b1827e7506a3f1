//! GO or NO-GO, from what was seen. Pure.

use std::collections::BTreeMap;

use veza_probe::minio;
use veza_probe::verdict::{Gate, Judgement, Measured, Outcome, Verdict};

use crate::cli::cutting::ALWAYS;
use crate::observation::findings::{Kind, Seen};
use crate::observation::fitness::Fitness;
use crate::observation::uploads::Uploads;

/// Whether nobody writes any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// So many writers are refused, each with its own login.
    Proven(usize),
    /// Nobody was asked to be frozen.
    NotAsked,
    /// Somebody may still write.
    No(String),
}

/// Writes that the source serves although their writers are frozen: they were let in before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnderWay {
    /// There are none any more.
    Done,
    /// So many, in words.
    Seen(u64, String),
    /// That can't be told.
    Unknown(String),
    /// Nobody was frozen.
    NotAsked,
}

impl UnderWay {
    /// What the nodes said.
    pub fn of(calls: &[minio::UnderWay]) -> UnderWay {
        let words = calls.iter().map(|seen| {
            let minio::UnderWay { node, call, count } = seen;
            format!("{count} {call} at {node}")
        });
        match calls.iter().map(|seen| seen.count).sum() {
            0 => UnderWay::Done,
            count => UnderWay::Seen(count, words.collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Everything that GO rests on. What is none was not seen, and is no GO.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Keys that the last copy left, and what it copied.
    pub left: Option<u64>,
    /// The last comparison of both stores.
    pub seen: Option<Seen>,
    /// Versions that were never read again from the target.
    pub unverified: Option<u64>,
    /// Whether nobody writes.
    pub frozen: Frozen,
    /// Writes that were let in before the freeze.
    pub under_way: UnderWay,
    /// What became of uploads in parts that are open on the source, as far as its nodes know.
    pub uploads: Option<Uploads>,
    /// The target.
    pub fitness: Option<Fitness>,
    /// How long the writers were frozen until here, in seconds; and how long they may be.
    pub freeze_s: (Option<f64>, f64),
    /// What is lost, by name, and of how many versions.
    pub losses: BTreeMap<String, u64>,
    /// What may be lost.
    pub accepted: Vec<String>,
    /// Whether GO may be given without a proof of the freeze.
    pub unfrozen_accepted: bool,
    /// Whether buckets may be set otherwise, and the target may have more.
    pub ignored: (bool, bool),
}

impl Evidence {
    /// What is lost and was not accepted by name.
    pub fn refused_losses(&self) -> Vec<&str> {
        let names = self.losses.keys().map(String::as_str);
        names
            .filter(|name| !self.accepted.iter().any(|accepted| accepted == name))
            .collect()
    }
}

/// What is lost of so many versions in any case.
pub fn always_lost(versions: u64, other_ids: u64) -> BTreeMap<String, u64> {
    let all = ALWAYS.into_iter().zip([other_ids, versions]);
    all.filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// What is judged, in the order of the report.
pub fn gates(evidence: &Evidence) -> Vec<Gate> {
    let (freeze_s, max_s) = evidence.freeze_s;
    let title = "how long the writers were frozen until everything was known";
    let freeze = Gate::at_most("freeze", title, max_s, "s", freeze_s.map(Measured::exact));
    let mut gates = of_copy(evidence);
    gates.extend(of_ends(evidence));
    gates.push(freeze);
    gates
}

fn none_of(id: &str, title: &str, unit: &str, count: Option<f64>) -> Gate {
    Gate::at_most(id, title, 0.0, unit, count.map(Measured::exact))
}

/// Whether the copy is one.
fn of_copy(evidence: &Evidence) -> Vec<Gate> {
    // A listing that broke off has counted nothing to the end.
    let seen = evidence.seen.as_ref().filter(|seen| seen.broken.is_empty());
    let kind = |id: &str, title: &str, kind| {
        let count = seen.map(|seen| seen.count(kind) as f64);
        none_of(id, title, "findings", count)
    };
    let left = evidence.left.map(|left| left as f64);
    let unverified = evidence.unverified.map(|count| count as f64);
    let never = "versions that were never read again from the target";
    let changed = "objects that changed during the last comparison";
    let mut gates = vec![
        none_of("left", "keys that could not be copied", "keys", left),
        kind(
            "missing",
            "versions of the source that the target has not",
            Kind::Missing,
        ),
        kind(
            "different",
            "versions that the target has otherwise",
            Kind::Different,
        ),
        kind("unread", "versions that could not be read", Kind::Unread),
        kind("changed", changed, Kind::Changed),
        none_of("unverified", never, "versions", unverified),
    ];
    let (buckets, unexpected) = evidence.ignored;
    if !buckets {
        gates.push(kind(
            "buckets",
            "settings of buckets that differ",
            Kind::Bucket,
        ));
    }
    if !unexpected {
        let title = "versions of the target that the source has not";
        gates.push(kind("unexpected", title, Kind::Unexpected));
    }
    gates
}

/// Whether nobody writes to the source, and the target is whole.
fn of_ends(evidence: &Evidence) -> Vec<Gate> {
    let frozen = match &evidence.frozen {
        Frozen::Proven(_) => 0.0,
        Frozen::NotAsked if evidence.unfrozen_accepted => 0.0,
        Frozen::NotAsked | Frozen::No(_) => 1.0,
    };
    let fitness = evidence.fitness.as_ref();
    let fitness = fitness.filter(|fitness| fitness.unknown.is_none());
    let amiss = fitness.map(|fitness| fitness.amiss() as f64);
    let lacking = fitness.map(|fitness| fitness.lacking as f64);
    // Those of frozen writers stay as they are, and were never told to be done; others may still be ended.
    let is_frozen = matches!(evidence.frozen, Frozen::Proven(_));
    let alive = |uploads: &Uploads| {
        if is_frozen {
            uploads.moved.len()
        } else {
            uploads.left.max(uploads.moved.len())
        }
    };
    let uploads = evidence
        .uploads
        .as_ref()
        .map(|uploads| alive(uploads) as f64);
    let refused = Some(evidence.refused_losses().len() as f64);
    let under_way = match &evidence.under_way {
        UnderWay::Done => Some(0.0),
        UnderWay::Seen(count, _) => Some(*count as f64),
        UnderWay::Unknown(_) | UnderWay::NotAsked if evidence.unfrozen_accepted => Some(0.0),
        UnderWay::Unknown(_) | UnderWay::NotAsked => None,
    };
    let served = "writes that the source serves although they were let in before the freeze";
    let drives = "nodes and drives of the target that are not there or not well";
    let open = "uploads in parts that went on at the source, or still may";
    vec![
        none_of(
            "writers",
            "writers who are not proven to be frozen",
            "",
            Some(frozen),
        ),
        none_of("under-way", served, "writes", under_way),
        none_of("uploads", open, "uploads", uploads),
        none_of("drives", drives, "", amiss),
        none_of(
            "not-whole",
            "versions of the target that lack a shard",
            "versions",
            lacking,
        ),
        none_of(
            "losses",
            "kinds of losses that were not accepted by name",
            "",
            refused,
        ),
    ]
}

/// The verdict: GO when every gate held, NO-GO whatever else.
pub fn judge(evidence: &Evidence, gates: &[Gate]) -> Judgement {
    let not_held: Vec<&Gate> = gates
        .iter()
        .filter(|gate| gate.outcome != Outcome::Held)
        .collect();
    if !not_held.is_empty() {
        let words: Vec<String> = not_held.iter().map(|gate| why(evidence, gate)).collect();
        let reason = format!("NO-GO: {}", words.join("; "));
        let next = "see docs/runbooks/minio-migrate.md; the source is in use as before";
        return Judgement::new(Verdict::Fail, "no-go", reason, next);
    }
    let seen = evidence.seen.as_ref();
    let same = seen.map_or(0, |seen| seen.same + seen.verified_before);
    if same + seen.map_or(0, |seen| seen.marks) == 0 {
        let reason = "NO-GO: there was nothing to compare, which proves nothing";
        let next = "look at --bucket, --prefix, --include and --exclude";
        return Judgement::new(Verdict::Fail, "no-go", reason, next);
    }
    let frozen = match &evidence.frozen {
        Frozen::Proven(count) => format!("{count} writers are frozen, each refused with its own login"),
        _ => "NOT FROZEN: nobody was asked to stop writing, and two equal listings show only two moments (--accept-unfrozen)".to_owned(),
    };
    let reason = format!(
        "GO: {same} versions of the source are on the target, read again there and the same; {frozen}"
    );
    let next = "point the writers at the target; the source stays frozen";
    Judgement::new(Verdict::Pass, "go", reason, next)
}

fn why(evidence: &Evidence, gate: &Gate) -> String {
    let unknown = evidence
        .fitness
        .as_ref()
        .and_then(|fitness| fitness.unknown.clone());
    match gate.id.as_str() {
        "writers" => match &evidence.frozen {
            Frozen::No(words) => format!("not frozen: {words}"),
            _ => "not frozen: nobody was named (--writer-access-key)".to_owned(),
        },
        "under-way" => match &evidence.under_way {
            UnderWay::Seen(_, words) => {
                format!("the source still serves what was let in before the freeze: {words}")
            }
            UnderWay::Unknown(words) => {
                format!("whether the source still serves writes can't be told: {words}")
            }
            UnderWay::Done | UnderWay::NotAsked => gate.told(),
        },
        "losses" => format!(
            "not accepted: {} (--accept-loss)",
            evidence.refused_losses().join(", ")
        ),
        "drives" | "not-whole" if unknown.is_some() => format!(
            "the target's state is not known: {}",
            unknown.unwrap_or_default()
        ),
        "uploads"
            if evidence
                .uploads
                .as_ref()
                .is_some_and(|uploads| !uploads.moved.is_empty()) =>
        {
            let moved = evidence.uploads.iter().flat_map(|uploads| &uploads.moved);
            let moved: Vec<&str> = moved.map(String::as_str).collect();
            format!(
                "uploads in parts that went on at the source, or still may (uploads): {}",
                moved.join(", ")
            )
        }
        "not-whole" => {
            let named = evidence
                .fitness
                .as_ref()
                .map(|fitness| fitness.named.join(", "));
            format!("{}: {}", gate.told(), named.unwrap_or_default())
        }
        _ => gate.told(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        Evidence {
            left: Some(0),
            seen: Some(Seen {
                same: 3,
                ..Seen::default()
            }),
            unverified: Some(0),
            frozen: Frozen::Proven(1),
            under_way: UnderWay::Done,
            uploads: Some(Uploads::default()),
            fitness: Some(Fitness {
                nodes: (4, 4),
                drives: (4, 4),
                set: (4, 2),
                looked: 3,
                ..Fitness::default()
            }),
            freeze_s: (Some(5.0), 60.0),
            losses: always_lost(3, 3),
            accepted: ALWAYS.map(str::to_owned).to_vec(),
            unfrozen_accepted: false,
            ignored: (false, false),
        }
    }

    fn uploads(left: usize, moved: &[&str]) -> Option<Uploads> {
        let moved = moved.iter().map(|&name| name.to_owned()).collect();
        Some(Uploads { left, moved })
    }

    fn slow() -> UnderWay {
        UnderWay::of(&[minio::UnderWay {
            node: "a".to_owned(),
            call: "PutObject".to_owned(),
            count: 2,
        }])
    }

    fn came(change: impl FnOnce(&mut Evidence)) -> (Verdict, String) {
        let mut evidence = good();
        change(&mut evidence);
        let judgement = judge(&evidence, &gates(&evidence));
        (judgement.verdict, judgement.reason)
    }

    #[test]
    fn go_needs_everything() {
        assert_eq!(came(|_| {}).0, Verdict::Pass);
        let seen = |kind| {
            let mut seen = Seen::default();
            seen.counts.insert(kind, 1);
            Some(seen)
        };
        // A frozen writer's upload stays.
        assert_eq!(came(|e| e.uploads = uploads(1, &[])).0, Verdict::Pass);
        type Change = Box<dyn FnOnce(&mut Evidence)>;
        let changes: Vec<(&str, Change)> = vec![
            ("could not be copied", Box::new(|e| e.left = Some(1))),
            ("could not be copied", Box::new(|e| e.left = None)),
            ("has not", Box::new(move |e| e.seen = seen(Kind::Missing))),
            (
                "otherwise",
                Box::new(move |e| e.seen = seen(Kind::Different)),
            ),
            (
                "could not be read",
                Box::new(move |e| e.seen = seen(Kind::Unread)),
            ),
            ("changed", Box::new(move |e| e.seen = seen(Kind::Changed))),
            ("settings", Box::new(move |e| e.seen = seen(Kind::Bucket))),
            (
                "source has not",
                Box::new(move |e| e.seen = seen(Kind::Unexpected)),
            ),
            ("has not", Box::new(|e| e.seen = None)),
            ("never read again", Box::new(|e| e.unverified = Some(1))),
            ("never read again", Box::new(|e| e.unverified = None)),
            (
                "not frozen: root",
                Box::new(|e| e.frozen = Frozen::No("root".to_owned())),
            ),
            (
                "nobody was named",
                Box::new(|e| e.frozen = Frozen::NotAsked),
            ),
            (
                "went on at the source, or still may (uploads): b/k",
                Box::new(|e| e.uploads = uploads(0, &["b/k"])),
            ),
            (
                "uploads",
                Box::new(|e| {
                    (e.unfrozen_accepted, e.frozen) = (true, Frozen::NotAsked);
                    e.uploads = uploads(1, &[]);
                }),
            ),
            ("uploads", Box::new(|e| e.uploads = None)),
            (
                "not accepted: last-modified",
                Box::new(|e| e.accepted = vec!["version-ids".to_owned()]),
            ),
            ("frozen until", Box::new(|e| e.freeze_s.0 = Some(60.1))),
            ("frozen until", Box::new(|e| e.freeze_s.0 = None)),
        ];
        for (word, change) in changes {
            let (verdict, reason) = came(change);
            assert_eq!(verdict, Verdict::Fail, "{word}: {reason}");
            assert!(
                reason.starts_with("NO-GO: ") && reason.contains(word),
                "{word}: {reason}"
            );
        }
    }

    #[test]
    fn nothing_at_all_is_no_go() {
        let (verdict, reason) = came(|evidence| evidence.seen = Some(Seen::default()));
        let told = reason.contains("nothing to compare");
        assert!(verdict == Verdict::Fail && told, "{reason}");
        let marks = Seen {
            marks: 1,
            ..Seen::default()
        };
        assert_eq!(
            came(|evidence| evidence.seen = Some(marks)).0,
            Verdict::Pass
        );
    }

    #[test]
    fn a_write_that_is_still_served_is_no_go() {
        let (verdict, reason) = came(|evidence| evidence.under_way = slow());
        let told = reason.contains("let in before the freeze: 2 PutObject at a");
        assert!(verdict == Verdict::Fail && told, "{reason}");
        let unknown = |accepted: bool| {
            came(|evidence| {
                evidence.under_way = UnderWay::Unknown("too old".to_owned());
                evidence.unfrozen_accepted = accepted;
            })
        };
        let (verdict, reason) = unknown(false);
        assert!(
            verdict == Verdict::Fail && reason.contains("too old"),
            "{reason}"
        );
        assert_eq!(unknown(true).0, Verdict::Pass);
        // Accepted is what can't be told, not what is seen.
        let seen = came(|evidence| {
            (evidence.under_way, evidence.unfrozen_accepted) = (slow(), true);
        });
        assert_eq!(seen.0, Verdict::Fail);
    }

    #[test]
    fn a_target_that_is_not_whole_is_no_go() {
        let fit = |change: fn(&mut Fitness)| {
            came(|evidence| {
                if let Some(fitness) = &mut evidence.fitness {
                    change(fitness);
                }
            })
        };
        assert_eq!(fit(|_| {}).0, Verdict::Pass);
        assert_eq!(fit(|fitness| fitness.nodes.1 = 3).0, Verdict::Fail);
        assert_eq!(fit(|fitness| fitness.drives.1 = 3).0, Verdict::Fail);
        assert_eq!(
            fit(|fitness| fitness.ailing.push("healing".to_owned())).0,
            Verdict::Fail
        );
        assert_eq!(
            fit(|fitness| fitness.unknown = Some("x".to_owned())).0,
            Verdict::Fail
        );
        let (verdict, reason) = fit(|fitness| {
            fitness.lacking = 1;
            fitness.named.push("b/k".to_owned());
        });
        assert!(
            verdict == Verdict::Fail && reason.contains("b/k"),
            "{reason}"
        );
        assert_eq!(came(|evidence| evidence.fitness = None).0, Verdict::Fail);
    }

    #[test]
    fn without_a_freeze_go_says_so() {
        let (verdict, reason) = came(|evidence| {
            evidence.frozen = Frozen::NotAsked;
            evidence.unfrozen_accepted = true;
        });
        assert!(
            verdict == Verdict::Pass && reason.contains("NOT FROZEN"),
            "{reason}"
        );
        // A freeze that was asked for and did not hold is no matter of acceptance.
        let (verdict, _) = came(|evidence| {
            evidence.frozen = Frozen::No("x".to_owned());
            evidence.unfrozen_accepted = true;
        });
        assert_eq!(verdict, Verdict::Fail);
    }

    #[test]
    fn at_the_limit_of_the_freeze_it_is_go_and_a_listing_that_broke_off_is_none() {
        assert_eq!(
            came(|evidence| evidence.freeze_s.0 = Some(60.0)).0,
            Verdict::Pass
        );
        let (verdict, _) = came(|evidence| {
            if let Some(seen) = &mut evidence.seen {
                seen.broken.push("b".to_owned());
            }
        });
        assert_eq!(verdict, Verdict::Fail);
    }

    #[test]
    fn what_may_be_ignored_is_no_gate() {
        let (verdict, _) = came(|evidence| {
            evidence.ignored = (true, true);
            if let Some(seen) = &mut evidence.seen {
                seen.counts.insert(Kind::Bucket, 1);
                seen.counts.insert(Kind::Unexpected, 1);
            }
        });
        assert_eq!(verdict, Verdict::Pass);
    }
}
