//! Two nodes whose true times of taking writes are known, each asked at random; in microseconds.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// How the questions to a node come.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    /// The longest time between two questions.
    gap_max: i64,
    /// The longest that an answer takes.
    length_max: i64,
    /// Of 100 answers, how many prove nothing.
    noise: u64,
    /// After an answer that proves nothing comes one that does not.
    is_spared: bool,
    /// A node that takes no writes says so when it is asked. Otherwise it proves nothing.
    is_honest: bool,
}

/// True times, `[start, end)`, in which a node takes writes, in order.
type Truth = Vec<(i64, i64)>;

/// A small source of numbers, so that a world is told by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    /// From 0 to `max`; often one of the two.
    fn up_to(&mut self, max: i64) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => max,
            _ => self.below(max.unsigned_abs() + 1) as i64,
        }
    }
}

fn takes_writes(truth: &Truth, at: i64) -> bool {
    truth
        .iter()
        .any(|(start, end)| (*start..*end).contains(&at))
}

/// Asks a node until `end`; each question reaches it at some moment between its beginning and end.
fn ask(node: &str, truth: &Truth, rhythm: Rhythm, seed: u64, end: i64) -> Tenure {
    let mut random = Random(seed);
    let mut asked: Vec<Asked> = Vec::new();
    let mut at = random.up_to(rhythm.gap_max);
    while at < end {
        let length = random.up_to(rhythm.length_max);
        let reached = at + random.up_to(length);
        let last = asked.last().map(|asked| asked.answer);
        let spared =
            rhythm.is_spared && matches!(last, Some(Answer::Unasked | Answer::Unacknowledged));
        let noisy = random.below(100) < rhythm.noise && !spared;
        let answer = match (takes_writes(truth, reached), noisy, random.below(2) == 0) {
            (true, false, _) => Answer::Took,
            (false, false, true) if rhythm.is_honest => Answer::Refused,
            (false, false, false) if rhythm.is_honest => Answer::Absent,
            (_, _, true) => Answer::Unasked,
            (_, _, false) => Answer::Unacknowledged,
        };
        asked.push(Asked {
            began: At(at),
            ended: At(at + length),
            answer,
            words: String::new(),
        });
        at += length + random.up_to(rhythm.gap_max);
        // Time must pass, whatever the random says.
        at += i64::from(length == 0);
    }
    Tenure {
        node: node.to_owned(),
        asked,
    }
}

/// Terms of office that never overlap: who, how long after the one before, how long. A node gets
/// the role back from the other no sooner than [`RETURN`] after it lost it; its own it may take up
/// at once, as after a restart.
fn disjoint(terms: &[(bool, i64, i64)]) -> [Truth; 2] {
    let mut truths = [Truth::new(), Truth::new()];
    let mut now = 0;
    let mut before = None;
    for (is_second, pause, length) in terms {
        let mine = &mut truths[usize::from(*is_second)];
        let mut start = now + pause;
        if before != Some(*is_second) {
            let lost = mine.last().map(|(_, end)| *end);
            start = start.max(lost.map_or(0, |lost| lost + micros(RETURN)));
        }
        now = start + length;
        mine.push((start, now));
        before = Some(*is_second);
    }
    truths
}

fn run<S: Strategy>(cases: u32, worlds: &S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config).run(worlds, check).unwrap();
}

fn millis(range: std::ops::Range<i64>) -> impl Strategy<Value = i64> + Clone {
    range.prop_map(|ms| ms * 1_000)
}

#[test]
fn no_overlap_is_reported_when_there_is_none() {
    let length = prop_oneof![millis(0..200), millis(0..4_000)];
    let term = (any::<bool>(), prop_oneof![Just(0), millis(0..900)], length);
    let pace = || prop_oneof![millis(0..150), millis(0..1_500)];
    let rhythm = (pace(), pace(), 0..60_u64, any::<bool>());
    let terms = proptest::collection::vec(term, 0..10);
    let writes = Cell::new(0);
    let turns = Cell::new(0);
    let worlds = (terms, rhythm, any::<[u64; 2]>());
    run(1_500, &worlds, |(terms, rhythm, seeds)| {
        let (gap_max, length_max, noise, is_honest) = rhythm;
        let rhythm = Rhythm {
            gap_max,
            length_max: length_max.max(10_000),
            noise,
            is_spared: false,
            is_honest,
        };
        let [a, b] = disjoint(&terms);
        let end = a.iter().chain(&b).map(|(_, end)| *end).max().unwrap_or(0) + 2_000_000;
        let tenures = [
            ask("a", &a, rhythm, seeds[0], end),
            ask("b", &b, rhythm, seeds[1], end),
        ];
        prop_assert_eq!(overlaps(&tenures), []);
        let spans = tenures.each_ref().map(|tenure| spans(tenure).len());
        writes.set(writes.get() + spans[0] + spans[1]);
        turns.set(turns.get() + usize::from(spans[0] > 1 && spans[1] > 0));
        Ok(())
    });
    // The worlds are not empty of what could be mistaken.
    assert!(
        writes.get() > 1_000 && turns.get() > 200,
        "{writes:?} {turns:?}"
    );
}

