//! Outages against generated ground truth: a simulated service whose true outages are known.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use super::*;
use crate::prober::{Failure, FailureKind, Outcome};

/// What the service does while it is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Answers everything with an error.
    Refusing,
    /// Frozen: goes on where it was when it is over.
    Stalling,
    /// Drops what reaches it and what it sends.
    Losing,
    /// All connections break when it begins; new ones are refused.
    Breaking,
    /// Takes connections, and lets actions wait until it is over.
    Waiting,
}

/// A true outage, `[start, end)` in microseconds.
#[derive(Clone, Copy, Debug)]
struct Truth {
    start: i64,
    end: i64,
    mode: Mode,
}

/// A service and its client; all times in microseconds.
#[derive(Clone, Debug)]
struct World {
    spacing: i64,
    limit: i64,
    connect_limit: i64,
    reconnect_every: i64,
    connections: i64,
    /// Probes are dispatched up to this late; below the spacing.
    late_max: i64,
    /// Whether single requests may take long without an outage.
    slow: bool,
    probes: i64,
    /// In the order of time, with gaps between them.
    truths: Vec<Truth>,
    seed: u64,
}

type Answer = Result<(), FailureKind>;

enum Event {
    Dispatch(u64),
    Answered(u64, i64, i64, Answer),
    Connect,
    /// When the server took the connection; none when it did not.
    Connected(Option<i64>),
}

struct Client<'a> {
    world: &'a World,
    /// By time and order of planning.
    events: BTreeMap<(i64, u64), Event>,
    planned: u64,
    random: u64,
    /// When the server took each connection that is not in use.
    idle: VecDeque<i64>,
    alive: i64,
    connecting: bool,
    last_attempt: i64,
    slow_until: i64,
    samples: Vec<Sample>,
}

impl World {
    /// The longest usual latency: full pools always have a connection free, even if one of them
    /// waits for a slow answer. So without an outage nothing fails.
    fn usual_max(&self) -> i64 {
        let serving = self.connections - i64::from(self.may_be_slow());
        (self.spacing * serving - self.late_max - 1)
            .min(2 * self.spacing)
            .min(self.limit / 2)
    }

    fn may_be_slow(&self) -> bool {
        self.slow && self.connections >= 3
    }

    fn detectable(&self) -> i64 {
        self.spacing + self.limit + self.late_max
    }

    /// How long after an outage the client may still fail because of it: what hangs must end,
    /// what is dead must be noticed, and all connections made again.
    fn tail(&self) -> i64 {
        let refill = self.reconnect_every + 2 * self.usual_max();
        let notice = (self.connections + 2) * (self.spacing + self.late_max);
        self.limit.max(self.connect_limit) + notice + self.connections * refill
    }

    fn truth_at(&self, at: i64) -> Option<&Truth> {
        self.truths
            .iter()
            .find(|truth| (truth.start..truth.end).contains(&at))
    }

    /// The end of an action that was sent at `start` on a connection that the server took at
    /// `made`, and takes `there` to the server and `back` from it.
    fn act(&self, start: i64, made: i64, there: i64, back: i64) -> (i64, Answer) {
        let deadline = start + self.limit;
        match self.act_without_limit(start, made, there, back) {
            Some((end, answer)) if end <= deadline => (end, answer),
            _ => (deadline, Err(FailureKind::Deadline)),
        }
    }

    fn act_without_limit(
        &self,
        start: i64,
        made: i64,
        there: i64,
        back: i64,
    ) -> Option<(i64, Answer)> {
        let breaks = |truth: &&Truth| truth.mode == Mode::Breaking && truth.start > made;
        let broken = self
            .truths
            .iter()
            .find(breaks)
            .map_or(i64::MAX, |truth| truth.start);
        if broken <= start {
            return Some((start + 100, Err(FailureKind::Broken)));
        }
        let mut at = start + there;
        while let Some(truth) = self.truth_at(at) {
            match truth.mode {
                Mode::Stalling | Mode::Waiting => at = truth.end,
                Mode::Losing => return None,
                Mode::Refusing => return Some((at + back, Err(FailureKind::Refused))),
                Mode::Breaking => return Some((broken.min(at), Err(FailureKind::Broken))),
            }
        }
        let mut end = at + back;
        for truth in self.truths.iter().filter(|truth| truth.start > at) {
            match truth.mode {
                Mode::Stalling if truth.start < end => end += truth.end - truth.start,
                Mode::Losing if truth.start < end => return None,
                _ => {}
            }
        }
        if broken < end {
            return Some((broken, Err(FailureKind::Broken)));
        }
        Some((end, Ok(())))
    }

