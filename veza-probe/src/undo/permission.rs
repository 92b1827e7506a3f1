//! Where a drill may run: only where somebody has said so, in Incus itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::Refusal;
use crate::clock;
use crate::fault::{Kind, WORDS};
use crate::incus::Incus;

/// How often it is looked whether drills are forbidden by now.
const HALT_EVERY: Duration = Duration::from_secs(1);

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

/// The key that makes a project a lab; its value is the lab's id.
const LAB_KEY: &str = "user.veza.lab";

/// The variable that names the lab's credentials file.
const CREDENTIALS: &str = "VEZA_LAB_CREDENTIALS";

/// Whether a project is a lab of this user's: its id is that of the lab's credentials file, which only
/// its owner can read. `lookup` is `std::env::var_os` but in tests.
pub fn is_lab(
    config: &BTreeMap<String, String>,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> bool {
    let id = config.get(LAB_KEY).filter(|id| !id.is_empty());
    let path = lookup(CREDENTIALS).filter(|path| !path.is_empty());
    let text = path.and_then(|path| std::fs::read_to_string(path).ok());
    let file: Option<toml::Table> = text.and_then(|text| text.parse().ok());
    let known = file.as_ref().and_then(|file| file.get("lab_id")?.as_str());
    id.is_some() && id.map(String::as_str) == known
}

/// Refuses to break what nobody has confirmed: outside a lab the system's name is asked for, on the
/// command line or on the terminal (`typed`), or `--yes` says that a schedule has been agreed on.
///
/// # Errors
/// [`Refusal`], with the flag.
pub fn confirmed(
    system: &str,
    in_lab: bool,
    yes: bool,
    typed: Option<&str>,
) -> Result<(), Refusal> {
    if in_lab || yes || typed.is_some_and(|typed| typed.trim() == system) {
        return Ok(());
    }
    let reason = match typed {
        Some(typed) => format!("{typed:?} is not the system that would be broken: {system}"),
        None => {
            format!("{system} is not in a lab, and nobody has confirmed that it may be broken now")
        }
    };
    let next = format!("--confirm {system:?}, or --yes from a schedule");
    Err(Refusal::new("not-confirmed", reason, next))
}

/// Waits until somebody forbids all drills of the project; returns the words. Incus that does not
/// answer forbids nothing: a fault may have taken it along.
pub async fn halted(incus: &Incus) -> String {
    loop {
        let config = incus.project_config().await.unwrap_or_default();
        if let Some(words) = config.get(HALT_KEY).filter(|words| !words.is_empty()) {
            return words.clone();
        }
        clock::sleep(HALT_EVERY).await;
    }
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

    #[test]
    fn a_lab_is_known_by_its_credentials_alone() {
        let path = std::env::temp_dir().join(format!("veza-lab-id-{}", std::process::id()));
        std::fs::write(&path, "lab_id = \"abc\"\n[secrets]\nx = \"y\"\n").unwrap();
        let with = |name: &str| (name == CREDENTIALS).then(|| path.clone().into());
        assert!(is_lab(&config(&[(LAB_KEY, "abc")]), with));
        assert!(!is_lab(&config(&[(LAB_KEY, "abd")]), with));
        assert!(!is_lab(&config(&[(LAB_KEY, "")]), with));
        assert!(!is_lab(&config(&[]), with));
        assert!(!is_lab(&config(&[(LAB_KEY, "abc")]), |_| None));
        std::fs::write(&path, "lab_id = ").unwrap();
        assert!(!is_lab(&config(&[(LAB_KEY, "abc")]), with));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_lab(&config(&[(LAB_KEY, "abc")]), with));
    }

    #[test]
    fn outside_a_lab_somebody_must_say_so() {
        let system = "formation default/0 in project p";
        assert!(confirmed(system, true, false, None).is_ok());
        assert!(confirmed(system, false, true, None).is_ok());
        assert!(
            confirmed(
                system,
                false,
                false,
                Some("formation default/0 in project p\n")
            )
            .is_ok()
        );
        for typed in [None, Some(""), Some("y"), Some("formation default/0")] {
            let refused = confirmed(system, false, false, typed).unwrap_err();
            assert_eq!(refused.reason_id, "not-confirmed");
            assert!(refused.next.contains(system), "{refused:?}");
        }
    }
}
