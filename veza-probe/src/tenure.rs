//! Who took writes when, and whether two nodes did at once. Pure.
//!
//! Each node is asked again and again whether it takes a write, one question at a time. A write
//! that was acknowledged was taken at some moment between the beginning of its question and the
//! end, and when is not known. So two questions that overlap prove nothing, and what is said here
//! rests on the order of questions that do not:
//!
//! ```text
//!   handover     A  |-Took-| |-Took-|
//!                B                 |--Took--| |-Took-|             no overlap
//!   and back     A  |-Took-|      |-Refused-|      |-Took-|
//!                B           |-Took-|    |-Took-|                  no overlap
//!   a late one   A  |-Took-|                  |-Took-|
//!                B           |-Took-| |-Took-|      |-Took-|       overlap
//!   in turns     A  |-Took-|         |-Took-|
//!                B          |-Took-|         |-Took-|              overlap
//! ```
//! The last two look like a role that goes to and fro, with no refusal seen only because nobody
//! asked in time. No formation hands a role over and back so fast: the node that gives it up stops
//! its server, the other catches up and is promoted, and then all that once more the other way
//! round. So a node that took two writes within [`RETURN`], and did not refuse in between, had the
//! role all the time, and nobody else may take a write there. Over a longer silence that can't be
//! said: a node that was frozen or cut off may have lost the role and got it back unseen.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::{At, micros};
use crate::outage::{Between, Phase};

/// No formation hands its role over and back within this time. Two writes that a node took farther
/// apart don't prove that it had the role in between: nodes must be asked several times as often.
pub const RETURN: Duration = Duration::from_secs(3);

/// What a node answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A write was acknowledged without a warning.
    Took,
    /// The server answered and says no: it is read-only, or shuts down.
    Refused,
    /// A server is there, but no acknowledgement came in time (it waits for a standby), or it came
    /// with a warning. Such a server may have taken the write.
    Unacknowledged,
    /// No server answered: the connection was refused, or there is no socket.
    Absent,
    /// It could not be asked: the way to it is closed, or the instance is frozen or stopped.
    Unasked,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// When the question began.
    #[serde(rename = "began_us")]
    pub began: At,
    /// When the answer was known.
    #[serde(rename = "ended_us")]
    pub ended: At,
    /// What it was.
    pub answer: Answer,
    /// What was said, in one short line, for people.
    pub words: String,
}

/// What one node answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The node's name.
    pub node: String,
    /// In the order in which they began; none began before the one before had ended.
    pub asked: Vec<Asked>,
}

/// Two nodes took writes at once: that is certain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overlap {
    /// Their names, in the order of the tenures.
    pub nodes: [String; 2],
    /// No evidence of it is older.
    #[serde(rename = "earliest_us")]
    pub earliest: At,
    /// No evidence of it is newer.
    #[serde(rename = "latest_us")]
    pub latest: At,
    /// How many writes were acknowledged in it by the node that took fewer; at least 1.
    pub writes: usize,
    /// The node that was seen to stop while the other went on, so that its writes are in danger.
    /// None when neither did.
    pub losing: Option<String>,
}

/// When a node was fenced: from when on it can't take writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fenced {
    /// At some moment between these two, both included.
    Between {
        /// It was not fenced before: the fault, or the last server that may take writes.
        #[serde(rename = "earliest_us")]
        earliest: At,
        /// By then it had shown that it takes none, and nothing later speaks against it.
        #[serde(rename = "latest_us")]
        latest: At,
    },
    /// It was not seen to be: the last that was heard of it is a server that may take writes.
    No {
        /// When that question began.
        #[serde(rename = "last_seen_us")]
        last_seen: At,
    },
    /// No answer says anything.
    Unseen,
}

/// A run of writes of one node that proves that it had the role from the first to the last.
struct Span<'a> {
    node: &'a str,
    first: &'a Asked,
    last: &'a Asked,
    /// The end of the answer that showed that it takes no more; none when nothing did.
    stopped: Option<At>,
}

/// A stretch of time, both ends included; the first is not the later one.
type Stretch = (At, At);

impl Asked {
    fn took(&self) -> bool {
        self.answer == Answer::Took
    }

    /// It shows that the server does not take writes, or that there is none.
    fn shut(&self) -> bool {
        matches!(self.answer, Answer::Refused | Answer::Absent)
    }

    /// It lies wholly in a stretch.
    fn within(&self, (earliest, latest): Stretch) -> bool {
        earliest <= self.began && self.ended <= latest
    }
}

