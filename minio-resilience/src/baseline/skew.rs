//! How far a node's clock is from ours, by HTTP dates, which count whole seconds: several answers narrow it down. Pure.

/// What a node's clock is ahead of ours by: at least and at most this many microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// At least.
    pub least_us: i64,
    /// At most.
    pub most_us: i64,
}

const SECOND_US: i64 = 1_000_000;

impl Skew {
    /// From one answer: it carried the second `date_s`, and was made between two moments of our wall clock.
    pub fn of(date_s: i64, (asked_us, answered_us): (i64, i64)) -> Skew {
        let date_us = date_s.saturating_mul(SECOND_US);
        Skew {
            least_us: date_us.saturating_sub(answered_us),
            most_us: date_us.saturating_add(SECOND_US).saturating_sub(asked_us),
        }
    }

    /// Narrowed down by another answer of the same node; one that contradicts it (a clock was set meanwhile) widens it.
    #[must_use]
    pub fn and(self, other: Skew) -> Skew {
        let both = Skew {
            least_us: self.least_us.max(other.least_us),
            most_us: self.most_us.min(other.most_us),
        };
        if both.least_us <= both.most_us {
            return both;
        }
        Skew {
            least_us: self.least_us.min(other.least_us),
            most_us: self.most_us.max(other.most_us),
        }
    }

    /// How far apart two clocks are for certain, in microseconds.
    pub fn apart_us(self, other: Skew) -> i64 {
        let gap = (self.least_us - other.most_us).max(other.least_us - self.most_us);
        gap.max(0)
    }

    /// For people.
    pub fn told(self) -> String {
        let seconds = |us: i64| us as f64 / 1e6;
        format!(
            "{:+.2} to {:+.2} s",
            seconds(self.least_us),
            seconds(self.most_us)
        )
    }
}

/// Our own clock.
pub const OURS: Skew = Skew {
    least_us: 0,
    most_us: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_around_the_turn_of_a_second_narrow_it_down() {
        // Ours is right: 10.9 s is still second 10 there, 11.1 s is second 11.
        let before = Skew::of(10, (10_900_000, 10_910_000));
        assert_eq!(
            before,
            Skew {
                least_us: -910_000,
                most_us: 100_000
            }
        );
        let both = before.and(Skew::of(11, (11_100_000, 11_110_000)));
        assert_eq!(
            both,
            Skew {
                least_us: -110_000,
                most_us: 100_000
            }
        );
        assert_eq!(both.apart_us(OURS), 0);
    }

    #[test]
    fn a_second_is_seen_and_a_little_less_is_not() {
        let ahead = |us: i64| Skew {
            least_us: us,
            most_us: us + 200_000,
        };
        assert_eq!(ahead(1_000_000).apart_us(OURS), 1_000_000);
        assert_eq!(ahead(-1_300_000).apart_us(OURS), 1_100_000);
        assert_eq!(ahead(900_000).apart_us(ahead(-100_000)), 800_000);
    }

    #[test]
    fn a_clock_that_was_set_meanwhile_is_not_known_better() {
        let one = Skew {
            least_us: 0,
            most_us: 10,
        };
        let other = Skew {
            least_us: 50,
            most_us: 60,
        };
        assert_eq!(
            one.and(other),
            Skew {
                least_us: 0,
                most_us: 60
            }
        );
    }
}
