//! Whether a drill says anything at all, before its gates are asked.

use super::{Gate, Judgement, Measured, Verdict, of_gates};

/// What a drill came to as an experiment: something was to be broken, and a client to notice.
#[derive(Clone, Debug, Default)]
pub struct Experiment {
    /// The instances that were to be broken.
    pub target: String,
    /// Whether nothing was to be broken (`--fault none`).
    pub control_run: bool,
    /// Whether clients must not notice the fault: no outage is then no sign that nobody looked.
    pub unnoticed: bool,
    /// Whether the fault was seen by something other than the injector.
    pub evidence: bool,
    /// What the injecting call said when it failed.
    pub trouble: Option<String>,
    /// Why the observer can't be believed.
    pub blind: Option<String>,
    /// The longest that a client could not write, in seconds; none when no probe failed.
    pub outage_s: Option<Measured>,
    /// Whether writes succeeded again and went on doing so.
    pub service_back: bool,
}

impl Experiment {
    /// The gate of a control run.
    pub fn no_outage(&self) -> Gate {
        let seconds = Some(self.outage_s.unwrap_or(Measured::exact(0.0)));
        let title = "nothing was broken, so no probe may fail";
        Gate::at_most("no-outage", title, 0.0, "s", seconds)
    }

    /// The verdict over what was seen; what proves nothing is never a pass. `held` is what is said when all
    /// gates held, `next` what a person does when not.
    pub fn judge(&self, gates: &[Gate], held: impl FnOnce() -> String, next: &str) -> Judgement {
        if let Some((reason_id, reason)) = self.says_nothing() {
            return Judgement::new(Verdict::Inconclusive, reason_id, reason, next);
        }
        if self.control_run {
            let held = || "nothing was broken and no probe failed".to_owned();
            return of_gates(gates, held, next);
        }
        let mut judgement = of_gates(gates, held, next);
        if judgement.verdict == Verdict::Fail && !self.service_back {
            let words = "; writes did not come back while they were watched";
            judgement.reason.push_str(words);
        }
        judgement
    }

    /// Why it says nothing, if it doesn't.
    fn says_nothing(&self) -> Option<(&'static str, String)> {
        if let Some(blind) = &self.blind {
            return Some(("observer-blind", blind.clone()));
        }
        if self.control_run {
            return None;
        }
        let target = &self.target;
        if !self.evidence {
            let trouble = self.trouble.as_deref();
            let trouble = trouble.unwrap_or("it went on answering, or nobody else did");
            let reason = format!("no evidence that {target} was broken: {trouble}");
            return Some(("no-evidence", reason));
        }
        if self.outage_s.is_none() && !self.unnoticed {
            let reason =
                format!("{target} was broken, but no probe failed: the client did not use it");
            return Some(("no-outage-seen", reason));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut Experiment)) -> (Verdict, String, String) {
        let mut experiment = Experiment {
            target: "pg-1".into(),
            evidence: true,
            outage_s: Some(Measured::exact(9.5)),
            service_back: true,
            ..Experiment::default()
        };
        change(&mut experiment);
        let gates = match experiment.control_run {
            true => vec![experiment.no_outage()],
            false => vec![Gate::at_most("rto", "time", 60.0, "s", experiment.outage_s)],
        };
        let judgement = experiment.judge(&gates, || "held".to_owned(), "look");
        (judgement.verdict, judgement.reason_id, judgement.reason)
    }

    #[test]
    fn what_proves_nothing_is_never_a_pass() {
        assert_eq!(judged(|_| {}).0, Verdict::Pass);
        let nothing = |change: fn(&mut Experiment)| {
            let (verdict, reason_id, reason) = judged(change);
            assert_eq!(verdict, Verdict::Inconclusive, "{reason}");
            (reason_id, reason)
        };
        let (reason_id, reason) = nothing(|e| {
            e.evidence = false;
            // Without evidence not even a missed gate is a failure of the system.
            e.outage_s = Some(Measured::exact(70.0));
        });
        assert_eq!(reason_id, "no-evidence");
        assert!(reason.contains("pg-1 was broken: it went on"), "{reason}");
        assert_eq!(nothing(|e| e.outage_s = None).0, "no-outage-seen");
        let (verdict, ..) = judged(|e| (e.outage_s, e.unnoticed) = (None, true));
        assert_eq!(verdict, Verdict::Inconclusive, "its gate was not measured");
        assert_eq!(
            nothing(|e| e.blind = Some("late".into())).0,
            "observer-blind"
        );
        assert_eq!(nothing(|e| *e = Experiment::default()).0, "no-evidence");
    }

    #[test]
    fn service_that_did_not_come_back_is_told_with_a_missed_gate() {
        let (verdict, _, reason) = judged(|e| {
            (e.outage_s, e.service_back) = (Some(Measured::exact(70.0)), false);
        });
        assert_eq!(verdict, Verdict::Fail);
        assert!(reason.ends_with("; writes did not come back while they were watched"));
    }

    #[test]
    fn a_control_run_must_show_no_outage() {
        let control = |outage_s| {
            judged(|e| {
                *e = Experiment {
                    control_run: true,
                    outage_s,
                    ..Experiment::default()
                }
            })
        };
        let (verdict, _, reason) = control(None);
        assert_eq!(
            (verdict, reason.as_str()),
            (Verdict::Pass, "nothing was broken and no probe failed")
        );
        let (lower, upper) = (0.1, Some(0.2));
        let (verdict, reason_id, _) = control(Some(Measured { lower, upper }));
        assert_eq!(
            (verdict, reason_id.as_str()),
            (Verdict::Fail, "no-outage-missed")
        );
        let lower = 0.0;
        assert_eq!(
            control(Some(Measured { lower, upper })).0,
            Verdict::Inconclusive
        );
    }
}
