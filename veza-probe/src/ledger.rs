//! Writes acknowledged, failed, unknown → lost, recovered, phantom, duplicate. Pure.
//!
//! A client wrote numbered rows while something was broken, and read all rows when it was over.
//! What it was told about a write, and whether the row is there, say together what became of it:
//!
//! ```text
//!                    there        not there
//!   acknowledged     as promised  lost
//!   unknown          recovered    absent
//!   failed           phantom      as promised
//!   never attempted  phantom
//! ```
//! So every number lies in exactly one class. Whether a row is there more than once is another
//! question: a duplicate is in its class as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::prober::{FailureKind, Outcome, Sample};

/// How many ranges [`told`] spells out: a long outage may have hundreds.
const TOLD_MAX: usize = 8;

/// What the client was told about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The server said that it is committed, without a warning.
    Acknowledged,
    /// Nothing was sent, or an error proves that nothing was committed.
    Failed,
    /// Anything else: a deadline, a broken connection, a commit with a warning.
    Unknown,
}

impl Fate {
    /// The fate that counts when a number was attempted twice: a promise outlives a doubt, and a
    /// doubt outlives a failure.
    fn stronger(self, other: Fate) -> Fate {
        match (self, other) {
            (Fate::Acknowledged, _) | (_, Fate::Acknowledged) => Fate::Acknowledged,
            (Fate::Unknown, _) | (_, Fate::Unknown) => Fate::Unknown,
            (Fate::Failed, Fate::Failed) => Fate::Failed,
        }
    }
}

/// One write of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The number of the row.
    pub number: u64,
    /// What the client was told.
    pub fate: Fate,
}

impl From<&Sample> for Attempt {
    /// A probe that wrote the row of its own number.
    fn from(sample: &Sample) -> Attempt {
        let fate = match &sample.outcome {
            Outcome::Success => Fate::Acknowledged,
            Outcome::Failure(failure) => match failure.kind {
                FailureKind::NoConnection | FailureKind::Refused => Fate::Failed,
                FailureKind::Deadline | FailureKind::Doubtful | FailureKind::Broken => {
                    Fate::Unknown
                }
            },
        };
        Attempt {
            number: sample.number,
            fate,
        }
    }
}

/// Consecutive numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Range {
    /// The first number.
    pub first: u64,
    /// The last number; not below the first.
    pub last: u64,
}

