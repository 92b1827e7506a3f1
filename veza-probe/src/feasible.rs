//! Whether a promise can be met at all, by the timers that the system has now.

/// What the live timers can promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Feasible {
    /// No failover is faster than this, in seconds.
    pub best_s: f64,
    /// None needs longer, where nothing else goes wrong, in seconds.
    pub worst_s: f64,
    /// The promise, in seconds.
    pub target_s: f64,
    /// The sums, for people.
    pub sums: Vec<String>,
}

impl Feasible {
    /// Why the promise can't be met, if it can't; `whose` timers they are: `the monitor`.
    pub fn refusal(&self, whose: &str) -> Option<String> {
        let Feasible {
            best_s, target_s, ..
        } = self;
        (target_s < best_s).then(|| {
            format!(
                "the live timers of {whose} can't meet the target: at best a failover takes \
                 {best_s:.1} s, the target is {target_s:.1} s"
            )
        })
    }

    /// Why the promise may be missed, if it may.
    pub fn warning(&self) -> Option<String> {
        let Feasible {
            best_s,
            worst_s,
            target_s,
            ..
        } = self;
        (target_s >= best_s && target_s < worst_s).then(|| {
            format!(
                "the target of {target_s:.1} s is below the worst case of the live timers, \
                 {worst_s:.1} s: a pass is luck"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feasible_at_below_and_between() {
        let at = |target_s| Feasible {
            best_s: 7.0,
            worst_s: 12.0,
            target_s,
            sums: Vec::new(),
        };
        let refusal = at(6.9).refusal("the monitor").unwrap();
        assert!(refusal.starts_with("the live timers of the monitor can't meet the target"));
        assert!(at(6.9).warning().is_none());
        assert!(at(7.0).refusal("the monitor").is_none() && at(7.0).warning().is_some());
        assert!(at(11.9).warning().is_some());
        assert!(at(12.0).refusal("the monitor").is_none() && at(12.0).warning().is_none());
    }
}