impl Span<'_> {
    /// The part in which it certainly had the role: the first write may have been taken as late as
    /// its end, the last as early as its beginning. A single write has none.
    fn certain(&self) -> Option<Stretch> {
        let stretch = (self.first.ended, self.last.began);
        (stretch.0 <= stretch.1).then_some(stretch)
    }

    /// It has to do with a stretch.
    fn touches(&self, (earliest, latest): Stretch) -> bool {
        self.first.began <= latest && earliest <= self.last.ended
    }

    /// It had stopped, and the other went on without a break.
    fn ended_before(&self, other: &Span) -> bool {
        self.stopped
            .is_some_and(|stopped| stopped <= other.last.began)
    }
}

/// The spans of a node, in order. [`Answer::Refused`] and [`Answer::Absent`] end one, and so does a
/// silence longer than [`RETURN`], from the earliest moment at which the write before it may have
/// been taken to the latest of the one after. The other answers prove nothing either way.
fn spans(tenure: &Tenure) -> Vec<Span<'_>> {
    let mut spans: Vec<Span> = Vec::new();
    for asked in &tenure.asked {
        match spans.last_mut() {
            Some(span) if asked.shut() => {
                span.stopped.get_or_insert(asked.ended);
            }
            Some(span)
                if asked.took()
                    && span.stopped.is_none()
                    && asked.ended.us_since(span.last.began) <= micros(RETURN) =>
            {
                span.last = asked;
            }
            _ if asked.took() => spans.push(Span {
                node: &tenure.node,
                first: asked,
                last: asked,
                stopped: None,
            }),
            _ => {}
        }
    }
    spans
}

/// Where two nodes certainly took writes at once, in the order of time: where one took a write,
/// from its beginning to its end, while the other certainly had the role, and where both certainly
/// had it. For each pair of nodes, what touches is one overlap. What is not in here may still have
/// been; what is in here was, as long as what is said of [`RETURN`] holds.
pub fn overlaps(tenures: &[Tenure]) -> Vec<Overlap> {
    let mut found = Vec::new();
    for (place, one) in tenures.iter().enumerate() {
        for other in tenures.iter().skip(place + 1) {
            found.extend(overlaps_of(one, other));
        }
    }
    found.sort_by_key(|overlap| (overlap.earliest, overlap.latest));
    found
}

fn overlaps_of(one: &Tenure, other: &Tenure) -> Vec<Overlap> {
    let (spans_of_one, spans_of_other) = (spans(one), spans(other));
    let mut evidence = writes_in(one, &spans_of_other);
    evidence.extend(writes_in(other, &spans_of_one));
    for mine in spans_of_one.iter().filter_map(Span::certain) {
        let theirs = spans_of_other.iter().filter_map(Span::certain);
        let common = theirs.map(|(from, to)| (mine.0.max(from), mine.1.min(to)));
        evidence.extend(common.filter(|(from, to)| from <= to));
    }
    let overlap = |stretch: Stretch| {
        let taken = |tenure: &Tenure| {
            let writes = tenure.asked.iter().filter(|asked| asked.took());
            writes.filter(|write| write.within(stretch)).count()
        };
        Overlap {
            nodes: [one.node.clone(), other.node.clone()],
            earliest: stretch.0,
            latest: stretch.1,
            writes: taken(one).min(taken(other)).max(1),
            losing: losing(&spans_of_one, &spans_of_other, stretch),
        }
    };
    merged(evidence).into_iter().map(overlap).collect()
}

/// The writes of a node that lie wholly in the certain part of a span of another.
fn writes_in(tenure: &Tenure, spans: &[Span]) -> Vec<Stretch> {
    let certain: Vec<Stretch> = spans.iter().filter_map(Span::certain).collect();
    let writes = tenure.asked.iter().filter(|asked| asked.took());
    writes
        .filter(|write| certain.iter().any(|stretch| write.within(*stretch)))
        .map(|write| (write.began, write.ended))
        .collect()
}

/// Joins what touches.
fn merged(mut stretches: Vec<Stretch>) -> Vec<Stretch> {
    stretches.sort_unstable();
    let mut all: Vec<Stretch> = Vec::new();
    for (earliest, latest) in stretches {
        match all.last_mut() {
            Some(last) if earliest <= last.1 => last.1 = last.1.max(latest),
            _ => all.push((earliest, latest)),
        }
    }
    all
}

/// The node whose last span in an overlap ended while the other's went on.
fn losing(one: &[Span], other: &[Span], overlap: Stretch) -> Option<String> {
    let one = one.iter().rfind(|span| span.touches(overlap))?;
    let other = other.iter().rfind(|span| span.touches(overlap))?;
    let loser = match (one.ended_before(other), other.ended_before(one)) {
        (true, _) => one,
        (_, true) => other,
        _ => return None,
    };
    Some(loser.node.to_owned())
}

