//! Judges what was seen. Pure: no Incus, no clock, no I/O; every gate is tested at, below and above
//! its limit.

use veza_probe::clock::At;
use veza_probe::drill::SoFar;
use veza_probe::fault::{Fault, Kind};
use veza_probe::ledger::Ledger;
use veza_probe::outage::Interval;
use veza_probe::tenure::{self, Tenure};
use veza_probe::verdict::{Experiment, Gate, Judgement, Measured};

use crate::cli::Args;
use crate::observation::rivals::Asker;
use crate::observation::{Observation, phases};

/// The promises of a run.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// The longest that a client may be unable to write, in seconds.
    pub rto_s: f64,
    /// The longest until the formation is whole after the heal, in seconds.
    pub redundancy_s: f64,
    /// How many acknowledged rows may be missing at the end.
    pub lost_writes: u64,
}

/// What the run saw, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What it came to as an experiment.
    pub experiment: Experiment,
    /// From the heal until the formation was whole, in seconds.
    pub redundancy_s: Option<Measured>,
    /// Whether systemd was left to start the unit again, and then whether the monitor failed over all
    /// the same.
    pub restart: Option<bool>,
    /// Whether the client only read (`--read-only`): nothing is known of writes then, and nothing is
    /// judged.
    pub read_only: bool,
    /// How many acknowledged rows are not there at the end; none when that is not known.
    pub lost: Option<u64>,
    /// How many rows were refused and are there, or are there twice.
    pub phantoms: Option<u64>,
    /// How many writes one node acknowledged while another one did, too; none when the old primary
    /// could not be asked.
    pub two_primaries: Option<u64>,
}

impl Seen {
    /// Takes over what the client and the monitor saw.
    fn observed(&mut self, observation: &Observation, old_primary: i64, healed: Option<At>) {
        let promoted = phases::promotes(&observation.record, old_primary);
        self.restart = self.restart.map(|_| promoted);
        self.redundancy_s = healed.and_then(|healed| redundancy(observation, healed));
        let ledger = observation.ledger.as_ref();
        // Where nothing was acknowledged, nothing can be lost.
        let proven = ledger.filter(|ledger| ledger.proves_something());
        self.lost = proven.map(Ledger::lost_count);
        self.phantoms = proven.map(|l| l.phantom_count().saturating_add(l.duplicate_count()));
    }

    /// Takes over who took writes when. The old primary must have been asked since the fault: while
    /// it was cut off, where that was the fault, as that is when it could have gone on by itself.
    fn asked(&mut self, rivals: &[Asker], old_primary: i64, fault: &Fault, healed: Option<At>) {
        let cut = fault.plan.kind == Kind::Partition;
        let until = healed.filter(|_| cut).unwrap_or(At(i64::MAX));
        let old = rivals.iter().find(|asker| asker.node == old_primary);
        self.two_primaries = old.and_then(|old| {
            let since = (fault.called, until);
            tenure::writes_at_once(&tenures(rivals), &old.tenure, since)
        });
    }
}

/// What a run was promised by its arguments.
pub fn promises(args: &Args) -> Promises {
    Promises {
        rto_s: args.rto_target.as_secs_f64(),
        redundancy_s: args.redundancy_target.as_secs_f64(),
        lost_writes: args.max_lost_writes,
    }
}

/// What a run saw, as far as it came.
pub fn seen(args: &Args, so_far: &SoFar<'_, Args>) -> Seen {
    let client = so_far.observation.map(|observation| &observation.client);
    let mut seen = Seen {
        experiment: so_far.experiment(args, client),
        read_only: args.read_only,
        ..Seen::default()
    };
    if let Some(fault) = so_far.fault {
        seen.restart = matches!(fault.plan.kind, Kind::KillRestart(_)).then_some(false);
        if let Some(observation) = so_far.observation {
            let primary = so_far.found.baseline.primary().node.id;
            let began = so_far.healing_began();
            seen.observed(observation, primary, began);
            seen.asked(&observation.rivals, primary, fault, began);
        }
    }
    seen
}

/// Who took writes when, of every node.
pub fn tenures(rivals: &[Asker]) -> Vec<Tenure> {
    rivals.iter().map(|asker| asker.tenure.clone()).collect()
}

/// From the heal until the formation was whole; none when the monitor was not seen since.
fn redundancy(observation: &Observation, healed: At) -> Option<Measured> {
    let (missing, whole) = observation.record.whole_again(healed);
    let lower_us = missing.map_or(0, |look| look.asked.us_since(healed));
    let upper_us = whole.map(|look| look.answered.us_since(healed));
    let span = Interval::new(lower_us, upper_us);
    (missing.is_some() || whole.is_some()).then(|| span.into())
}

