//! Judges what was seen. Pure: no Incus, no clock, no I/O; every gate is tested at, below and above its limit.

use veza_probe::clock::At;
use veza_probe::drill::SoFar;
use veza_probe::fault::{Fault, Kind};
use veza_probe::outage::Interval;
use veza_probe::tenure::{self, Tenure};
use veza_probe::verdict::{Experiment, Gate, Judgement, Measured};

use crate::cli::{Args, Target};
use crate::observation::calm::{self, Stretch};
use crate::observation::phases::{self, About};
use crate::observation::{Observation, writer::Ledgers};

/// The promises of a run.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// The longest that a client may be unable to write, in seconds.
    pub rto_s: f64,
    /// The longest until the group is whole after the heal, in seconds.
    pub redundancy_s: f64,
    /// How many writes that every replica had confirmed may be missing at the end.
    pub lost_writes: u64,
}

/// What the run saw, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What was broken.
    pub target: Target,
    /// What it came to as an experiment.
    pub experiment: Experiment,
    /// What happened while sentinels were held.
    pub calm: Calm,
    /// From the heal until the group was whole, in seconds.
    pub redundancy_s: Option<Measured>,
    /// Whether systemd was left to start the unit again, and then whether the sentinels failed over all the
    /// same.
    pub restart: Option<bool>,
    /// How many writes that every replica had confirmed are not there at the end; none when that is not known.
    pub lost: Option<u64>,
    /// How many writes that were acknowledged, confirmed or not, are not there.
    pub lost_plain: Option<u64>,
    /// How many writes were refused and are there.
    pub phantoms: Option<u64>,
    /// How many writes one server acknowledged while another one did, too; none when the old master could not
    /// be asked.
    pub two_primaries: Option<u64>,
}

/// What happened while sentinels were held, where they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm {
    /// How many probes failed that must not; none when there was none to fail.
    pub failed: Option<u64>,
    /// How many failovers were begun, or without a quorum, servers promoted; none when that is not known.
    pub failovers: Option<u64>,
    /// How many writes succeeded while the master was held, too; none when none was tried.
    pub writes: Option<u64>,
    /// For how long only sentinels were held, where the master was held afterwards, in seconds.
    pub first_s: f64,
    /// For how long everything was held, in seconds.
    pub last_s: f64,
}

impl Calm {
    /// What was seen while one sentinel was held, and since: `held` is how long it was, and how long it had
    /// to be.
    fn of_sentinel(so_far: &SoFar<'_, Args>, master: &str, healed: Option<At>) -> Option<Calm> {
        let (fault, observation) = (so_far.fault?, so_far.observation?);
        let baseline = &so_far.found.baseline;
        let held = stretch(fault.evidence.as_ref()?.at, healed);
        let said = &observation.heard.said;
        let failovers = calm::failovers(said, &baseline.living(), master, held);
        let since = (fault.called, At(i64::MAX));
        Some(Calm {
            failed: calm::failed(observation.client.steady(), since),
            failovers: failovers.filter(|_| long_enough(held, baseline.course.last_s)),
            writes: None,
            first_s: 0.0,
            last_s: seconds(held),
        })
    }

    /// What was seen while the quorum was gone, and then the master, too.
    fn of_quorum(so_far: &SoFar<'_, Args>, master: &str, healed: Option<At>) -> Option<Calm> {
        let (fault, observation) = (so_far.fault?, so_far.observation?);
        let baseline = &so_far.found.baseline;
        let (first, later) = (fault.evidence.as_ref()?, fault.later.first()?);
        let (held, alone) = (
            stretch(later.evidence.as_ref()?.at, healed),
            (first.at, later.called),
        );
        let old = baseline.master().map(|master| master.name.as_str())?;
        let heard = (observation.heard.said.as_slice(), baseline.living());
        let heard = (heard.0, heard.1.as_slice(), master);
        let promotions = calm::promotions(heard, (&observation.rivals, old), held);
        let samples = observation.client.steady();
        let failed = calm::failed(samples, (fault.called, later.called));
        let course = baseline.course;
        Some(Calm {
            failed: failed.filter(|_| long_enough(alone, course.first_s)),
            failovers: promotions.filter(|_| long_enough(held, course.last_s)),
            writes: calm::succeeded(samples, held),
            first_s: seconds(alone),
            last_s: seconds(held),
        })
    }
}

fn stretch(from: At, healed: Option<At>) -> Stretch {
    (from, healed.unwrap_or(At(i64::MAX)))
}

fn seconds((from, to): Stretch) -> f64 {
    match to {
        At(i64::MAX) => 0.0,
        to => to.us_since(from) as f64 / 1e6,
    }
}

/// Of a stretch that is shorter than it had to be nothing can be said.
fn long_enough(held: Stretch, needed_s: f64) -> bool {
    seconds(held) >= needed_s
}