/// When the old primary was fenced after a fault that was called at `zero`.
///
/// The upper bound is strict: only after the last answer of a server that may take writes does a
/// refusal, or that no server is there, show it fenced. An old primary that returns as a standby
/// only refuses, so an unacknowledged write after a refusal undoes the proof. But it may also be a
/// standby that was slow to refuse, so it does not move the lower bound, which is the beginning of
/// the last write taken, or of the last unacknowledged one that came before any refusal since.
///
/// A question that was under way at `zero` counts when it was refused, because the node took writes
/// before. A write may have been taken before `zero`, and says nothing.
pub fn fenced(tenure: &Tenure, zero: At) -> Fenced {
    let mut earliest = zero;
    // Whether anything showed it fenced since the last write taken.
    let mut was_shut = false;
    let mut state = Fenced::Unseen;
    for asked in tenure.asked.iter().filter(|asked| asked.ended >= zero) {
        match asked.answer {
            Answer::Refused | Answer::Absent => {
                was_shut = true;
                if !matches!(state, Fenced::Between { .. }) {
                    let latest = asked.ended;
                    state = Fenced::Between { earliest, latest };
                }
            }
            Answer::Took | Answer::Unacknowledged if asked.began >= zero => {
                if asked.took() {
                    was_shut = false;
                }
                if !was_shut {
                    earliest = asked.began;
                }
                let last_seen = asked.began;
                state = Fenced::No { last_seen };
            }
            Answer::Took | Answer::Unacknowledged | Answer::Unasked => {}
        }
    }
    state
}

/// When a node began to take writes after `since`: the bounds of that moment, none when it took
/// none. It is not before the beginning of the last answer that shows that it did not yet, an
/// unacknowledged write among them, and by the end of the first write that it took. A write that
/// was under way at `since` does not count: it may have been taken before.
pub fn first_write(tenure: &Tenure, since: At) -> Option<(At, At)> {
    let is_first = |asked: &Asked| asked.took() && asked.began >= since;
    let place = tenure.asked.iter().position(is_first)?;
    let first = tenure.asked.get(place)?;
    let before = tenure.asked.iter().take(place);
    let not_yet = before
        .rev()
        .find(|asked| asked.shut() || asked.answer == Answer::Unacknowledged);
    let earliest = not_yet.map_or(since, |asked| asked.began.max(since));
    Some((earliest, first.ended))
}

/// How many writes one node acknowledged while another one did, too; none when the `old` one did not answer
/// between `since` and `until`: nothing is known then of what it took by itself.
pub fn writes_at_once(tenures: &[Tenure], old: &Tenure, (since, until): (At, At)) -> Option<u64> {
    let answered = |asked: &Asked| {
        asked.answer != Answer::Unasked && asked.began >= since && asked.ended <= until
    };
    let writes = || overlaps(tenures).iter().map(|o| o.writes as u64).sum();
    old.asked.iter().any(answered).then(writes)
}

/// When the old primary had fenced itself after the fault at `zero`, which keeps two primaries apart: as a
/// phase, or as a note for people when it was not seen to.
pub fn fenced_phase(old: &Tenure, zero: At) -> (Option<Phase>, Option<String>) {
    let name = &old.node;
    match fenced(old, zero) {
        Fenced::Between { earliest, latest } => {
            let phase = Phase {
                name: "fenced".to_owned(),
                at: Between { earliest, latest },
                source: format!("{name} itself, asked to take a write"),
            };
            (Some(phase), None)
        }
        Fenced::No { last_seen } => {
            let seconds = last_seen.us_since(zero) as f64 / 1e6;
            let note = format!(
                "{name} was not seen to fence itself: {seconds:.2} s after the fault it still might \
                 have taken a write"
            );
            (None, Some(note))
        }
        Fenced::Unseen => (None, None),
    }
}

/// How long before the promotion the old one had fenced itself, for people: the margin that keeps two
/// apart. `role` is what the system calls them: `primary`, `master`.
pub fn margin(fenced: &Phase, promoted: &Phase, role: &str) -> String {
    let margin_s = promoted.at.earliest.us_since(fenced.at.latest) as f64 / 1e6;
    if margin_s >= 0.0 {
        format!("the old {role} had fenced itself at least {margin_s:.2} s before the promotion")
    } else {
        let late_s = -margin_s;
        format!("the old {role} was seen fenced only {late_s:.2} s after the promotion")
    }
}

#[cfg(test)]
mod tests;

/// Against generated ground truth: nodes whose times of taking writes are known, asked at random.
#[cfg(test)]
mod against_the_truth;
