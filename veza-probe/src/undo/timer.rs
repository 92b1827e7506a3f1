//! A timer on the Incus host that undoes expired faults: without one, nothing would mend what a drill
//! over a remote leaves when its own host ends, or the way to it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Refusal;
use crate::clock::Clock;
use crate::incus::{Error, Incus, Place};

/// The key of a project that holds when `--recover --expired` last ran for it on the Incus host.
pub const TIMER_KEY: &str = "user.veza.timer";

/// The reason id of [`watched`].
pub(super) const NO_HOST_TIMER: &str = "no-host-timer";

/// How long ago the timer may have run last.
const FRESH_MIN: i64 = 5;

/// Refuses to break something over a remote whose host has no timer that undoes expired faults.
///
/// # Errors
/// [`Refusal`]; [`Refusal::is_missing_tool`] is true of it.
pub fn watched(
    place: &Place,
    (project, config): (&str, &BTreeMap<String, String>),
    now: Timestamp,
) -> Result<(), Refusal> {
    if place.is_local() {
        return Ok(());
    }
    let reason = match config.get(TIMER_KEY).map(String::as_str) {
        None | Some("") => format!(
            "no timer on the Incus host undoes expired faults of project {project} (it has no key {TIMER_KEY}): if this \
             host or the way there ended during the drill, nobody would"
        ),
        Some(text) => match text.parse::<Timestamp>() {
            Err(error) => format!("{TIMER_KEY} of project {project} is {text:?}, no time: {error}"),
            Ok(ran) => {
                let ago = now.duration_since(ran);
                if ago.abs() <= SignedDuration::from_mins(FRESH_MIN) {
                    return Ok(());
                }
                let (ago_s, when) = match ago.is_negative() {
                    false => (ago.as_secs(), "before"),
                    true => (-ago.as_secs(), "after"),
                };
                format!(
                    "the timer on the Incus host that undoes expired faults of project {project} last ran at {text}, {ago_s} \
                     s {when} this host's time; at most {FRESH_MIN} min may lie between"
                )
            }
        },
    };
    let next = "enable veza-recover.timer on the Incus host (docs/undo.md), and compare the clocks";
    Err(Refusal::new(NO_HOST_TIMER, reason, next))
}

/// Writes down that `--recover --expired` has just run for the project, when it ran on the Incus host.
///
/// # Errors
/// As every change of a project.
pub async fn timer_ran(incus: &Incus, clock: &Clock) -> Result<(), Error> {
    if !incus.place().is_local() {
        return Ok(());
    }
    let now = clock.wall(clock.at()).to_string();
    incus.set_project_key(TIMER_KEY, Some(&now)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(place: &Place, value: Option<&str>) -> Option<String> {
        let config = value.map(|value| (TIMER_KEY.to_owned(), value.to_owned()));
        let config = config.into_iter().collect();
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let refusal = watched(place, ("p", &config), now).err()?;
        assert_eq!(refusal.reason_id, "no-host-timer");
        assert!(refusal.is_missing_tool());
        Some(refusal.reason)
    }

    #[test]
    fn a_remote_needs_a_timer_that_ran_lately_by_both_clocks() {
        let remote = Place::Remote {
            name: "lab".to_owned(),
            folder: "/c".into(),
        };
        for good in [
            "2026-01-01T12:00:00Z",
            "2026-01-01T11:55:00Z",
            "2026-01-01T12:05:00Z",
            "2026-01-01T13:59:00+02:00",
        ] {
            assert_eq!(judged(&remote, Some(good)), None, "{good}");
        }
        for (bad, word) in [
            (None, "no key"),
            (Some(""), "no key"),
            (Some("armed"), "no time"),
            (Some("2026-01-01"), "no time"),
            (Some("2026-01-01T11:54:59Z"), "301 s before"),
            (Some("2026-01-01T12:05:01Z"), "301 s after"),
        ] {
            let words = judged(&remote, bad).unwrap();
            assert!(words.contains(word) && words.contains(" p"), "{words}");
        }
        assert_eq!(judged(&Place::Socket("/s".into()), None), None);
    }
}