impl Range {
    /// How many numbers it has.
    pub fn count(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

impl fmt::Display for Range {
    /// `12` or `40-44`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// What became of all writes. Ranges are in order, and as long as they can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ledger {
    /// How many numbers were acknowledged.
    pub acknowledged: usize,
    /// How many numbers failed.
    pub failed: usize,
    /// For how many numbers the client can't know.
    pub unknown: usize,
    /// How many rows are there, with all copies.
    pub rows: usize,
    /// Acknowledged, and not there: a broken promise.
    pub lost: Vec<Range>,
    /// Unknown, and there: legal.
    pub recovered: Vec<Range>,
    /// Unknown, and not there: legal.
    pub absent: Vec<Range>,
    /// Failed or never attempted, and there all the same.
    pub phantoms: Vec<Range>,
    /// There more than once, whatever the fate.
    pub duplicates: Vec<Range>,
}

impl Ledger {
    /// How many acknowledged rows are lost.
    pub fn lost_count(&self) -> u64 {
        count(&self.lost)
    }

    /// How many numbers are there that should not be.
    pub fn phantom_count(&self) -> u64 {
        count(&self.phantoms)
    }

    /// How many numbers are there more than once, not how many surplus copies there are.
    pub fn duplicate_count(&self) -> u64 {
        count(&self.duplicates)
    }

    /// Whether it can prove that nothing was lost: where nothing was acknowledged, nothing can be.
    pub fn proves_something(&self) -> bool {
        self.acknowledged > 0
    }
}

/// Compares what the client was told with the rows that are there, both in any order. When a number
/// was attempted twice, which should not happen, it counts once: acknowledged rather than unknown,
/// and unknown rather than failed.
pub fn reconcile(attempts: &[Attempt], rows: &[u64]) -> Ledger {
    let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
    for attempt in attempts {
        let fate = fates.entry(attempt.number).or_insert(attempt.fate);
        *fate = fate.stronger(attempt.fate);
    }
    let mut copies: BTreeMap<u64, usize> = BTreeMap::new();
    for row in rows {
        *copies.entry(*row).or_default() += 1;
    }
    let numbers: BTreeSet<u64> = fates.keys().chain(copies.keys()).copied().collect();
    let having = |fate: Fate| fates.values().filter(|other| **other == fate).count();
    let class = |is_in: fn(Option<Fate>, usize) -> bool| {
        let is_in = |number: &u64| {
            let there = copies.get(number).copied().unwrap_or_default();
            is_in(fates.get(number).copied(), there)
        };
        ranges(numbers.iter().copied().filter(is_in))
    };
    Ledger {
        acknowledged: having(Fate::Acknowledged),
        failed: having(Fate::Failed),
        unknown: having(Fate::Unknown),
        rows: rows.len(),
        lost: class(|fate, there| fate == Some(Fate::Acknowledged) && there == 0),
        recovered: class(|fate, there| fate == Some(Fate::Unknown) && there > 0),
        absent: class(|fate, there| fate == Some(Fate::Unknown) && there == 0),
        phantoms: class(|fate, there| matches!(fate, None | Some(Fate::Failed)) && there > 0),
        duplicates: class(|_, there| there > 1),
    }
}

/// Ranges for people: `12, 40-44`, `none`, or the first few `and 17 more` numbers.
pub fn told(ranges: &[Range]) -> String {
    if ranges.is_empty() {
        return "none".to_owned();
    }
    let first: Vec<String> = ranges.iter().take(TOLD_MAX).map(Range::to_string).collect();
    let first = first.join(", ");
    match count(ranges.get(TOLD_MAX..).unwrap_or_default()) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn count(ranges: &[Range]) -> u64 {
    ranges.iter().map(Range::count).fold(0, u64::saturating_add)
}

/// The longest ranges of ascending numbers.
fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<Range> {
    let mut found: Vec<Range> = Vec::new();
    for number in numbers {
        match found.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(number) => range.last = number,
            _ => found.push(Range {
                first: number,
                last: number,
            }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::Fate::{Acknowledged, Failed, Unknown};
    use super::*;

    fn attempts(fates: &[(u64, Fate)]) -> Vec<Attempt> {
        let attempt = |(number, fate): &(u64, Fate)| Attempt {
            number: *number,
            fate: *fate,
        };
        fates.iter().map(attempt).collect()
    }

    fn range(first: u64, last: u64) -> Range {
        Range { first, last }
    }

    /// Each list of the ledger as people read it, in the order of its fields.
    fn lists(ledger: &Ledger) -> [String; 5] {
        let Ledger {
            lost,
            recovered,
            absent,
            phantoms,
            duplicates,
            ..
        } = ledger;
        [lost, recovered, absent, phantoms, duplicates].map(|ranges| told(ranges))
    }

    #[test]
    fn promises_that_were_kept_are_in_no_list() {
        let all = attempts(&[(1, Acknowledged), (2, Failed), (3, Acknowledged)]);
        let ledger = reconcile(&all, &[3, 1]);
        assert_eq!(lists(&ledger), ["none"; 5]);
        let Ledger {
            acknowledged,
            failed,
            unknown,
            rows,
            ..
        } = ledger;
        assert_eq!((acknowledged, failed, unknown, rows), (2, 1, 0, 2));
    }

    #[test]
    fn acknowledged_and_not_there_is_lost() {
        let all = attempts(&[(4, Acknowledged), (5, Acknowledged), (6, Acknowledged)]);
        let ledger = reconcile(&all, &[6]);
        assert_eq!(lists(&ledger), ["4-5", "none", "none", "none", "none"]);
        assert_eq!(ledger.lost_count(), 2);
    }

    #[test]
    fn unknown_may_be_there_or_not() {
        let all = attempts(&[(1, Unknown), (2, Unknown), (3, Unknown)]);
        let ledger = reconcile(&all, &[2]);
        assert_eq!(lists(&ledger), ["none", "2", "1, 3", "none", "none"]);
        assert_eq!(ledger.unknown, 3);
    }

    #[test]
    fn failed_or_never_attempted_and_there_is_a_phantom() {
        let ledger = reconcile(&attempts(&[(1, Failed), (2, Failed)]), &[2, 9]);
        assert_eq!(lists(&ledger), ["none", "none", "none", "2, 9", "none"]);
        assert_eq!(ledger.phantom_count(), 2);
    }

    #[test]
    fn duplicates_are_counted_as_numbers_and_stay_in_their_class() {
        let all = attempts(&[(1, Acknowledged), (2, Unknown), (3, Failed)]);
        let ledger = reconcile(&all, &[1, 2, 3, 1, 2, 3, 1, 7]);
        assert_eq!(lists(&ledger), ["none", "2", "none", "3, 7", "1-3"]);
        assert_eq!((ledger.duplicate_count(), ledger.rows), (3, 8));
    }

    #[test]
    fn of_two_attempts_the_stronger_fate_counts() {
        for (one, other, counts) in [
            (Acknowledged, Unknown, Acknowledged),
            (Acknowledged, Failed, Acknowledged),
            (Unknown, Failed, Unknown),
        ] {
            let once = reconcile(&attempts(&[(1, counts)]), &[]);
            for twice in [[(1, one), (1, other)], [(1, other), (1, one)]] {
                assert_eq!(reconcile(&attempts(&twice), &[]), once);
            }
        }
    }

    #[test]
    fn only_an_acknowledged_write_proves_something() {
        for (fate, proves) in [(Acknowledged, true), (Failed, false), (Unknown, false)] {
            let ledger = reconcile(&attempts(&[(1, fate)]), &[]);
            assert_eq!(ledger.proves_something(), proves, "{fate:?}");
        }
        assert!(!reconcile(&[], &[1]).proves_something());
    }

    #[test]
    fn many_ranges_are_told_in_one_short_line() {
        assert_eq!(told(&[]), "none");
        assert_eq!(told(&[range(12, 12), range(40, 44)]), "12, 40-44");
        let mut all: Vec<Range> = (1..=8).map(|n| range(10 * n, 10 * n)).collect();
        assert_eq!(told(&all), "10, 20, 30, 40, 50, 60, 70, 80");
        all.push(range(90, 94));
        assert_eq!(told(&all), "10, 20, 30, 40, 50, 60, 70, 80 and 5 more");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let ledger = reconcile(&attempts(&[(u64::MAX, Acknowledged)]), &[0, u64::MAX - 1]);
        assert_eq!(ledger.lost, [range(u64::MAX, u64::MAX)]);
        assert_eq!(range(0, u64::MAX).count(), u64::MAX);
        assert_eq!(count(&[range(0, u64::MAX), range(1, 1)]), u64::MAX);
    }

    #[test]
    fn the_ledger_is_read_back_from_its_json() {
        let all = attempts(&[(1, Acknowledged), (2, Unknown)]);
        let json = serde_json::to_value((&all, reconcile(&all, &[]))).unwrap();
        assert_eq!(json[0][0]["fate"], "acknowledged");
        assert_eq!(
            json[1]["lost"],
            serde_json::json!([{"first": 1, "last": 1}])
        );
        let (read, ledger): (Vec<Attempt>, Ledger) = serde_json::from_value(json).unwrap();
        assert_eq!(reconcile(&read, &[]), ledger);
    }

    /// What is true of one number: the fate that counts, if it was attempted at all; whether it was
    /// attempted again with a weaker one; how many copies are there.
    type Truth = (Option<Fate>, bool, usize);

    fn truths() -> impl Strategy<Value = BTreeMap<u64, Truth>> {
        let fate = prop_oneof![
            4 => Just(Some(Acknowledged)),
            2 => Just(Some(Unknown)),
            2 => Just(Some(Failed)),
            1 => Just(None),
        ];
        let copies = prop_oneof![4 => Just(1_usize), 2 => Just(0), 1 => 2..4_usize];
        // Numbers with and without gaps, up to the largest.
        let offset = prop_oneof![Just(0), 0..50_u64, Just(u64::MAX - 60)];
        let truth = (fate, proptest::bool::weighted(0.1), copies);
        let by_number = proptest::collection::btree_map(0..60_u64, truth, 0..60);
        (offset, by_number).prop_map(|(offset, truths)| {
            let moved = |(number, truth)| (offset + number, truth);
            truths.into_iter().map(moved).collect()
        })
    }

    /// What the truth looks like to `reconcile`, in any order.
    fn seen(
        truths: &BTreeMap<u64, Truth>,
    ) -> impl Strategy<Value = (Vec<Attempt>, Vec<u64>)> + use<> {
        let mut all = Vec::new();
        let mut rows = Vec::new();
        for (number, (fate, is_repeated, copies)) in truths {
            all.extend(fate.map(|fate| (*number, fate)));
            if *is_repeated && fate.is_some() {
                let is_acknowledged = *fate == Some(Acknowledged);
                let weaker = if is_acknowledged { Unknown } else { Failed };
                all.push((*number, weaker));
            }
            rows.extend(std::iter::repeat_n(*number, *copies));
        }
        (
            Just(attempts(&all)).prop_shuffle(),
            Just(rows).prop_shuffle(),
        )
    }

    /// The numbers of ranges that are in order and as long as they can be.
    fn numbers(ranges: &[Range]) -> Result<BTreeSet<u64>, TestCaseError> {
        for range in ranges {
            prop_assert!(range.first <= range.last);
        }
        for pair in ranges.windows(2) {
            prop_assert!(pair[1].first - pair[0].last > 1, "{ranges:?}");
        }
        Ok(ranges.iter().flat_map(|r| r.first..=r.last).collect())
    }

    fn check(truths: &BTreeMap<u64, Truth>, ledger: &Ledger) -> Result<(), TestCaseError> {
        let true_of = |is_so: fn(&Truth) -> bool| -> BTreeSet<u64> {
            let all = truths.iter().filter(|(_, truth)| is_so(truth));
            all.map(|(number, _)| *number).collect()
        };
        let lost = true_of(|t| t.0 == Some(Acknowledged) && t.2 == 0);
        let phantoms = true_of(|t| t.0 != Some(Acknowledged) && t.0 != Some(Unknown) && t.2 > 0);
        let duplicates = true_of(|t| t.2 >= 2);
        prop_assert_eq!(ledger.lost_count(), lost.len() as u64);
        prop_assert_eq!(ledger.phantom_count(), phantoms.len() as u64);
        prop_assert_eq!(ledger.duplicate_count(), duplicates.len() as u64);
        prop_assert_eq!(numbers(&ledger.duplicates)?, duplicates);
        let kept = true_of(|t| t.0 == Some(Acknowledged) && t.2 > 0);
        let unwritten = true_of(|t| t.0 == Some(Failed) && t.2 == 0);
        let classes = [
            (numbers(&ledger.lost)?, lost),
            (
                numbers(&ledger.recovered)?,
                true_of(|t| t.0 == Some(Unknown) && t.2 > 0),
            ),
            (
                numbers(&ledger.absent)?,
                true_of(|t| t.0 == Some(Unknown) && t.2 == 0),
            ),
            (numbers(&ledger.phantoms)?, phantoms),
        ];
        let mut all: Vec<u64> = kept.into_iter().chain(unwritten).collect();
        for (said, truth) in classes {
            prop_assert_eq!(&said, &truth);
            all.extend(said);
        }
        // Every number in exactly one class.
        all.sort_unstable();
        prop_assert_eq!(
            all,
            true_of(|t| t.0.is_some() || t.2 > 0)
                .into_iter()
                .collect::<Vec<_>>()
        );
        prop_assert_eq!(
            ledger.acknowledged,
            true_of(|t| t.0 == Some(Acknowledged)).len()
        );
        prop_assert_eq!(ledger.failed, true_of(|t| t.0 == Some(Failed)).len());
        prop_assert_eq!(ledger.unknown, true_of(|t| t.0 == Some(Unknown)).len());
        prop_assert_eq!(ledger.rows, truths.values().map(|t| t.2).sum::<usize>());
        Ok(())
    }

    fn runner(cases: u32) -> TestRunner {
        TestRunner::new(Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        })
    }

    #[test]
    fn the_ledger_says_exactly_what_is_true_in_whatever_order() {
        let worlds = truths().prop_flat_map(|truths| (seen(&truths), Just(truths)));
        let run = runner(500).run(&worlds, |((attempts, rows), truths)| {
            check(&truths, &reconcile(&attempts, &rows))
        });
        run.unwrap();
    }

    #[test]
    fn one_lost_row_among_thousands_is_found() {
        let worlds = (1_000..5_000_u64).prop_flat_map(|count| (Just(count), 0..count));
        let run = runner(20).run(&worlds, |(count, lost)| {
            let all: Vec<_> = (0..count).map(|number| (number, Acknowledged)).collect();
            let rows: Vec<u64> = (0..count).rev().filter(|number| *number != lost).collect();
            let ledger = reconcile(&attempts(&all), &rows);
            prop_assert_eq!(&ledger.lost, &[range(lost, lost)]);
            prop_assert_eq!(lists(&ledger)[1..].to_vec(), ["none"; 4]);
            Ok(())
        });
        run.unwrap();
    }
}
