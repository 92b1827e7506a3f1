//! Values of single arguments, as clap reads them; a message never repeats what may be a secret.

use std::time::Duration;

use veza_probe::instance::InstanceName;
use veza_probe::secret::Secret;

/// The longest time that any setting may ask for: a day.
const LONGEST_S: f64 = 86_400.0;

#[expect(clippy::unnecessary_wraps, reason = "clap asks for a Result")]
pub(super) fn unseen(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= LONGEST_S => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "expected seconds, more than 0 and at most {LONGEST_S:.0}"
        )),
    }
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) if (1..=600_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err("expected whole milliseconds, 1 to 600000".to_owned()),
    }
}

pub(super) fn project_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if good {
        Ok(text.to_owned())
    } else {
        Err("expected the name of an Incus project: letters, digits, '-', '_', '.'".to_owned())
    }
}

/// Empty is no remote either, and must not come to mean this host's Incus.
pub(super) fn remote_name(text: &str) -> Result<String, String> {
    let good = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if good {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a remote of Incus' client: letters, digits, '-', '_', '.'; see `incus remote list`".to_owned())
    }
}

pub(super) fn node_instance(text: &str) -> Result<(String, InstanceName), String> {
    let (node, name) = text.split_once('=').ok_or("expected NODE=INSTANCE")?;
    if node.is_empty() {
        return Err("expected NODE=INSTANCE, with a node before the equals sign".to_owned());
    }
    Ok((
        node.to_owned(),
        InstanceName::new(name).map_err(|e| e.to_string())?,
    ))
}
