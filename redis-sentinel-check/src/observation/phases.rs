//! What the group did, phase by phase, each from its own source. Pure.

use veza_probe::clock::At;
use veza_probe::outage::{Between, Outage, Phase};

use super::follower::Record;
use super::sentinels::Said;

/// The phases of a failover that sentinels publish: name, event, and how what it is about begins.
const PUBLISHED: [(&str, &str, &str); 5] = [
    ("suspected", "+sdown", "master "),
    ("detected", "+odown", "master "),
    ("elected", "+elected-leader", "master "),
    ("promoted", "+promoted-slave", "slave "),
    ("switched", "+switch-master", ""),
];

/// What phases are of.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The master, as the sentinels name it.
    pub master: &'a str,
    /// When the fault was called.
    pub zero: At,
    /// When its heal began.
    pub healed: Option<At>,
}

/// The phases after a fault.
pub fn phases(said: &[Said], record: &Record, outages: &[Outage], about: About) -> Vec<Phase> {
    let after = |event: &'static str| {
        let later = said.iter().filter(|said| said.at.1 >= about.zero);
        later.filter(move |said| said.event == event && said.is_about(about.master))
    };
    let mut phases = Vec::new();
    for (name, event, begins) in PUBLISHED {
        let first = after(event).find(|said| said.about.starts_with(begins));
        phases.extend(first.map(|said| from_said(name, said, about.zero)));
    }
    phases.extend(writable(outages, about.zero));
    let until = about.healed.unwrap_or(At(i64::MAX));
    let mut done = after("+slave-reconf-done").filter(|said| said.at.1 < until);
    phases.extend(
        done.next_back()
            .map(|said| from_said("replicas repointed", said, about.zero)),
    );
    phases.extend(about.healed.and_then(|healed| redundant(record, healed)));
    phases.sort_by_key(|phase| phase.at.latest);
    phases
}

/// The new masters, each once however many sentinels told of it, in order: `198.18.0.22:6379`. More than one
/// is a failover that followed a failover.
pub fn switches(said: &[Said], about: About) -> Vec<String> {
    let mut all = Vec::new();
    let later = said.iter().filter(|said| said.at.1 >= about.zero);
    for said in later.filter(|said| said.event == "+switch-master") {
        let words: Vec<&str> = said.about.split_whitespace().collect();
        let [name, _, _, to, to_port] = words.as_slice() else {
            continue;
        };
        let told = format!("{to}:{to_port}");
        if *name == about.master && !all.contains(&told) {
            all.push(told);
        }
    }
    all
}

/// What was published after the fault was not published before it.
fn from_said(name: &str, said: &Said, zero: At) -> Phase {
    Phase {
        name: name.to_owned(),
        at: Between {
            earliest: said.at.0.max(zero),
            latest: said.at.1,
        },
        source: format!("sentinel {}: {}", said.sentinel, said.told()),
    }
}

/// Probes succeeded again: after the last that failed, by the first success.
fn writable(outages: &[Outage], zero: At) -> Option<Phase> {
    let since = |o: &&Outage| o.first_failed_due >= zero || o.started_by >= zero;
    let last = outages.iter().rfind(since)?;
    Some(Phase {
        name: "writable".to_owned(),
        at: Between {
            earliest: last.ended_after,
            latest: last.ended_by?,
        },
        source: "client".to_owned(),
    })
}

/// The group was whole: after the last look that missed something, by the first that did not.
fn redundant(record: &Record, healed: At) -> Option<Phase> {
    let (missing, whole) = record.whole_again(healed);
    Some(Phase {
        name: "redundant again".to_owned(),
        at: Between {
            earliest: missing.map_or(healed, |look| look.asked),
            latest: whole?.answered,
        },
        source: "all sentinels and servers, asked at once".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::follower::Looked;
    use super::*;

    fn said(at: i64, event: &str, about: &str) -> Said {
        Said {
            sentinel: "r2".into(),
            event: event.into(),
            about: about.into(),
            at: (At(at - 10), At(at)),
        }
    }

    fn looked(at: i64, whole: bool) -> Looked {
        Looked {
            asked: At(at),
            answered: At(at + 2),
            whole: match whole {
                true => Ok("r2".to_owned()),
                false => Err("x".to_owned()),
            },
        }
    }

    #[test]
    fn a_failover_has_its_phases_in_order() {
        let heard = [
            said(50, "+sdown", "master m 10.0.0.1 6379"),
            said(
                195,
                "+sdown",
                "slave 10.0.0.1:6379 10.0.0.1 6379 @ other 10.0.0.9 6379",
            ),
            said(200, "+sdown", "master m 10.0.0.1 6379"),
            said(210, "+odown", "master m 10.0.0.1 6379 #quorum 2/2"),
            said(220, "+elected-leader", "master m 10.0.0.1 6379"),
            said(
                300,
                "+promoted-slave",
                "slave 10.0.0.2:6379 10.0.0.2 6379 @ m 10.0.0.1 6379",
            ),
            said(
                400,
                "+slave-reconf-done",
                "slave 10.0.0.3:6379 10.0.0.3 6379 @ m 10.0.0.1 6379",
            ),
            said(410, "+switch-master", "m 10.0.0.1 6379 10.0.0.2 6379"),
            said(
                900,
                "+slave-reconf-done",
                "slave 10.0.0.1:6379 10.0.0.1 6379 @ m 10.0.0.2 6379",
            ),
        ];
        let record = Record {
            looks: vec![looked(500, false), looked(700, false), looked(800, true)],
            ..Record::default()
        };
        let about = About {
            master: "m",
            zero: At(100),
            healed: Some(At(600)),
        };
        let found = phases(&heard, &record, &[], about);
        let named: Vec<_> = found
            .iter()
            .map(|p| (p.name.as_str(), p.at.earliest.0, p.at.latest.0))
            .collect();
        let expected = [
            ("suspected", 190, 200),
            ("detected", 200, 210),
            ("elected", 210, 220),
            ("promoted", 290, 300),
            ("replicas repointed", 390, 400),
            ("switched", 400, 410),
            ("redundant again", 700, 802),
        ];
        assert_eq!(named, expected);
        assert_eq!(switches(&heard, about), ["10.0.0.2:6379"]);
        let later = About {
            zero: At(500),
            ..about
        };
        assert!(switches(&heard, later).is_empty());
        let again = said(500, "+switch-master", "m 10.0.0.2 6379 10.0.0.3 6379");
        let twice = [heard.as_slice(), &[again.clone(), again]].concat();
        assert_eq!(switches(&twice, about).len(), 2);
    }
}
