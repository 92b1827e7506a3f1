//! What outranks every gate of a drill.

use super::{Judgement, Verdict};
use crate::clock::Signal;

/// How a drill ended, whatever was seen meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The instances that were broken.
    pub target: String,
    /// Whether healing was done and proven; none when it has not been tried yet.
    pub undone: Option<bool>,
    /// What healing said when it was not done.
    pub undo_trouble: String,
    /// What a person does then.
    pub look_now: String,
    /// The panic or bug that ended it.
    pub bug: Option<String>,
    /// The signal that ended it.
    pub interrupted: Option<Signal>,
    /// Why somebody forbade all drills while it ran.
    pub halted: Option<String>,
}

impl Ended {
    /// The verdict, where it does not depend on what was seen: a fault that may still be there outranks
    /// everything, then a bug, then the signal that ended the run, then a halt.
    pub fn judgement(&self) -> Option<Judgement> {
        if self.undone == Some(false) {
            let reason = format!("{} may still be broken: {}", self.target, self.undo_trouble);
            let (verdict, next) = (Verdict::NotUndone, self.look_now.as_str());
            return Some(Judgement::new(verdict, "fault-may-remain", reason, next));
        }
        if let Some(bug) = &self.bug {
            let reason = format!("a bug of this tool ended the run; the fault was undone: {bug}");
            let next = "report it with the story above";
            return Some(Judgement::new(Verdict::Internal, "bug", reason, next));
        }
        if let Some(signal) = self.interrupted {
            let reason = format!("{signal} ended the run; the fault was undone");
            let verdict = Verdict::Interrupted(signal);
            return Some(Judgement::new(
                verdict,
                "interrupted",
                reason,
                "run it again",
            ));
        }
        let words = self.halted.as_ref()?;
        let reason = format!("drills were forbidden while it ran ({words}); the fault was undone");
        let next = "ask whoever set user.veza.halt";
        Some(Judgement::new(
            Verdict::Inconclusive,
            "halted",
            reason,
            next,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Ended)) -> Option<(Verdict, String)> {
        let mut ended = Ended {
            undone: Some(true),
            ..Ended::default()
        };
        change(&mut ended);
        let judgement = ended.judgement()?;
        Some((judgement.verdict, judgement.reason_id))
    }

    #[test]
    fn a_fault_that_may_remain_outranks_everything() {
        assert_eq!(with(|_| {}), None);
        assert_eq!(with(|e| e.undone = None), None);
        let worst = with(|e| {
            e.undone = Some(false);
            e.bug = Some("x".into());
            e.interrupted = Some(Signal::Interrupt);
        });
        assert_eq!(worst, Some((Verdict::NotUndone, "fault-may-remain".into())));
        let ended = Ended {
            undone: Some(false),
            look_now: "look now".to_owned(),
            ..Ended::default()
        };
        assert_eq!(ended.judgement().unwrap().next, "look now");
        let bug = with(|e| {
            e.bug = Some("x".into());
            e.interrupted = Some(Signal::Interrupt);
        });
        assert_eq!(bug, Some((Verdict::Internal, "bug".into())));
        let halted = with(|e| e.halted = Some("release".into()));
        assert_eq!(halted, Some((Verdict::Inconclusive, "halted".into())));
        let signal = with(|e| {
            e.interrupted = Some(Signal::Terminate);
            e.halted = Some("release".into());
        });
        let terminated = Verdict::Interrupted(Signal::Terminate);
        assert_eq!(signal, Some((terminated, "interrupted".into())));
    }
}