    /// The end of an attempt to connect, and when the server took it.
    fn connect(&self, start: i64, there: i64, back: i64) -> (i64, Option<i64>) {
        let mut at = start + there;
        while let Some(truth) = self.truth_at(at) {
            match truth.mode {
                Mode::Stalling => at = truth.end,
                Mode::Waiting => break,
                Mode::Losing => return (start + self.connect_limit, None),
                Mode::Refusing | Mode::Breaking => return (at + back, None),
            }
        }
        let limit = start + self.connect_limit;
        if at + back <= limit {
            (at + back, Some(at))
        } else {
            (limit, None)
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let mut client = Client {
            world: self,
            events: BTreeMap::new(),
            planned: 0,
            random: self.seed,
            // Before the first probe all connections stand.
            idle: (0..self.connections).map(|_| -1).collect(),
            alive: self.connections,
            connecting: false,
            last_attempt: i64::MIN / 2,
            slow_until: 0,
            samples: Vec::new(),
        };
        let mut start = 0;
        for number in 0..self.probes {
            start = start.max(number * self.spacing + client.up_to(self.late_max));
            client.plan(start, Event::Dispatch(number as u64));
        }
        while let Some(((now, _), event)) = client.events.pop_first() {
            client.happen(now, &event);
        }
        client.samples
    }
}

impl Client<'_> {
    /// A number from 0 to `max`, by splitmix64.
    fn up_to(&mut self, max: i64) -> i64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % (max as u64 + 1)) as i64
    }

    fn plan(&mut self, at: i64, event: Event) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
    }

    fn record(&mut self, number: u64, start: i64, end: i64, answer: Answer) {
        let due = At(number as i64 * self.world.spacing);
        let outcome = match answer {
            Ok(()) => Outcome::Success,
            Err(kind) => Outcome::Failure(Failure {
                kind,
                text: String::new(),
            }),
        };
        self.samples.push(Sample {
            number,
            due,
            start: At(start),
            end: At(end),
            outcome,
        });
    }

    fn happen(&mut self, now: i64, event: &Event) {
        match *event {
            Event::Dispatch(number) => self.dispatch(now, number),
            Event::Answered(number, start, made, answer) => {
                match answer {
                    Ok(()) => self.idle.push_back(made),
                    Err(_) => self.alive -= 1,
                }
                self.record(number, start, now, answer);
            }
            Event::Connect => {
                self.last_attempt = now;
                let half = self.world.usual_max() / 2;
                let (there, back) = (self.up_to(half), self.up_to(half));
                let (end, taken) = self.world.connect(now, there, back);
                self.plan(end, Event::Connected(taken));
                return;
            }
            Event::Connected(taken) => {
                self.connecting = false;
                self.alive += i64::from(taken.is_some());
                self.idle.extend(taken);
            }
        }
        let is_over = (self.samples.len() as i64) == self.world.probes;
        if self.alive < self.world.connections && !self.connecting && !is_over {
            self.connecting = true;
            self.plan(
                now.max(self.last_attempt + self.world.reconnect_every),
                Event::Connect,
            );
        }
    }

    fn dispatch(&mut self, now: i64, number: u64) {
        let Some(made) = self.idle.pop_front() else {
            self.record(number, now, now, Err(FailureKind::NoConnection));
            return;
        };
        let usual = self.world.usual_max();
        let is_slow = self.world.may_be_slow() && now >= self.slow_until && self.up_to(9) == 0;
        let longest = if is_slow {
            self.world.limit * 9 / 10
        } else {
            usual
        };
        let latency = self.up_to(longest.max(usual));
        let there = self.up_to(latency);
        let (end, answer) = self.world.act(now, made, there, latency - there);
        if is_slow {
            self.slow_until = end;
        }
        self.plan(end, Event::Answered(number, now, made, answer));
    }
}

