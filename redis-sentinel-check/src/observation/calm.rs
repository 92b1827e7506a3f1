//! What a drill on sentinels promises: that nothing happened. Each answer is known only where somebody was seen
//! to look. Pure.

use veza_probe::clock::At;
use veza_probe::prober::Sample;
use veza_probe::tenure::{Answer, Tenure};

use super::sentinels::Said;

/// A stretch of time, both ends included.
pub type Stretch = (At, At);

/// The events that begin or make a failover.
const FAILOVER: [&str; 4] = [
    "+try-failover",
    "+elected-leader",
    "+promoted-slave",
    "+switch-master",
];

/// How many failovers sentinels told of since the fault, as events about this master; none when not every one
/// of the `living` was heard to notice, while the fault was in, that another one is away.
pub fn failovers(said: &[Said], living: &[&str], master: &str, held: Stretch) -> Option<u64> {
    let noticed = |event: &Said| event.event == "+sdown" && event.about.starts_with("sentinel ");
    let told = |event: &&Said| event.at.1 >= held.0 && FAILOVER.contains(&event.event.as_str());
    let all = said.iter().filter(|event| event.is_about(master));
    let count = all.filter(told).count() as u64;
    heard_by_all(said, living, held, noticed).then_some(count)
}

/// How many promotions there were while the master was held without a quorum: events, and servers beside the
/// `old` one that took a write. None when not every living sentinel was heard to call the master down, or not
/// every other server was asked; and when it was held for too short a time, of which nothing can be said.
pub fn promotions(
    (said, living, master): (&[Said], &[&str], &str),
    (rivals, old): (&[Tenure], &str),
    held: Stretch,
) -> Option<u64> {
    let noticed = |event: &Said| {
        event.event == "+sdown" && event.about.starts_with("master ") && event.is_about(master)
    };
    let promoted = |event: &&Said| {
        let is_one = event.event == "+promoted-slave" || event.event == "+switch-master";
        is_one && inside(event.at.1, held) && event.is_about(master)
    };
    let mut count = said.iter().filter(promoted).count() as u64;
    for rival in rivals.iter().filter(|rival| rival.node != old) {
        let asked = rival.asked.iter();
        let mut asked = asked.filter(|asked| asked.began >= held.0 && asked.ended <= held.1);
        if asked.clone().all(|asked| asked.answer == Answer::Unasked) {
            return None;
        }
        count += u64::from(asked.any(|asked| asked.answer == Answer::Took));
    }
    heard_by_all(said, living, held, noticed).then_some(count)
}

fn inside(at: At, (from, to): Stretch) -> bool {
    from <= at && at <= to
}

/// Whether each of them said such a thing in that time.
fn heard_by_all(
    said: &[Said],
    living: &[&str],
    held: Stretch,
    noticed: impl Fn(&Said) -> bool,
) -> bool {
    let heard = |name: &&str| {
        said.iter()
            .any(|event| event.sentinel == **name && inside(event.at.1, held) && noticed(event))
    };
    !living.is_empty() && living.iter().all(heard)
}

/// How many probes failed that were begun and ended in a stretch; none when there was none.
pub fn failed(samples: &[Sample], stretch: Stretch) -> Option<u64> {
    count(samples, stretch, |sample| !sample.is_success())
}

/// How many succeeded; none when there was none.
pub fn succeeded(samples: &[Sample], stretch: Stretch) -> Option<u64> {
    count(samples, stretch, Sample::is_success)
}

fn count(samples: &[Sample], (from, to): Stretch, such: impl Fn(&Sample) -> bool) -> Option<u64> {
    let in_it = |sample: &&Sample| sample.due >= from && sample.end <= to;
    let mut all = samples.iter().filter(in_it).peekable();
    all.peek()?;
    Some(all.filter(|sample| such(sample)).count() as u64)
}

#[cfg(test)]
mod tests {
    use veza_probe::prober::{Failure, FailureKind, Outcome};
    use veza_probe::tenure::Asked;

    use super::*;

    const HELD: Stretch = (At(100), At(200));

    fn said(at: i64, sentinel: &str, event: &str, about: &str) -> Said {
        Said {
            sentinel: sentinel.into(),
            event: event.into(),
            about: about.into(),
            at: (At(at - 1), At(at)),
        }
    }

