//! Values of single arguments, as clap reads them.

use std::time::Duration;

use veza_probe::instance::InstanceName;

/// The longest time that any setting may ask for: a day.
const LONGEST_S: f64 = 86_400.0;

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