impl Seen {
    /// Takes over what sentinels and servers said.
    fn observed(&mut self, observation: &Observation, about: About) {
        let switched = !phases::switches(&observation.heard.said, about).is_empty();
        self.restart = self.restart.map(|_| switched);
        let healed = about.healed;
        self.redundancy_s = healed.and_then(|healed| redundancy(observation, healed));
        self.wrote(observation.ledgers.as_ref());
    }

    /// Takes over what became of the writes. Where nothing was confirmed, nothing can be lost.
    fn wrote(&mut self, ledgers: Option<&Ledgers>) {
        let proven = ledgers.filter(|ledgers| ledgers.all.proves_something());
        self.lost = proven.map(|ledgers| ledgers.all.lost_count());
        self.lost_plain = proven.map(|ledgers| ledgers.plain.lost_count());
        let phantoms = |ledgers: &Ledgers| ledgers.plain.phantom_count();
        self.phantoms = proven.map(phantoms);
    }

    /// Takes over who took writes when. The old master must have been asked since the fault: while it was cut
    /// off, where that was the fault, as that is when it could have gone on by itself.
    fn asked(&mut self, rivals: &[Tenure], old: &str, fault: &Fault, healed: Option<At>) {
        let cut = fault.plan.kind == Kind::Partition;
        let until = healed.filter(|_| cut).unwrap_or(At(i64::MAX));
        let old = rivals.iter().find(|tenure| tenure.node == old);
        self.two_primaries =
            old.and_then(|old| tenure::writes_at_once(rivals, old, (fault.called, until)));
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
        target: args.target,
        experiment: so_far.experiment(args, client),
        ..Seen::default()
    };
    seen.experiment.unnoticed = args.target == Target::Sentinel;
    if let Some(fault) = so_far.fault {
        seen.restart = matches!(fault.plan.kind, Kind::KillRestart(_)).then_some(false);
        if let Some(observation) = so_far.observation {
            let about = About {
                master: &args.master,
                zero: fault.called,
                healed: so_far.healing_began(),
            };
            seen.observed(observation, about);
            seen.calm = match args.target {
                Target::Master => None,
                Target::Sentinel => Calm::of_sentinel(so_far, &args.master, about.healed),
                Target::Quorum => Calm::of_quorum(so_far, &args.master, about.healed),
            }
            .unwrap_or_default();
            let old = so_far.found.baseline.master().map(|master| &master.name);
            let old = old.map(String::as_str).unwrap_or_default();
            seen.asked(&observation.rivals, old, fault, about.healed);
        }
    }
    seen
}

/// From the heal until the group was whole; none when it was not looked at since.
fn redundancy(observation: &Observation, healed: At) -> Option<Measured> {
    let (missing, whole) = observation.record.whole_again(healed);
    let lower_us = missing.map_or(0, |look| look.asked.us_since(healed));
    let upper_us = whole.map(|look| look.answered.us_since(healed));
    let span = Interval::new(lower_us, upper_us);
    (missing.is_some() || whole.is_some()).then(|| span.into())
}

const RUNBOOK: &str = "see docs/runbooks/redis-sentinel-check.md";

