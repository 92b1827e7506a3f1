//! Judges a copy. Pure.

use veza_probe::clock::Signal;
use veza_probe::verdict::{Judgement, Verdict};

use crate::transfer::flow::{Counts, Stopped};

const RESUME: &str = "run it again: it goes on where it was";

/// What a copy came to.
pub struct Copy<'a> {
    /// What was done.
    pub counts: &'a Counts,
    /// Why a bucket was not walked to its end.
    pub stopped: Option<&'a Stopped>,
    /// The signal that ended it.
    pub signal: Option<Signal>,
    /// Whether nothing stands in the journal when all is done.
    pub is_empty: bool,
}

/// The verdict: it is complete, or it says how to go on.
pub fn judge(copy: &Copy<'_>) -> Judgement {
    let counts = copy.counts;
    let done = format!(
        "{} keys seen, {} versions and {} marks of deletion copied",
        counts.keys, counts.versions, counts.marks
    );
    if let Some(signal) = copy.signal {
        let reason = format!("ended by {signal}: {done}");
        return Judgement::new(Verdict::Interrupted(signal), "interrupted", reason, RESUME);
    }
    let incomplete = |reason_id: &str, reason: String, next: &str| {
        Judgement::new(Verdict::Inconclusive, reason_id, reason, next)
    };
    match copy.stopped {
        Some(Stopped::Listing(words)) => {
            let reason = format!("a listing broke off: {words}; until then: {done}");
            return incomplete("listing-broken", reason, RESUME);
        }
        Some(Stopped::Journal(words)) => {
            return incomplete(
                "journal-unwritable",
                format!("{words}; until then: {done}"),
                RESUME,
            );
        }
        Some(Stopped::Extraneous(words)) => {
            let reason = format!("{words}; {done}");
            let next = "see what went from the source, and whether that was meant";
            return incomplete("not-removed", reason, next);
        }
        Some(Stopped::Full(words)) => {
            let reason = format!("the target has no room: {words}; until then: {done}");
            let next = "make room there, or raise the bucket's quota; then run it again: it goes on where it was";
            return incomplete("target-full", reason, next);
        }
        Some(Stopped::Denied(words)) => {
            let reason = format!("a login may not do what is needed: {words}; until then: {done}");
            let next = "see the policy of that user; then run it again: it goes on where it was";
            return incomplete("not-permitted", reason, next);
        }
        Some(Stopped::Bucket(words)) => {
            let reason = format!("the target's bucket could not be made: {words}");
            return incomplete("bucket-unmade", reason, "make it by hand, as on the source");
        }
        None => {}
    }
    let troubles = counts.troubles;
    if troubles > 0 && counts.conflicts == troubles {
        let reason = format!(
            "{troubles} keys are left alone, since others wrote them to the target: {done}"
        );
        let next = "see the table: who writes there? --overwrite writes on top of them";
        return incomplete("conflicts", reason, next);
    }
    if troubles > 0 {
        let reason = format!("{troubles} keys could not be copied: {done}");
        return incomplete("keys-left", reason, RESUME);
    }
    if copy.is_empty {
        let reason = "there was nothing to copy".to_owned();
        let next = "look at --bucket, --prefix, --include and --exclude";
        return incomplete("nothing-copied", reason, next);
    }
    let mib = counts.bytes as f64 / f64::from(1 << 20);
    let reason = format!(
        "{done} ({mib:.1} MiB); {} keys were on the target already; nothing of it was read again yet",
        counts.unchanged
    );
    Judgement::new(Verdict::Pass, "copied", reason, "minio-migrate verify")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(counts: &Counts, stopped: Option<&Stopped>) -> (Verdict, String) {
        let copy = Copy {
            counts,
            stopped,
            signal: None,
            is_empty: false,
        };
        let judgement = judge(&copy);
        (judgement.verdict, judgement.reason_id)
    }

    #[test]
    fn what_is_left_is_no_pass() {
        let counts = |troubles, conflicts| Counts {
            keys: 9,
            troubles,
            conflicts,
            ..Counts::default()
        };
        let is = |verdict, id: &str| (verdict, id.to_owned());
        assert_eq!(judged(&counts(0, 0), None), is(Verdict::Pass, "copied"));
        assert_eq!(
            judged(&counts(1, 0), None),
            is(Verdict::Inconclusive, "keys-left")
        );
        assert_eq!(
            judged(&counts(2, 1), None),
            is(Verdict::Inconclusive, "keys-left")
        );
        assert_eq!(
            judged(&counts(1, 1), None),
            is(Verdict::Inconclusive, "conflicts")
        );
        let listing = Stopped::Listing("x".to_owned());
        assert_eq!(
            judged(&counts(0, 0), Some(&listing)),
            is(Verdict::Inconclusive, "listing-broken")
        );
        for (stopped, id) in [
            (Stopped::Full("x".to_owned()), "target-full"),
            (Stopped::Denied("x".to_owned()), "not-permitted"),
        ] {
            let came = judged(&Counts::default(), Some(&stopped));
            assert_eq!(came, (Verdict::Inconclusive, id.to_owned()));
        }
        let extraneous = Stopped::Extraneous("x".to_owned());
        assert_eq!(
            judged(&counts(0, 0), Some(&extraneous)),
            is(Verdict::Inconclusive, "not-removed")
        );
        let bucket = Stopped::Bucket("x".to_owned());
        assert_eq!(
            judged(&counts(0, 0), Some(&bucket)),
            is(Verdict::Inconclusive, "bucket-unmade")
        );
        let journal = Stopped::Journal("x".to_owned());
        assert_eq!(
            judged(&counts(0, 0), Some(&journal)),
            is(Verdict::Inconclusive, "journal-unwritable")
        );
    }

    #[test]
    fn nothing_at_all_is_no_pass() {
        let copy = Copy {
            counts: &Counts::default(),
            stopped: None,
            signal: None,
            is_empty: true,
        };
        assert_eq!(judge(&copy).reason_id, "nothing-copied");
    }
}
