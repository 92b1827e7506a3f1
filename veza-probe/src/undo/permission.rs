//! Where a drill may run: only where somebody has said so, in Incus itself.

use std::collections::BTreeMap;

use super::Refusal;
use crate::fault::{Kind, WORDS};

/// The key of a project or an instance that says which faults may be made there: `allowed` for all,
/// or their words, separated by commas. An instance's own key rules over its project's.
pub const DRILL_KEY: &str = "user.veza.drill";

/// The key of a project that forbids all drills while it is set, whatever else is allowed.
pub const HALT_KEY: &str = "user.veza.halt";

/// Refuses what nobody has allowed: `project` is the project's config, `instances` that of each target,
/// with its name.
///
/// # Errors
/// [`Refusal`], with the command that a person who may decide it would give.
pub fn permitted(
    kind: &Kind,
    project: (&str, &BTreeMap<String, String>),
    instances: &[(&str, &BTreeMap<String, String>)],
) -> Result<(), Refusal> {
    let (name, config) = project;
    if let Some(words) = config.get(HALT_KEY).filter(|v| !v.is_empty()) {
        let reason = format!("{HALT_KEY} of project {name} forbids all drills: {words}");
        let next = format!("ask whoever set it; then: incus project unset {name} {HALT_KEY}");
        return Err(Refusal::new("halted", reason, next));
    }
    if !kind.breaks() {
        return Ok(());
    }
    for (instance, own) in instances {
        let of_instance = own.get(DRILL_KEY).filter(|v| !v.is_empty());
        let of_project = config.get(DRILL_KEY).filter(|v| !v.is_empty());
        let (value, whose) = match (of_instance, of_project) {
            (Some(value), _) => (value.as_str(), format!("instance {instance}")),
            (None, Some(value)) => (value.as_str(), format!("project {name}")),
            (None, None) => ("", format!("project {name}")),
        };
        if !allows(value, kind) {
            return Err(not_allowed(kind, (name, instance), value, &whose));
        }
    }
    Ok(())
}

fn allows(value: &str, kind: &Kind) -> bool {
    value
        .split(',')
        .map(str::trim)
        .any(|word| word == "allowed" || word == kind.word())
}

fn not_allowed(
    kind: &Kind,
    (project, instance): (&str, &str),
    value: &str,
    whose: &str,
) -> Refusal {
    let word = kind.word();
    let reason = match value {
        "" => format!(
            "nobody has allowed drills here: neither project {project} nor instance {instance} has \
             the key {DRILL_KEY}"
        ),
        _ => format!(
            "{DRILL_KEY} of {whose} is {value:?}, which does not allow {word} on {instance} (words: \
             allowed, {})",
            WORDS.join(", ")
        ),
    };
    let next = format!("whoever may decide it: incus project set {project} {DRILL_KEY}={word}");
    Refusal::new("not-permitted", reason, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn judged(kind: &str, project: &[(&str, &str)], instance: &[(&str, &str)]) -> Option<String> {
        let kind = kind.parse().unwrap();
        let (project, instance) = (config(project), config(instance));
        let refused = permitted(&kind, ("p", &project), &[("a", &instance)]);
        refused
            .err()
            .map(|r| format!("{}: {} {}", r.reason_id, r.reason, r.next))
    }

    #[test]
    fn only_what_somebody_allowed() {
        let allowed = [(DRILL_KEY, "allowed")];
        let some = [(DRILL_KEY, "stop, kill")];
        assert_eq!(judged("stop", &allowed, &[]), None);
        assert_eq!(judged("kill:u", &some, &[]), None);
        assert_eq!(judged("none", &[], &[]), None, "nothing is broken");
        for (kind, project, instance) in [
            ("stop", &[][..], &[][..]),
            ("stop", &[(DRILL_KEY, "")], &[]),
            ("stop", &[(DRILL_KEY, "false")], &[]),
            ("stop", &[(DRILL_KEY, "stopped")], &[]),
            ("freeze", &some, &[]),
            ("kill-restart:u", &some, &[]),
            // An instance may forbid what its project allows.
            ("stop", &allowed, &[(DRILL_KEY, "never")]),
        ] {
            let refused = judged(kind, project, instance).unwrap();
            let begins = "not-permitted: ";
            assert!(
                refused.starts_with(begins) && refused.contains(DRILL_KEY),
                "{refused}"
            );
        }
        assert_eq!(judged("stop", &[(DRILL_KEY, "freeze")], &some), None);
    }

    #[test]
    fn a_halt_outranks_every_permission() {
        let project = [(DRILL_KEY, "allowed"), (HALT_KEY, "release day")];
        for kind in ["stop", "none"] {
            let refused = judged(kind, &project, &[(DRILL_KEY, "allowed")]).unwrap();
            assert!(refused.starts_with("halted: "), "{refused}");
            assert!(refused.contains("release day"), "{refused}");
        }
        assert_eq!(
            judged("stop", &[(DRILL_KEY, "allowed"), (HALT_KEY, "")], &[]),
            None
        );
    }
}