/// The gates of a run.
pub fn gates(seen: &Seen, promises: &Promises) -> Vec<Gate> {
    let experiment = &seen.experiment;
    if experiment.control_run {
        return vec![experiment.no_outage()];
    }
    let redundancy = "time until the group was whole after the heal";
    let limit_s = promises.redundancy_s;
    let writes = |id: &str, title: &str, limit: u64, count: Option<u64>| {
        let count = count.map(|count| Measured::exact(count as f64));
        Gate::at_most(id, title, limit as f64, "writes", count)
    };
    let calm = &seen.calm;
    let none = |id: &str, title: &str, unit: &str, count: Option<u64>| {
        let count = count.map(|count| Measured::exact(count as f64));
        Gate::at_most(id, title, 0.0, unit, count)
    };
    let mut gates = match seen.target {
        Target::Master => {
            let rto = "time in which a client could not write";
            let outage_s = experiment.outage_s;
            vec![Gate::at_most("rto", rto, promises.rto_s, "s", outage_s)]
        }
        Target::Sentinel => {
            let failed = "probes that failed, although only a sentinel was held";
            let begun = "failovers that were begun, although the master was well";
            vec![
                none("no-outage", failed, "probes", calm.failed),
                none("no-failover", begun, "events", calm.failovers),
            ]
        }
        Target::Quorum => {
            let failed = "probes that failed while only sentinels were held";
            let promoted = "promotions without a quorum";
            let taken = "writes that succeeded while the master was held, too";
            vec![
                none("no-outage", failed, "probes", calm.failed),
                none("no-promotion", promoted, "promotions", calm.failovers),
                none("no-writes", taken, "writes", calm.writes),
            ]
        }
    };
    let lost = "writes that every replica had confirmed and that are not there at the end";
    let phantoms = "refused writes that are there";
    let two = "writes that one server took while another one did, too";
    gates.extend([
        Gate::at_most("redundancy", redundancy, limit_s, "s", seen.redundancy_s),
        writes("lost-writes", lost, promises.lost_writes, seen.lost),
        writes("phantom-writes", phantoms, 0, seen.phantoms),
        writes("two-primaries", two, 0, seen.two_primaries),
    ]);
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
        Some(0) => "; no write that every replica had confirmed was lost".to_owned(),
        Some(lost) => {
            format!("; {lost} writes that every replica had confirmed were lost, as allowed")
        }
        None => String::new(),
    };
    let plain = match seen.lost_plain {
        Some(plain) if plain > 0 => {
            format!(", and {plain} that were only acknowledged, of which Sentinel promises nothing")
        }
        _ => String::new(),
    };
    let how = match seen.restart {
        None => "was broken",
        Some(false) => "was killed and restarted by systemd, without a failover",
        Some(true) => "was killed and restarted by systemd; the sentinels failed over all the same",
    };
    let Calm {
        first_s, last_s, ..
    } = seen.calm;
    let came = match seen.target {
        Target::Master => format!(
            "a client could not write for {} after {} {how}",
            told(seen.experiment.outage_s),
            seen.experiment.target
        ),
        Target::Sentinel => format!(
            "the sentinel of {} was held for {last_s:.1} s: no client noticed, and nobody failed over",
            seen.experiment.target
        ),
        Target::Quorum => format!(
            "units of {} were held: clients went on for {first_s:.1} s without a quorum; with the master held, too, \
             nobody was promoted and no write succeeded for {last_s:.1} s",
            seen.experiment.target
        ),
    };
    format!(
        "{came}; the group was whole again {} after the heal{lost}{plain}",
        told(seen.redundancy_s)
    )
}

#[cfg(test)]
mod tests {
    use veza_probe::verdict::Verdict;

    use super::*;

