//! Judges what was compared. Pure.

pub mod copying;
pub mod status;
pub mod cutover;

use veza_probe::clock::Signal;
use veza_probe::verdict::{Gate, Judgement, Measured, Verdict, of_gates};

use crate::cli::Depth;
use crate::observation::findings::{Kind, Seen};

const RUNBOOK: &str = "see docs/runbooks/minio-migrate.md";

/// What is promised of two stores.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// Whether the target may have more than the source.
    pub more_allowed: bool,
    /// Whether buckets may be set otherwise.
    pub buckets_ignored: bool,
    /// How much was to be read.
    pub depth: Depth,
}

/// What is judged, in the order of the report.
pub fn gates(seen: &Seen, promises: &Promises) -> Vec<Gate> {
    let gate = |id: &str, title: &str, kind| {
        let count = Some(Measured::exact(seen.count(kind) as f64));
        Gate::at_most(id, title, 0.0, "findings", count)
    };
    let mut gates = vec![
        gate(
            "missing",
            "objects and versions of the source that the target has not",
            Kind::Missing,
        ),
        gate(
            "different",
            "objects and versions that the target has otherwise",
            Kind::Different,
        ),
        gate(
            "unread",
            "objects and versions that could not be read",
            Kind::Unread,
        ),
    ];
    if !promises.more_allowed {
        let title = "objects and versions of the target that the source has not";
        gates.push(gate("unexpected", title, Kind::Unexpected));
    }
    if !promises.buckets_ignored {
        gates.push(gate(
            "buckets",
            "settings of buckets that differ",
            Kind::Bucket,
        ));
    }
    gates
}

/// The verdict. What is wrong is wrong whatever else is not known.
pub fn judge(
    seen: &Seen,
    gates: &[Gate],
    promises: &Promises,
    stopped: Option<Signal>,
) -> Judgement {
    let compared = seen.same + seen.listed;
    if let Some(signal) = stopped {
        let reason = format!("ended by {signal} after {compared} versions");
        return Judgement::new(
            Verdict::Interrupted(signal),
            "interrupted",
            reason,
            "run it again",
        );
    }
    let judgement = of_gates(gates, || held(seen, promises), RUNBOOK);
    if judgement.verdict != Verdict::Pass {
        return judgement;
    }
    let inconclusive = |reason_id: &str, reason: String| {
        Judgement::new(Verdict::Inconclusive, reason_id, reason, "run it again")
    };
    if let Some(words) = seen.broken.first() {
        let reason = format!("not everything was compared: {words}");
        return inconclusive("listing-broken", reason);
    }
    let changed = seen.count(Kind::Changed);
    if changed > 0 {
        let reason = format!("{changed} objects changed while they were compared: somebody writes");
        return inconclusive("changed-meanwhile", reason);
    }
    if compared + seen.marks == 0 {
        return inconclusive(
            "nothing-compared",
            "there was nothing to compare".to_owned(),
        );
    }
    if let Some(words) = &seen.unwritten {
        return inconclusive("findings-unwritten", format!("--findings: {words}"));
    }
    judgement
}

/// What held, in a sentence.
fn held(seen: &Seen, promises: &Promises) -> String {
    let Seen {
        keys,
        same,
        listed,
        marks,
        bytes,
        ..
    } = seen;
    let mib = *bytes as f64 / f64::from(1 << 20);
    let read = format!(
        "{keys} keys: {same} versions have the same bytes (SHA-256 of {mib:.1} MiB on each side), headers, metadata, tags and \
         retention on both; {marks} marks of deletion"
    );
    match promises.depth {
        Depth::Full => read,
        Depth::Sample(percent) => {
            format!(
                "a sample of {percent} % only, {read}; of {listed} other versions the sizes were compared, and nothing else"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISES: Promises = Promises {
        more_allowed: false,
        buckets_ignored: false,
        depth: Depth::Full,
    };

    fn judged(promises: &Promises, change: impl FnOnce(&mut Seen)) -> (Verdict, String) {
        let mut seen = Seen {
            keys: 3,
            same: 4,
            ..Seen::default()
        };
        change(&mut seen);
        let judgement = judge(&seen, &gates(&seen, promises), promises, None);
        (judgement.verdict, judgement.reason_id)
    }

    #[test]
    fn whatever_is_amiss_is_no_pass() {
        assert_eq!(judged(&PROMISES, |_| {}).0, Verdict::Pass);
        for (kind, reason_id) in [
            (Kind::Missing, "missing-missed"),
            (Kind::Different, "different-missed"),
            (Kind::Unexpected, "unexpected-missed"),
            (Kind::Unread, "unread-missed"),
            (Kind::Bucket, "buckets-missed"),
        ] {
            let found = judged(&PROMISES, |seen| {
                seen.counts.insert(kind, 1);
                // A broken listing hides nothing of what was found before.
                seen.broken.push("b".to_owned());
            });
            assert_eq!(found, (Verdict::Fail, reason_id.to_owned()));
        }
    }

    #[test]
    fn what_was_not_compared_proves_nothing() {
        let inconclusive = |reason_id: &str| (Verdict::Inconclusive, reason_id.to_owned());
        assert_eq!(
            judged(&PROMISES, |seen| seen.broken.push("b".to_owned())),
            inconclusive("listing-broken")
        );
        let changed = judged(&PROMISES, |seen| {
            seen.counts.insert(Kind::Changed, 1);
        });
        assert_eq!(changed, inconclusive("changed-meanwhile"));
        assert_eq!(
            judged(&PROMISES, |seen| *seen = Seen::default()),
            inconclusive("nothing-compared")
        );
        assert_eq!(
            judged(&PROMISES, |seen| seen.unwritten = Some("full".to_owned())),
            inconclusive("findings-unwritten")
        );
    }

    #[test]
    fn what_is_not_judged_is_not_missed() {
        let more = Promises {
            more_allowed: true,
            ..PROMISES
        };
        assert_eq!(
            judged(&more, |seen| {
                seen.counts.insert(Kind::Unexpected, 2);
            })
            .0,
            Verdict::Pass
        );
        let ignored = Promises {
            buckets_ignored: true,
            ..PROMISES
        };
        assert_eq!(
            judged(&ignored, |seen| {
                seen.counts.insert(Kind::Bucket, 2);
            })
            .0,
            Verdict::Pass
        );
    }

    #[test]
    fn a_sample_says_that_it_is_one() {
        let sample = Promises {
            depth: Depth::Sample(5.0),
            ..PROMISES
        };
        let seen = Seen {
            keys: 3,
            same: 1,
            listed: 2,
            ..Seen::default()
        };
        let words = judge(&seen, &gates(&seen, &sample), &sample, None).reason;
        assert!(words.starts_with("a sample of 5 % only"), "{words}");
    }
}