#[test]
fn an_overlap_long_enough_for_two_writes_is_reported() {
    // One term each, of which the second begins inside the first.
    let rhythm = (millis(1..250), millis(1..200), 0..60_u64, any::<bool>());
    let world = (millis(0..3_000), millis(0..2_000), millis(0..3_000));
    let losers = Cell::new((0, 0));
    let worlds = (rhythm, world, any::<bool>(), any::<[u64; 2]>());
    run(600, &worlds, |(rhythm, world, is_inside, seeds)| {
        let (gap_max, length_max, noise, is_honest) = rhythm;
        let rhythm = Rhythm {
            gap_max,
            length_max,
            noise,
            is_spared: true,
            is_honest,
        };
        let (before, more, after) = world;
        // At worst one answer of two says something. Then the first write that lies wholly in the
        // common time has ended after `pause + length_max`, and the same at its end; and two whole
        // writes of the other fit in between.
        let pause = 2 * gap_max + length_max + 2;
        let enough = 4 * pause + 7 * length_max + 8;
        let (from, to) = (before, before + enough + more);
        let (a, b) = match is_inside {
            true => (vec![(0, to + after)], vec![(from, to)]),
            false => (vec![(0, to)], vec![(from, to + after)]),
        };
        let end = to + after + 1_000_000;
        let tenures = [
            ask("a", &a, rhythm, seeds[0], end),
            ask("b", &b, rhythm, seeds[1], end),
        ];
        let found = overlaps(&tenures);
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        let found = &found[0];
        prop_assert!(found.earliest <= found.latest && found.writes >= 1);
        prop_assert!(
            found.earliest.0 < to && found.latest.0 >= from,
            "{:?}",
            found
        );
        // A write that proves it was taken in the common time, so it began or ended in it.
        prop_assert!(found.earliest.0 >= from - length_max);
        prop_assert!(found.latest.0 <= to + length_max);
        if let Some(losing) = &found.losing {
            prop_assert_eq!(losing, if is_inside { "b" } else { "a" });
            let (one, other) = losers.get();
            losers.set((
                one + usize::from(is_inside),
                other + usize::from(!is_inside),
            ));
        }
        Ok(())
    });
    let (one, other) = losers.get();
    assert!(one > 50 && other > 50, "{losers:?}");
}

#[test]
fn the_fence_and_the_first_write_lie_inside_their_bounds() {
    let rhythm = (millis(0..600), millis(1..800), 0..60_u64);
    let world = (millis(0..3_000), millis(0..3_000), any::<[u64; 2]>());
    let seen = Cell::new((0, 0));
    run(800, &(rhythm, world), |(rhythm, (zero, later, seeds))| {
        let (gap_max, length_max, noise) = rhythm;
        let rhythm = Rhythm {
            gap_max,
            length_max,
            noise,
            is_spared: false,
            is_honest: true,
        };
        let (moment, end) = (zero + later, zero + later + 5_000_000);
        let mut old = ask("a", &vec![(0, moment)], rhythm, seeds[0], end);
        // A server that is fenced hangs only after it refused once.
        let is_shut = |asked: &Asked| asked.shut();
        let shut = old
            .asked
            .iter()
            .position(is_shut)
            .unwrap_or(old.asked.len());
        let before = old.asked.iter_mut().take(shut);
        for asked in before.filter(|asked| asked.ended.0 >= moment && !asked.took()) {
            asked.answer = Answer::Unasked;
        }
        let (mut fences, mut firsts) = seen.get();
        match fenced(&old, At(zero)) {
            Fenced::Between { earliest, latest } => {
                prop_assert!(zero <= earliest.0 && earliest.0 <= moment && moment <= latest.0);
                fences += 1;
            }
            Fenced::No { last_seen } => {
                let last = old
                    .asked
                    .iter()
                    .rfind(|asked| asked.answer != Answer::Unasked);
                prop_assert_eq!(last.map(|asked| asked.began), Some(last_seen));
            }
            Fenced::Unseen => {}
        }
        let mut new = ask("b", &vec![(moment, end)], rhythm, seeds[1], end);
        for asked in new.asked.iter_mut().filter(|asked| asked.ended.0 >= moment) {
            if !asked.took() && !asked.shut() {
                asked.answer = Answer::Unasked;
            }
        }
        if let Some((earliest, latest)) = first_write(&new, At(zero)) {
            prop_assert!(zero <= earliest.0 && earliest.0 <= moment && moment <= latest.0);
            firsts += 1;
        }
        seen.set((fences, firsts));
        Ok(())
    });
    let (fences, firsts) = seen.get();
    assert!(fences > 400 && firsts > 400, "{seen:?}");
}