    const OTHER: &str = "sentinel abc 10.0.0.1 26379 @ m 10.0.0.2 6379";

    #[test]
    fn no_failover_is_known_only_from_those_who_noticed() {
        let living = ["r2", "r3"];
        let noticed = |name| said(150, name, "+sdown", OTHER);
        let quiet = vec![noticed("r2"), noticed("r3")];
        assert_eq!(failovers(&quiet, &living, "m", HELD), Some(0));
        // One of them was not heard, or only too early, or too late.
        for at in [99, 201] {
            let unheard = [noticed("r2"), said(at, "r3", "+sdown", OTHER)];
            assert_eq!(failovers(&unheard, &living, "m", HELD), None);
        }
        assert_eq!(failovers(&[], &living, "m", HELD), None);
        assert_eq!(failovers(&quiet, &[], "m", HELD), None);
        let with = |event: Said| {
            let all = [quiet.clone(), vec![event]].concat();
            failovers(&all, &living, "m", HELD)
        };
        let tried = "master m 10.0.0.2 6379";
        assert_eq!(with(said(150, "r2", "+try-failover", tried)), Some(1));
        // After the heal, too: the return of a sentinel must cause none.
        assert_eq!(with(said(300, "r2", "+try-failover", tried)), Some(1));
        assert_eq!(with(said(50, "r2", "+try-failover", tried)), Some(0));
        let other = "master other 10.0.0.9 6379";
        assert_eq!(with(said(150, "r2", "+try-failover", other)), Some(0));
    }

    fn rival(node: &str, answers: &[(i64, Answer)]) -> Tenure {
        let asked = |(at, answer): &(i64, Answer)| Asked {
            began: At(*at),
            ended: At(at + 5),
            answer: *answer,
            words: String::new(),
        };
        Tenure {
            node: node.to_owned(),
            asked: answers.iter().map(asked).collect(),
        }
    }

    #[test]
    fn no_promotion_is_known_only_where_the_master_was_called_down_and_every_other_was_asked() {
        let down = said(150, "r2", "+sdown", "master m 10.0.0.2 6379");
        let refused = |node| rival(node, &[(120, Answer::Refused), (160, Answer::Refused)]);
        let quiet = vec![
            rival("r1", &[(120, Answer::Absent)]),
            refused("r2"),
            refused("r3"),
        ];
        let of = |said: &[Said], rivals: &[Tenure]| {
            promotions((said, &["r2"], "m"), (rivals, "r1"), HELD)
        };
        let heard = [down.clone()];
        assert_eq!(of(&heard, &quiet), Some(0));
        assert_eq!(of(&[], &quiet), None);
        // That only a sentinel is away is not what it is about.
        assert_eq!(of(&[said(150, "r2", "+sdown", OTHER)], &quiet), None);
        let switched = said(160, "r2", "+switch-master", "m 10.0.0.2 6379 10.0.0.3 6379");
        assert_eq!(of(&[down, switched], &quiet), Some(1));
        let took = |at| {
            let two = rival("r2", &[(120, Answer::Refused), (at, Answer::Took)]);
            of(&heard, &[two, refused("r3")])
        };
        assert_eq!(took(160), Some(1));
        // After the heal that is another matter.
        assert_eq!(took(300), Some(0));
        let unasked = rival("r3", &[(120, Answer::Unasked), (300, Answer::Refused)]);
        assert_eq!(of(&heard, &[refused("r2"), unasked]), None);
    }

    #[test]
    fn probes_are_counted_that_lie_wholly_in_the_stretch() {
        let sample = |at: i64, good: bool| Sample {
            number: 0,
            due: At(at),
            start: At(at),
            end: At(at + 5),
            outcome: match good {
                true => Outcome::Success,
                false => Outcome::Failure(Failure {
                    kind: FailureKind::Refused,
                    text: String::new(),
                }),
            },
        };
        let samples = [
            sample(90, false),
            sample(100, true),
            sample(150, false),
            sample(195, true),
            // It may have failed by what came next.
            sample(198, false),
        ];
        assert_eq!(failed(&samples, HELD), Some(1));
        assert_eq!(succeeded(&samples, HELD), Some(2));
        assert_eq!(failed(&samples, (At(300), At(400))), None);
    }
}
