//! Outages that are known beforehand: kind, length and moment of each, drawn from a seed. Pure.

use std::time::Duration;

use serde::Serialize;
use veza_probe::clock::{At, micros};

/// What the service does with a request that it processes during an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Says `no`.
    Refusing,
    /// Closes the connection without a word.
    Closing,
    /// Holds it, and processes it when the outage is over.
    Stalling,
    /// Forgets it: no answer ever.
    Silent,
}

/// Every kind.
pub const KINDS: [Kind; 4] = [Kind::Refusing, Kind::Closing, Kind::Stalling, Kind::Silent];

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Refusing => "refusing",
            Kind::Closing => "closing",
            Kind::Stalling => "stalling",
            Kind::Silent => "silent",
        }
    }
}

/// One outage: no request that the service processes at a moment in `[start, end)` is served; every
/// other one is, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// The first moment of the outage.
    pub start: At,
    /// The first moment after it.
    pub end: At,
    /// What happens to requests meanwhile.
    pub kind: Kind,
}

impl Truth {
    /// How long it lasted.
    pub fn length_us(&self) -> i64 {
        self.end.us_since(self.start)
    }
}

/// The outage that holds a moment; `truths` are in the order of time.
pub fn truth_at(truths: &[Truth], at: At) -> Option<&Truth> {
    let next = truths.partition_point(|truth| truth.end <= at);
    truths.get(next).filter(|truth| truth.start <= at)
}

/// How many outages, how long, and in how many independent services.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Outages in all services together.
    pub count: u64,
    /// Services that run side by side.
    pub lanes: u64,
    /// Decides all that is random.
    pub seed: u64,
    /// No outage is shorter.
    pub shortest: Duration,
    /// No outage is as long.
    pub longest: Duration,
}

/// The shortest time between two outages: what one leaves behind in a client (a request until its
/// limit, an attempt to connect until its own, a second's poll) is over before the next.
pub const GAP: Duration = Duration::from_secs(3);

/// Gaps are up to this much longer, so that outages fall on every phase of every rhythm.
const GAP_SPREAD: Duration = Duration::from_secs(1);

impl Plan {
    /// The outages of each service, in the order of time, the first one a gap after `from`.
    ///
    /// Lengths are spread evenly over the logarithm, in every kind alike: as many from 10 to 20 ms
    /// as from 5 to 10 s.
    pub fn schedule(&self, from: At) -> Vec<Vec<Truth>> {
        let mut random = Random(self.seed);
        let ratio = self.longest.as_secs_f64() / self.shortest.as_secs_f64();
        let mut drawn: Vec<(i64, Kind)> = (0..self.count)
            .zip(KINDS.into_iter().cycle())
            .map(|(index, kind)| {
                let share = (index as f64 + random.fraction()) / self.count as f64;
                (
                    micros(self.shortest.mul_f64(ratio.powf(share))).max(1),
                    kind,
                )
            })
            .collect();
        for index in (1..drawn.len()).rev() {
            drawn.swap(index, random.below(index as u64 + 1) as usize);
        }
        let lanes = usize::try_from(self.lanes).unwrap_or(usize::MAX).max(1);
        (0..lanes)
            .map(|lane| {
                let mut at = from;
                let own = drawn.iter().skip(lane).step_by(lanes);
                own.map(|&(length_us, kind)| {
                    let start = at.plus(GAP + GAP_SPREAD.mul_f64(random.fraction()));
                    at = At(start.0 + length_us);
                    Truth {
                        start,
                        end: at,
                        kind,
                    }
                })
                .collect()
            })
            .collect()
    }
}

/// splitmix64: the same numbers from the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, without `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// From 0 to 1, without 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            count: 320,
            lanes: 4,
            seed: 1,
            shortest: Duration::from_millis(10),
            longest: Duration::from_secs(10),
        }
    }

    fn all(plan: &Plan) -> Vec<Truth> {
        plan.schedule(At(0)).concat()
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(all(&plan()), all(&plan()));
        assert_ne!(all(&plan()), all(&Plan { seed: 2, ..plan() }));
    }

    #[test]
    fn outages_stand_apart_in_the_order_of_time() {
        let from = At(5_000_000);
        for lane in plan().schedule(from) {
            assert_eq!(lane.len(), 80);
            let mut before = from;
            for truth in lane {
                assert!(truth.start >= before.plus(GAP) && truth.end > truth.start);
                assert!(truth.start <= before.plus(GAP + GAP_SPREAD));
                before = truth.end;
            }
        }
    }

    #[test]
    fn each_kind_has_the_same_lengths() {
        for kind in KINDS {
            let truths = all(&plan());
            let own = truths.iter().filter(|truth| truth.kind == kind);
            let mut lengths_us: Vec<i64> = own.map(Truth::length_us).collect();
            lengths_us.sort_unstable();
            assert_eq!(lengths_us.len(), 80);
            assert!(
                lengths_us
                    .iter()
                    .all(|us| (10_000..10_000_000).contains(us))
            );
            let long = lengths_us.iter().filter(|us| **us >= 5_000_000).count();
            assert!((7..=9).contains(&long), "{long} of {kind:?} last 5 to 10 s");
            let median_ms = lengths_us[40] / 1_000;
            assert!((290..=350).contains(&median_ms), "{kind:?}: {median_ms} ms");
        }
    }

    #[test]
    fn an_outage_holds_its_start_and_not_its_end() {
        let truth = |start, end| Truth {
            start: At(start),
            end: At(end),
            kind: Kind::Refusing,
        };
        let truths = [truth(10, 20), truth(30, 31)];
        let held: Vec<i64> = (0..40)
            .filter(|at| truth_at(&truths, At(*at)).is_some())
            .collect();
        let expected: Vec<i64> = (10..20).chain(30..31).collect();
        assert_eq!(held, expected);
        assert_eq!(truth_at(&truths, At(30)), Some(&truths[1]));
        assert_eq!(truth_at(&[], At(0)), None);
    }
}
