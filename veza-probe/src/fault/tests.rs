//! What a fault is before it is made, and how healing without a server ends.

use std::collections::BTreeMap;

use super::*;

fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

fn target(text: &str, init_pid: i64) -> Target {
    Target {
        instance: name(text),
        init_pid,
    }
}

fn device(pairs: &[(&str, &str)]) -> Device {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    pairs.iter().map(owned).collect()
}

fn instance(own: &[(&str, Device)], expanded: &[(&str, Device)]) -> Instance {
    let devices = |all: &[(&str, Device)]| {
        let owned = |(name, device): &(&str, Device)| ((*name).to_owned(), device.clone());
        all.iter().map(owned).collect::<BTreeMap<_, _>>()
    };
    Instance {
        name: name("pg-a"),
        status: Status::Running,
        init_pid: 10,
        config: device(&[("volatile.eth0.hwaddr", "00:16:3e:00:00:01")]),
        expanded_config: BTreeMap::new(),
        devices: devices(own),
        expanded_devices: devices(expanded),
        nics: vec![crate::incus::Nic {
            name: "eth0".into(),
            ipv4: vec![std::net::Ipv4Addr::new(198, 18, 0, 12)],
        }],
    }
}

const PINNED: [(&str, &str); 5] = [
    ("type", "nic"),
    ("network", "br"),
    ("hwaddr", "00:16:3e:00:00:02"),
    ("ipv4.address", "198.18.0.12"),
    ("mtu", "1400"),
];

#[test]
fn a_pinned_device_is_kept_whole_and_every_device_is_masked() {
    let nic = device(&PINNED);
    let disk = device(&[("type", "disk"), ("path", "/")]);
    let all = [("eth0", nic.clone()), ("eth1", nic.clone()), ("root", disk)];
    let steps = partition::steps("p", &target("pg-a", 10), &instance(&all, &all)).unwrap();
    let found: Vec<_> = steps
        .iter()
        .map(|step| match step {
            UndoStep::SetDevice { device, found, .. } => (device.as_str(), found),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(found, [("eth0", &nic), ("eth1", &nic)]);
}

#[test]
fn a_device_that_would_change_is_refused_with_the_command_that_pins_it() {
    let inherited = [("eth0", device(&PINNED))];
    let loose = [("eth0", device(&[("type", "nic"), ("network", "br")]))];
    for (own, expanded, verb) in [
        (&[][..], &inherited[..], "override"),
        (&[][..], &loose[..], "override"),
        (&loose[..], &loose[..], "set"),
    ] {
        let refused = partition::steps("p", &target("pg-a", 10), &instance(own, expanded));
        let unfit = refused.unwrap_err();
        assert_eq!(unfit.reason_id(), "device-not-pinned");
        let hwaddr = expanded[0].1.get("hwaddr").map(String::as_str);
        let hwaddr = hwaddr.unwrap_or("00:16:3e:00:00:01");
        let expected = format!(
            "incus --project p config device {verb} pg-a eth0 hwaddr={hwaddr} \
             ipv4.address=198.18.0.12"
        );
        assert_eq!(unfit.next("p"), expected);
    }
    let none = partition::steps("p", &target("pg-a", 10), &instance(&[], &[]));
    assert!(matches!(none, Err(Unfit::NoDevice { .. })));
}

#[test]
fn a_restart_by_incus_is_neutralised_and_set_back_as_it_was_found() {
    let mut found = instance(&[], &[]);
    let mut notes = Vec::new();
    let target = target("pg-a", 10);
    assert_eq!(stop::steps(&target, &found, &mut notes).len(), 1);
    assert!(notes.is_empty());
    found.expanded_config = device(&[("boot.autorestart", "true")]);
    // From a profile: its own key is removed again afterwards.
    let steps = stop::steps(&target, &found, &mut notes);
    let UndoStep::SetKey { found: own, .. } = &steps[1] else {
        panic!("{steps:?}")
    };
    assert_eq!(*own, None);
    found.config = found.expanded_config.clone();
    let steps = stop::steps(&target, &found, &mut notes);
    let UndoStep::SetKey { found: own, .. } = &steps[1] else {
        panic!("{steps:?}")
    };
    assert_eq!(own.as_deref(), Some("true"));
    assert!(notes[0].contains("boot.autorestart"));
}

fn plan(kind: Kind, steps: Vec<UndoStep>) -> Plan {
    Plan {
        system: "formation default".into(),
        kind,
        targets: vec![target("pg-a", 10), target("pg-b", 20)],
        later: Vec::new(),
        ttl_s: 90,
        undo: Undo { steps },
        notes: Vec::new(),
    }
}

fn one_of_each() -> Vec<UndoStep> {
    let target = target("pg-a", 10);
    let unit = Unit::new("u").unwrap();
    vec![
        UndoStep::Start {
            target: target.clone(),
        },
        UndoStep::Unfreeze {
            target: target.clone(),
        },
        UndoStep::SetDevice {
            target: target.clone(),
            device: "eth0".into(),
            found: device(&PINNED),
        },
        UndoStep::SetKey {
            target: target.clone(),
            key: "boot.autorestart".into(),
            found: None,
            during: "false".into(),
        },
        UndoStep::RemoveDropIn {
            target: target.clone(),
            unit: unit.clone(),
        },
        UndoStep::StartUnit {
            target,
            unit,
            invocation: Some("abc".into()),
        },
        UndoStep::Answers {
            pulse: Pulse {
                from: None,
                name: "pg-a".into(),
                address: "198.18.0.12:5432".parse().unwrap(),
                protocol: crate::pulse::Protocol::Postgres,
            },
        },
    ]
}

#[test]
fn plan_and_undo_are_plain_data() {
    let plan = plan(Kind::Kill(Unit::new("u").unwrap()), one_of_each());
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    assert_eq!(plan.told(), "kill u.service in pg-a, pg-b");
    let told = plan.undo.told();
    assert!(told.starts_with("start pg-a, unfreeze pg-a, give pg-a its device eth0 back"));
    assert!(!told.contains("protocol"), "{told}");
    assert_eq!(Undo::default().told(), "nothing to undo");
}

#[test]
fn one_step_that_was_not_done_is_not_undone() {
    let step = |done| HealedStep {
        step: "start a".into(),
        began: At(0),
        done,
        words: "busy".into(),
    };
    let all = Healed {
        steps: vec![step(Some(At(1)))],
    };
    assert!(all.undone() && all.trouble().is_empty());
    let one = Healed {
        steps: vec![step(Some(At(1))), step(None)],
    };
    assert!(!one.undone());
    assert_eq!(one.trouble(), "start a: busy");
}

#[tokio::test]
async fn healing_without_a_server_ends_at_its_limit_and_says_why() {
    let incus = Incus::new(std::path::Path::new("/nowhere/unix.socket"), "p").unwrap();
    let clock = Clock::start();
    let mut steps = one_of_each();
    // The last one asks the network, which this test leaves alone.
    steps.pop();
    let undo = Undo { steps };
    let healed = heal(&incus, &clock, &undo, Duration::from_millis(300)).await;
    assert!(!healed.undone());
    assert_eq!(healed.steps.len(), 6);
    for step in &healed.steps {
        assert!(step.words.contains("/nowhere"), "{step:?}");
    }
}
