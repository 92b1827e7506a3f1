//! What the formation did, phase by phase, each from its own source. Pure.

use veza_probe::clock::At;
use veza_probe::outage::{Between, Outage, Phase, service_phase};

use super::follower::{MonitorEvent, Record};

/// States in which a node that was not primary takes writes or is about to
/// (`CanTakeWritesInState`, pg_auto_failover 2.2).
const WRITABLE: [&str; 3] = ["wait_primary", "primary", "single"];

/// The phases after a fault that was called at `zero` and whose heal began at `healed`. Beside the
/// client's outages those of the nodes themselves, where the client goes through a pooler.
pub fn phases(
    record: &Record,
    old_primary: i64,
    (outages, direct): (&[Outage], Option<&[Outage]>),
    zero: At,
    healed: Option<At>,
) -> Vec<Phase> {
    let after = || record.events.iter().filter(|event| event.seen >= zero);
    let detected = after().find(|e| e.node == old_primary && e.assigned != "primary");
    let promoted =
        after().find(|e| e.node != old_primary && WRITABLE.contains(&e.reported.as_str()));
    let mut phases = Vec::new();
    phases.extend(detected.map(|event| from_event("detected", event)));
    phases.extend(promoted.map(|event| from_event("promoted", event)));
    match direct {
        None => phases.extend(service_phase("writable", "client", outages, zero)),
        Some(direct) => {
            let asked = "the nodes, asked whether they would take a write";
            phases.extend(service_phase("writable", asked, direct, zero));
            let through = "client, through the pooler";
            phases.extend(service_phase("pooler follows", through, outages, zero));
        }
    }
    phases.extend(healed.and_then(|healed| redundant(record, healed)));
    phases
}

/// Whether another node than the old primary was made to take writes.
pub fn promotes(record: &Record, old_primary: i64) -> bool {
    let promoted =
        |e: &MonitorEvent| e.node != old_primary && WRITABLE.contains(&e.reported.as_str());
    record.events.iter().any(promoted)
}

fn from_event(name: &str, event: &MonitorEvent) -> Phase {
    let (earliest, latest) = event.at;
    let source = format!("monitor's event {}: {}", event.id, event.told());
    Phase {
        name: name.to_owned(),
        at: Between { earliest, latest },
        source,
    }
}

/// The formation was whole: after the last look that missed something, by the first that did not.
fn redundant(record: &Record, healed: At) -> Option<Phase> {
    let (missing, whole) = record.whole_again(healed);
    let earliest = missing.map_or(healed, |look| look.asked);
    let at = Between {
        earliest,
        latest: whole?.answered,
    };
    let source = "monitor's view of all nodes".to_owned();
    Some(Phase {
        name: "redundant again".to_owned(),
        at,
        source,
    })
}

#[cfg(test)]
mod tests {
    use veza_probe::outage::Interval;

    use super::super::follower::Look;
    use super::*;

    fn event(id: i64, at: i64, node: i64, reported: &str, assigned: &str) -> MonitorEvent {
        MonitorEvent {
            id,
            at: (At(at - 1), At(at + 1)),
            seen: At(at + 5),
            node,
            name: format!("node-{node}"),
            reported: reported.into(),
            assigned: assigned.into(),
            description: String::new(),
        }
    }

    #[test]
    fn a_failover_has_its_phases_in_order() {
        let events = vec![
            event(1, 10, 1, "primary", "primary"),
            event(2, 300, 2, "secondary", "prepare_promotion"),
            event(3, 300, 1, "primary", "draining"),
            event(4, 900, 2, "stop_replication", "wait_primary"),
            event(5, 910, 2, "wait_primary", "wait_primary"),
        ];
        let look = |at, missing: bool| Look {
            asked: At(at),
            answered: At(at + 2),
            missing: missing.then(String::new),
            nodes: Vec::new(),
        };
        let looks = vec![look(1000, true), look(1200, true), look(1400, false)];
        let record = Record {
            events,
            looks,
            ..Record::default()
        };
        let found = phases(&record, 1, (&[], None), At(100), Some(At(1100)));
        let named: Vec<_> = found
            .iter()
            .map(|p| (p.name.as_str(), p.at.earliest.0, p.at.latest.0))
            .collect();
        let expected = [
            ("detected", 299, 301),
            ("promoted", 909, 911),
            ("redundant again", 1200, 1402),
        ];
        assert_eq!(named, expected);
    }

    fn outage(from: i64, to: i64) -> Outage {
        Outage {
            first_failed_due: At(from),
            last_failed_due: At(to),
            failed: 2,
            started_after: Some(At(from - 10)),
            started_by: At(from + 10),
            ended_after: At(to),
            ended_by: Some(At(to + 20)),
            length: Interval::new(to - from - 10, Some(to - from + 30)),
        }
    }

    #[test]
    fn a_pooler_follows_after_the_nodes_take_writes() {
        let (direct, through) = ([outage(100, 500)], [outage(100, 900)]);
        let record = Record::default();
        let found = phases(&record, 1, (&through, Some(&direct)), At(50), None);
        let named: Vec<_> = found
            .iter()
            .map(|p| (p.name.as_str(), p.at.earliest.0, p.at.latest.0))
            .collect();
        assert_eq!(
            named,
            [("writable", 500, 520), ("pooler follows", 900, 920)]
        );
    }

    #[test]
    fn what_happened_before_the_fault_is_no_phase_of_it() {
        let events = vec![event(1, 10, 1, "primary", "draining")];
        let record = Record {
            events,
            ..Record::default()
        };
        assert!(phases(&record, 1, (&[], None), At(100), None).is_empty());
    }
}