/// Lengths are drawn in thousandths of what they are compared with, so that they shrink.
fn worlds() -> impl Strategy<Value = World> {
    let mode = prop_oneof![
        Just(Mode::Refusing),
        Just(Mode::Stalling),
        Just(Mode::Losing),
        Just(Mode::Breaking),
        Just(Mode::Waiting),
    ];
    // Gap in spacings, length in detectable lengths.
    let gap = prop_oneof![1..3_000_i64, 3_000..120_000_i64];
    let length = prop_oneof![1..1_000_i64, 950..1_100_i64, 1_000..4_000_i64];
    let truths = prop::collection::vec((gap, length, mode), 0..5);
    let rhythm = (5_000..50_000_i64, 1_000..12_000_i64, 0..900_i64);
    let pool = (1..=6_i64, 500..3_000_i64, 1_000..6_000_i64);
    (rhythm, pool, truths, 0..80_i64, any::<bool>(), any::<u64>()).prop_map(
        |((spacing, limit, late), (connections, connect, every), drawn, rest, slow, seed)| {
            let limit = spacing * limit / 1_000;
            let mut world = World {
                spacing,
                limit,
                connect_limit: limit * connect / 1_000,
                reconnect_every: spacing * every / 1_000,
                connections,
                late_max: spacing * late / 1_000,
                slow,
                probes: 0,
                truths: Vec::new(),
                seed,
            };
            let mut at = 3 * spacing;
            for (gap, length, mode) in drawn {
                let start = at + spacing * gap / 1_000;
                at = start + (world.detectable() * length / 1_000).max(1);
                world.truths.push(Truth {
                    start,
                    end: at,
                    mode,
                });
            }
            world.probes = at / spacing + rest;
            world
        },
    )
}

fn contains(outage: &Outage, truth: &Truth) -> bool {
    outage.started_after.is_none_or(|s0| s0.0 <= truth.start)
        && outage.ended_by.is_none_or(|s1| s1.0 >= truth.end)
}

/// When the client sent the first action that succeeded after an outage: it can't know of an
/// earlier return of the service.
fn known_end(samples: &[Sample], truth: &Truth) -> i64 {
    let after = samples
        .iter()
        .filter(|s| s.is_success() && s.start.0 >= truth.end);
    after.map(|sample| sample.start.0).min().unwrap_or(i64::MAX)
}

/// The claims of this module about one detectable outage; returns whether it stands alone.
fn check_detectable(
    world: &World,
    samples: &[Sample],
    found: &[Outage],
    truth: &Truth,
) -> Result<bool, TestCaseError> {
    let outage = found.iter().find(|outage| contains(outage, truth));
    prop_assert!(outage.is_some(), "{truth:?} was not found in {found:#?}");
    let Some(outage) = outage else {
        return Ok(false);
    };
    // Never back while it lasts, on what has finished by then; and never before its end.
    let by_then = |sample: &&Sample| sample.end.0 < truth.end;
    let finished: Vec<Sample> = samples.iter().filter(by_then).cloned().collect();
    prop_assert_eq!(
        service_back(&finished, At(truth.start), Duration::ZERO),
        None
    );
    let back = service_back(samples, At(truth.start), Duration::ZERO);
    prop_assert!(
        back.is_none_or(|back| back.0 >= truth.end),
        "{back:?} within {truth:?}"
    );
    let tail = world.tail();
    let s0 = outage.started_after.map_or(i64::MIN, |at| at.0);
    let s1 = outage.ended_by.map_or(i64::MAX, |at| at.0);
    let touches = |other: &&Truth| other.start <= s1 && other.end + tail >= s0;
    let touched: Vec<&Truth> = world.truths.iter().filter(touches).collect();
    let (first, last) = (touched[0], touched[touched.len() - 1]);
    let longest = known_end(samples, last).saturating_sub(first.start);
    prop_assert!(
        outage.length.lower_us <= longest,
        "{outage:?} against {touched:?}"
    );
    if touched.len() > 1 {
        return Ok(false);
    }
    // Alone, so each bound is about this one.
    let known_end = known_end(samples, truth);
    prop_assert!(
        outage.started_by.0 >= truth.start,
        "{outage:?} against {truth:?}"
    );
    prop_assert!(
        outage.ended_after.0 <= known_end,
        "{outage:?} against {truth:?}"
    );
    prop_assert!(
        outage
            .length
            .upper_us
            .is_none_or(|us| us >= truth.end - truth.start)
    );
    // What a client can know is not late, unless the next outage or the end of probing is near.
    let calm = truth.end..=truth.end + tail;
    let is_calm = !world.truths.iter().any(|other| calm.contains(&other.start))
        && samples
            .last()
            .is_some_and(|sample| !calm.contains(&sample.start.0));
    prop_assert!(
        !is_calm || calm.contains(&known_end),
        "{known_end} is late for {truth:?}"
    );
    Ok(true)
}