const RUNBOOK: &str = "see docs/runbooks/pg-failover-check.md";

/// The gates that only a client that writes can judge: their words and what they promise.
pub const WRITE_GATES: [(&str, &str); 3] = [
    (
        "lost-writes",
        "acknowledged writes that are not there at the end",
    ),
    (
        "phantom-writes",
        "refused writes that are there, or writes that are there twice",
    ),
    (
        "two-primaries",
        "writes that one node took while another one did, too",
    ),
];

/// The gates of a run.
pub fn gates(seen: &Seen, promises: &Promises) -> Vec<Gate> {
    let experiment = &seen.experiment;
    if experiment.control_run {
        return vec![experiment.no_outage()];
    }
    let rto = "time in which a client could not write";
    let redundancy = "time until the formation was whole after the heal";
    let limit_s = promises.redundancy_s;
    let mut gates = vec![
        Gate::at_most("rto", rto, promises.rto_s, "s", experiment.outage_s),
        Gate::at_most("redundancy", redundancy, limit_s, "s", seen.redundancy_s),
    ];
    if !seen.read_only {
        let counts = [seen.lost, seen.phantoms, seen.two_primaries];
        let limits = [promises.lost_writes, 0, 0];
        for (((id, title), count), limit) in WRITE_GATES.iter().zip(counts).zip(limits) {
            let count = count.map(|count| Measured::exact(count as f64));
            gates.push(Gate::at_most(id, title, limit as f64, "writes", count));
        }
    }
    gates
}

/// The verdict over what was seen.
pub fn judge(seen: &Seen, gates: &[Gate]) -> Judgement {
    seen.experiment.judge(gates, || held(seen), RUNBOOK)
}

fn held(seen: &Seen) -> String {
    let told =
        |m: Option<Measured>| m.map_or_else(|| "an unknown time".to_owned(), |m| m.told("s"));
    let lost = match seen.lost {
        Some(0) => "; no acknowledged write was lost".to_owned(),
        Some(lost) => format!("; {lost} acknowledged writes were lost, as allowed"),
        None => String::new(),
    };
    let how = match seen.restart {
        None => "was broken",
        Some(false) => "was killed and restarted by systemd, without a failover",
        Some(true) => "was killed and restarted by systemd; the monitor failed over all the same",
    };
    format!(
        "a client could not write for {} after {} {how}; the formation was whole again {} after the \
         heal{lost}",
        told(seen.experiment.outage_s),
        seen.experiment.target,
        told(seen.redundancy_s)
    )
}

#[cfg(test)]
mod tests {
    use veza_probe::verdict::Verdict;

    use super::*;

    const PROMISES: Promises = Promises {
        rto_s: 60.0,
        redundancy_s: 120.0,
        lost_writes: 0,
    };

    fn between(lower: f64, upper: f64) -> Option<Measured> {
        Some(Measured {
            lower,
            upper: Some(upper),
        })
    }

    fn good() -> Seen {
        Seen {
            experiment: Experiment {
                target: "pgaf-primary".into(),
                evidence: true,
                outage_s: between(9.5, 9.6),
                service_back: true,
                ..Experiment::default()
            },
            redundancy_s: between(7.0, 7.3),
            lost: Some(0),
            phantoms: Some(0),
            two_primaries: Some(0),
            ..Seen::default()
        }
    }

    fn judged(seen: &Seen) -> (Verdict, String) {
        let judgement = judge(seen, &gates(seen, &PROMISES));
        (judgement.verdict, judgement.reason_id)
    }

    fn with(change: impl FnOnce(&mut Seen)) -> (Verdict, String) {
        let mut seen = good();
        change(&mut seen);
        judged(&seen)
    }

    #[test]
    fn rto_at_below_and_above_its_limit() {
        assert_eq!(judged(&good()), (Verdict::Pass, "all-gates-held".into()));
        assert_eq!(
            with(|s| s.experiment.outage_s = between(59.9, 60.0)).0,
            Verdict::Pass
        );
        assert_eq!(
            with(|s| s.experiment.outage_s = between(60.1, 60.2)),
            (Verdict::Fail, "rto-missed".into())
        );
        assert_eq!(
            with(|s| s.experiment.outage_s = between(59.9, 60.1)).0,
            Verdict::Inconclusive
        );
        let open = |lower| Some(Measured { lower, upper: None });
        assert_eq!(
            with(|s| s.experiment.outage_s = open(61.0)).0,
            Verdict::Fail
        );
        assert_eq!(
            with(|s| s.experiment.outage_s = open(20.0)).0,
            Verdict::Inconclusive
        );
    }