    const PROMISES: Promises = Promises {
        rto_s: 30.0,
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
                target: "redis-1".into(),
                evidence: true,
                outage_s: between(2.5, 2.6),
                service_back: true,
                ..Experiment::default()
            },
            redundancy_s: between(7.0, 7.3),
            lost: Some(0),
            lost_plain: Some(0),
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
            with(|s| s.experiment.outage_s = between(29.9, 30.0)).0,
            Verdict::Pass
        );
        let missed = with(|s| s.experiment.outage_s = between(30.1, 30.2));
        assert_eq!(missed, (Verdict::Fail, "rto-missed".into()));
        let unclear = with(|s| s.experiment.outage_s = between(29.9, 30.1));
        assert_eq!(unclear.0, Verdict::Inconclusive);
        let open = |lower| Some(Measured { lower, upper: None });
        assert_eq!(
            with(|s| s.experiment.outage_s = open(31.0)).0,
            Verdict::Fail
        );
        assert_eq!(
            with(|s| s.experiment.outage_s = open(20.0)).0,
            Verdict::Inconclusive
        );
    }

    fn held(target: Target) -> Seen {
        let mut seen = Seen {
            target,
            calm: Calm {
                failed: Some(0),
                failovers: Some(0),
                writes: Some(0),
                first_s: 3.6,
                last_s: 7.4,
            },
            ..good()
        };
        if target == Target::Sentinel {
            (seen.experiment.outage_s, seen.experiment.unnoticed) = (None, true);
        }
        seen
    }

    #[test]
    fn what_must_not_happen_while_sentinels_are_held_at_and_above_its_limit() {
        type Change = fn(&mut Calm, Option<u64>);
        let failed: Change = |c, n| c.failed = n;
        let failovers: Change = |c, n| c.failovers = n;
        let writes: Change = |c, n| c.writes = n;
        for (target, change, reason_id) in [
            (Target::Sentinel, failed, "no-outage-missed"),
            (Target::Sentinel, failovers, "no-failover-missed"),
            (Target::Quorum, failed, "no-outage-missed"),
            (Target::Quorum, failovers, "no-promotion-missed"),
            (Target::Quorum, writes, "no-writes-missed"),
        ] {
            let with = |count| {
                let mut seen = held(target);
                change(&mut seen.calm, count);
                judged(&seen)
            };
            assert_eq!(with(Some(0)).0, Verdict::Pass);
            assert_eq!(with(Some(1)), (Verdict::Fail, reason_id.into()));
            // Not known is never held.
            assert_eq!(with(None).0, Verdict::Inconclusive);
        }
    }

    #[test]
    fn held_sentinels_are_told_as_what_they_are_and_prove_nothing_unseen() {
        let told = |target| judge(&held(target), &gates(&held(target), &PROMISES)).reason;
        assert!(told(Target::Sentinel).contains("held for 7.4 s: no client noticed"));
        assert!(told(Target::Quorum).contains("clients went on for 3.6 s"));
        assert!(!told(Target::Quorum).contains("could not write"));
        for target in [Target::Sentinel, Target::Quorum] {
            let mut seen = held(target);
            seen.experiment.evidence = false;
            assert_eq!(judged(&seen), (Verdict::Inconclusive, "no-evidence".into()));
            seen = Seen {
                target,
                ..Seen::default()
            };
            assert_ne!(judged(&seen).0, Verdict::Pass);
            let ids: Vec<String> = gates(&seen, &PROMISES).into_iter().map(|g| g.id).collect();
            assert!(!ids.contains(&"rto".to_owned()), "{ids:?}");
        }
        // Without a quorum writes must fail: where none did, the master was not what clients use.
        let mut seen = held(Target::Quorum);
        seen.experiment.outage_s = None;
        assert_eq!(
            judged(&seen),
            (Verdict::Inconclusive, "no-outage-seen".into())
        );
    }

    #[test]
    fn of_a_time_that_was_too_short_nothing_is_said() {
        let held = (At(0), At(7_400_000));
        assert!(long_enough(held, 7.3) && long_enough(held, 7.4));
        assert!(!long_enough(held, 7.5));
        assert!(!long_enough((At(0), At(i64::MAX)), 1.0), "not healed yet");
    }

    #[test]
    fn redundancy_at_below_and_above_its_limit() {
        let held = with(|s| s.redundancy_s = between(119.0, 120.0));
        assert_eq!(held.0, Verdict::Pass);
        let missed = with(|s| s.redundancy_s = between(120.2, 121.0));
        assert_eq!(missed, (Verdict::Fail, "redundancy-missed".into()));
        let unclear = with(|s| s.redundancy_s = between(119.9, 120.1));
        assert_eq!(unclear.0, Verdict::Inconclusive);
        assert_eq!(with(|s| s.redundancy_s = None).0, Verdict::Inconclusive);
    }

    #[test]
    fn lost_phantom_and_rival_writes_at_and_above_their_limits() {
        type Change = fn(&mut Seen, Option<u64>);
        let cases: [(Change, &str); 3] = [
            (|s, n| s.lost = n, "lost-writes-missed"),
            (|s, n| s.phantoms = n, "phantom-writes-missed"),
            (|s, n| s.two_primaries = n, "two-primaries-missed"),
        ];
        for (change, reason_id) in cases {
            assert_eq!(with(|s| change(s, Some(0))).0, Verdict::Pass);
            let missed = with(|s| change(s, Some(1)));
            assert_eq!(missed, (Verdict::Fail, reason_id.into()));
            // Not known is never held.
            assert_eq!(with(|s| change(s, None)).0, Verdict::Inconclusive);
        }
        let seen = Seen {
            lost: Some(3),
            ..good()
        };
        let allow = |lost_writes| Promises {
            lost_writes,
            ..PROMISES
        };
        assert_eq!(
            judge(&seen, &gates(&seen, &allow(3))).verdict,
            Verdict::Pass
        );
        assert_eq!(
            judge(&seen, &gates(&seen, &allow(2))).verdict,
            Verdict::Fail
        );
    }

    #[test]
    fn writes_that_were_only_acknowledged_are_told_and_not_judged() {
        let seen = Seen {
            lost_plain: Some(4),
            ..good()
        };
        let judgement = judge(&seen, &gates(&seen, &PROMISES));
        assert_eq!(judgement.verdict, Verdict::Pass);
        assert!(judgement.reason.contains("4 that were only acknowledged"));
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
    fn what_proves_nothing_is_never_a_pass() {
        let no_evidence = with(|s| s.experiment.evidence = false);
        assert_eq!(no_evidence, (Verdict::Inconclusive, "no-evidence".into()));
        let no_outage = with(|s| s.experiment.outage_s = None);
        assert_eq!(no_outage, (Verdict::Inconclusive, "no-outage-seen".into()));
        assert_ne!(judged(&Seen::default()).0, Verdict::Pass);
        assert_ne!(judge(&good(), &[]).verdict, Verdict::Pass);
    }

    #[test]
    fn a_control_run_must_show_no_outage() {
        let control = |outage_s| {
            let mut seen = Seen::default();
            (seen.experiment.control_run, seen.experiment.outage_s) = (true, outage_s);
            judged(&seen)
        };
        assert_eq!(control(None).0, Verdict::Pass);
        let failed = control(between(0.1, 0.2));
        assert_eq!(failed, (Verdict::Fail, "no-outage-missed".into()));
    }
}