fn check_hull(found: &[Outage]) -> Result<(), TestCaseError> {
    let whole = hull(found);
    prop_assert_eq!(whole.is_none(), found.is_empty());
    for (whole, outage) in whole.iter().cycle().zip(found) {
        prop_assert!(whole.lower_us >= outage.length.lower_us);
        prop_assert!(whole.upper_us.is_none_or(|upper| upper >= whole.lower_us));
        // An upper bound of the whole is one of each part.
        let part = outage.length.upper_us;
        prop_assert!(
            whole
                .upper_us
                .is_none_or(|us| part.is_some_and(|part| part <= us))
        );
    }
    Ok(())
}

/// Checks a world; returns how many detectable outages it had, and how many of them alone.
fn check(world: &World) -> Result<(u64, u64), TestCaseError> {
    let samples = world.samples();
    prop_assert_eq!(samples.len() as i64, world.probes);
    let found = outages(&samples);
    for outage in &found {
        let Interval { lower_us, upper_us } = outage.length;
        prop_assert!(lower_us >= 0 && upper_us.is_none_or(|upper| lower_us <= upper));
        prop_assert!(outage.failed > 0 && outage.first_failed_due <= outage.last_failed_due);
        prop_assert!(
            outage
                .started_after
                .is_none_or(|s0| s0 <= outage.started_by)
        );
        prop_assert!(outage.ended_by.is_none_or(|s1| s1 >= outage.ended_after));
    }
    let failed = samples.iter().filter(|sample| !sample.is_success()).count() as u64;
    prop_assert_eq!(
        found.iter().map(|outage| outage.failed).sum::<u64>(),
        failed
    );
    // Nothing fails without an outage, and so none is reported.
    for sample in samples.iter().filter(|sample| !sample.is_success()) {
        let caused = |truth: &Truth| {
            truth.start <= sample.end.0 && sample.start.0 <= truth.end + world.tail()
        };
        prop_assert!(world.truths.iter().any(caused), "{sample:?} has no cause");
    }
    let mut sorted = samples;
    sorted.sort_by_key(|sample| sample.number);
    let last_start = sorted.last().map_or(i64::MIN, |sample| sample.start.0);
    let (mut detectable, mut alone) = (0, 0);
    for truth in &world.truths {
        let is_inside = truth.end <= last_start;
        if is_inside && truth.end - truth.start > world.detectable() {
            detectable += 1;
            alone += u64::from(check_detectable(world, &sorted, &found, truth)?);
        }
    }
    check_hull(&found)?;
    Ok((detectable, alone))
}

#[test]
fn detectable_outages_are_found_and_lie_inside_their_bounds() {
    let cases = 2_500;
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let seen = Cell::new((0, 0, 0));
    let run = TestRunner::new(config).run(&worlds(), |world| {
        let (detectable, alone) = check(&world)?;
        let (worlds, all, singles) = seen.get();
        let is_quiet = u64::from(world.truths.is_empty());
        seen.set((worlds + is_quiet, all + detectable, singles + alone));
        Ok(())
    });
    match run {
        Ok(()) => {}
        Err(TestError::Fail(reason, world)) => panic!("{reason}\n{world:#?}"),
        Err(error) => panic!("{error}"),
    }
    // The worlds are not empty of what is claimed about them.
    let (quiet, detectable, alone) = seen.get();
    assert!(
        quiet >= 100 && detectable >= 500 && alone >= 100,
        "{:?}",
        seen.get()
    );
}