    #[test]
    fn redundancy_at_below_and_above_its_limit() {
        assert_eq!(
            with(|s| s.redundancy_s = between(119.0, 120.0)).0,
            Verdict::Pass
        );
        assert_eq!(
            with(|s| s.redundancy_s = Some(Measured {
                lower: 120.2,
                upper: None
            })),
            (Verdict::Fail, "redundancy-missed".into())
        );
        assert_eq!(
            with(|s| s.redundancy_s = between(119.9, 120.1)).0,
            Verdict::Inconclusive
        );
        assert_eq!(with(|s| s.redundancy_s = None).0, Verdict::Inconclusive);
        let both = with(|s| {
            s.experiment.outage_s = between(70.0, 71.0);
            s.redundancy_s = Some(Measured {
                lower: 120.2,
                upper: None,
            });
        });
        assert_eq!(both, (Verdict::Fail, "gates-missed".into()));
    }

    #[test]
    fn lost_phantom_and_rival_writes_at_and_above_their_limits() {
        for (change, reason_id) in [
            (
                (|s, n| s.lost = n) as fn(&mut Seen, Option<u64>),
                "lost-writes-missed",
            ),
            (|s, n| s.phantoms = n, "phantom-writes-missed"),
            (|s, n| s.two_primaries = n, "two-primaries-missed"),
        ] {
            assert_eq!(with(|s| change(s, Some(0))).0, Verdict::Pass);
            assert_eq!(
                with(|s| change(s, Some(1))),
                (Verdict::Fail, reason_id.into())
            );
            // Not known is never held.
            assert_eq!(with(|s| change(s, None)).0, Verdict::Inconclusive);
        }
        let seen = Seen {
            lost: Some(3),
            ..good()
        };
        let three = Promises {
            lost_writes: 3,
            ..PROMISES
        };
        let allowed = judge(&seen, &gates(&seen, &three));
        assert_eq!(allowed.verdict, Verdict::Pass);
        assert!(
            allowed
                .reason
                .contains("3 acknowledged writes were lost, as allowed")
        );
        let two = Promises {
            lost_writes: 2,
            ..PROMISES
        };
        assert_eq!(judge(&seen, &gates(&seen, &two)).verdict, Verdict::Fail);
    }

    #[test]
    fn a_restart_is_not_told_as_a_failover() {
        let reason = |restart| {
            let seen = Seen { restart, ..good() };
            judge(&seen, &gates(&seen, &PROMISES)).reason
        };
        assert!(!reason(None).contains("restarted"));
        assert!(reason(Some(false)).contains("without a failover"));
        assert!(reason(Some(true)).contains("failed over all the same"));
    }

    #[test]
    fn a_client_that_only_reads_is_not_judged_on_writes() {
        let read_only = with(|s| {
            s.read_only = true;
            (s.lost, s.phantoms, s.two_primaries) = (None, None, None);
        });
        assert_eq!(read_only.0, Verdict::Pass);
    }

    #[test]
    fn what_proves_nothing_is_never_a_pass() {
        assert_eq!(
            with(|s| s.experiment.evidence = false),
            (Verdict::Inconclusive, "no-evidence".into())
        );
        assert_eq!(
            with(|s| s.experiment.outage_s = None),
            (Verdict::Inconclusive, "no-outage-seen".into())
        );
        assert_eq!(
            with(|s| s.experiment.blind = Some("late".into())),
            (Verdict::Inconclusive, "observer-blind".into())
        );
        let seen = Seen::default();
        assert_ne!(
            judge(&seen, &gates(&seen, &PROMISES)).verdict,
            Verdict::Pass
        );
        assert_ne!(judge(&good(), &[]).verdict, Verdict::Pass);
        // Without evidence not even a missed gate is a failure of the system.
        let missed = with(|s| {
            s.experiment.evidence = false;
            s.experiment.outage_s = between(70.0, 71.0);
        });
        assert_eq!(missed.0, Verdict::Inconclusive);
    }

    #[test]
    fn a_control_run_must_show_no_outage() {
        let control = |outage_s| {
            let experiment = Experiment {
                control_run: true,
                outage_s,
                ..Experiment::default()
            };
            let seen = Seen {
                experiment,
                ..Seen::default()
            };
            judged(&seen)
        };
        assert_eq!(control(None).0, Verdict::Pass);
        assert_eq!(
            control(between(0.1, 0.2)),
            (Verdict::Fail, "no-outage-missed".into())
        );
        assert_eq!(control(between(0.0, 0.05)).0, Verdict::Inconclusive);
    }
}
