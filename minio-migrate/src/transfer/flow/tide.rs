//! How many objects are carried at the same time: more while that is faster, fewer when a store asks for it.

use veza_probe::clock::At;

/// How long is measured before the number changes, in microseconds.
const LOOK_US: i64 = 1_000_000;

/// With how many it begins.
const FIRST: usize = 32;

/// What an object costs beside its bytes, as bytes: so that many small ones count as work.
const OBJECT_BYTES: u64 = 64 * 1024;

/// How much faster it must be to be called faster.
const FASTER: f64 = 1.03;

/// For how many looks a number is kept before a larger one is tried again.
const KEPT: u32 = 5;

/// The number, and what it came from.
#[derive(Clone, Debug)]
pub struct Tide {
    /// How many may be under way.
    pub limit: usize,
    most: usize,
    began: At,
    work: u64,
    state: State,
    slowdowns: u64,
    /// The most that it was.
    pub peak: usize,
}

/// What is going on with the number.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A larger one is tried: the number before, and how fast that was.
    Tried { before: usize, rate: f64 },
    /// It is kept for some more looks.
    Kept(u32),
}

impl Tide {
    /// Begins low; never more than `most`.
    pub fn new(most: usize, now: At) -> Tide {
        let limit = FIRST.min(most.max(1));
        Tide {
            limit,
            most: most.max(1),
            began: now,
            work: 0,
            state: State::Tried {
                before: limit,
                rate: 0.0,
            },
            slowdowns: 0,
            peak: limit,
        }
    }

    /// An object is over.
    pub fn done(&mut self, bytes: u64) {
        self.work += bytes + OBJECT_BYTES;
    }

    /// Looks at the time, and at how often a store asked for fewer so far.
    pub fn turn(&mut self, now: At, slowdowns: u64) {
        let passed_us = now.us_since(self.began);
        if passed_us < LOOK_US {
            return;
        }
        let rate = self.work as f64 / (passed_us as f64 / 1e6);
        self.state = if slowdowns > self.slowdowns {
            self.limit = (self.limit / 2).max(1);
            State::Kept(KEPT)
        } else {
            match self.state {
                State::Tried { rate: before, .. } if rate >= before * FASTER => self.try_more(rate),
                State::Tried { before, .. } => {
                    self.limit = before;
                    State::Kept(KEPT)
                }
                State::Kept(0) => self.try_more(rate),
                State::Kept(left) => State::Kept(left - 1),
            }
        };
        self.peak = self.peak.max(self.limit);
        (self.began, self.work, self.slowdowns) = (now, 0, slowdowns);
    }

    fn try_more(&mut self, rate: f64) -> State {
        let before = self.limit;
        self.limit = (before + (before / 4).max(1)).min(self.most);
        State::Tried { before, rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns with a store whose rate for a number is known.
    fn turned(most: usize, turns: i64, rate: impl Fn(usize) -> u64) -> Tide {
        let mut tide = Tide::new(most, At(0));
        for turn in 1..=turns {
            tide.work = rate(tide.limit);
            tide.turn(At(turn * LOOK_US), 0);
        }
        tide
    }

    #[test]
    fn it_rises_while_that_is_faster_and_stays_where_it_is_not() {
        assert!(turned(64, 20, |limit| limit as u64 * 1000).limit >= 60);
        let flat = turned(512, 200, |limit| limit.min(32) as u64 * 1000);
        assert!((16..=64).contains(&flat.limit), "{}", flat.limit);
        assert!(flat.peak < 128, "{}", flat.peak);
        assert_eq!(turned(3, 20, |limit| limit as u64).limit, 3);
    }

    #[test]
    fn a_store_that_asks_for_fewer_gets_fewer() {
        let mut tide = turned(64, 20, |limit| limit as u64 * 1000);
        let before = tide.limit;
        tide.turn(At(21 * LOOK_US), 5);
        assert_eq!(tide.limit, before / 2);
        tide.turn(At(22 * LOOK_US), 6);
        assert_eq!(tide.limit, before / 4);
        for turn in 23..40 {
            tide.turn(At(turn * LOOK_US), i64::unsigned_abs(turn));
        }
        assert_eq!(tide.limit, 1);
        for turn in 40..60 {
            tide.work = tide.limit as u64 * 1000;
            tide.turn(At(turn * LOOK_US), 39);
        }
        assert!(tide.limit > 4, "and more again later: {}", tide.limit);
    }

    #[test]
    fn within_a_look_nothing_changes() {
        let mut tide = Tide::new(64, At(0));
        tide.turn(At(LOOK_US - 1), 9);
        assert_eq!(tide.limit, FIRST);
    }
}
