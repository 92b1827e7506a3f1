//! Whether a sentinel tried a failover so recently that it would wait before the next one. Its log knows;
//! nothing that it answers does.
//!
//! A sentinel that stood for election or gave its vote starts no failover of that master for 2 ×
//! failover-timeout (`sentinelStartFailoverIfNeeded`). A switch to another master forgets that, and so does
//! a start of the sentinel.

use std::time::Duration;

use jiff::civil::DateTime;
use veza_probe::incus::Incus;
use veza_probe::instance::InstanceName;

/// How long reading a log may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How times are written in the log, and by `date` in the script.
const FORMAT: &str = "%d %b %Y %H:%M:%S";

/// Prints the time in the instance, then the end of the sentinel's log: its journal, or else the file that
/// its configuration names. `$0` is the unit.
const SCRIPT: &str = "LC_ALL=C date '+%d %b %Y %H:%M:%S'; \
    log=$(journalctl --quiet --no-pager --output=cat --lines=2000 --unit=\"$0\"); \
    case $log in *:X\\ *) printf '%s\\n' \"$log\"; exit 0;; esac; \
    for conf in /etc/redis/sentinel.conf /etc/sentinel.conf; do \
        file=$(sed -n 's/^logfile *//p' \"$conf\" 2>/dev/null | tr -d '\"' | tail -n 1); \
        if [ -r \"$file\" ]; then tail -c 200000 \"$file\"; exit 0; fi; \
    done; \
    echo 'neither in the journal nor in the file that its configuration names' >&2; exit 1";

/// How long ago the last try was that still counts, in seconds; none when there is none.
///
/// # Errors
/// Why the log can't be read.
pub async fn last_try_s(
    incus: &Incus,
    instance: &InstanceName,
    unit: &str,
) -> Result<Option<f64>, String> {
    let argv = ["sh", "-c", SCRIPT, unit];
    let read = incus.exec(instance, &argv, LIMIT).await;
    let read = read.map_err(|error| error.to_string())?;
    if read.code != 0 {
        return Err(format!(
            "reading the log of {unit} in {instance} ended with {}: {}",
            read.code,
            read.stderr.trim()
        ));
    }
    let told = format!("the log of {unit} in {instance}");
    counts(&read.stdout).map_err(|words| format!("{told}: {words}"))
}

/// Reads what the script printed.
fn counts(text: &str) -> Result<Option<f64>, String> {
    let (now, log) = text.split_once('\n').unwrap_or((text, ""));
    let now = DateTime::strptime(FORMAT, now.trim());
    let now = now.map_err(|error| format!("the time there can't be read: {error}"))?;
    if log.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut last = None;
    for line in log.lines() {
        let has = |word: &str| line.contains(word);
        if has(" +switch-master ") || has(" Sentinel ID is ") {
            last = None;
        } else if has(" +try-failover ") || has(" +vote-for-leader ") {
            last = written(line).or(last);
        }
    }
    let ago = |at: DateTime| now.duration_since(at).as_secs_f64();
    Ok(last.map(ago).map(|ago_s| ago_s.max(0.0)))
}

/// `317:X 24 Nov 2026 22:40:01.123 # +try-failover master veza 198.18.0.21 6379`
fn written(line: &str) -> Option<DateTime> {
    let mut words = line.split_whitespace().skip(1);
    let parts: Vec<&str> = words.by_ref().take(4).collect();
    let text = parts.join(" ");
    let text = text.split('.').next().unwrap_or_default();
    DateTime::strptime(FORMAT, text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[(&str, &str)]) -> Result<Option<f64>, String> {
        let line =
            |(time, words): &(&str, &str)| format!("317:X 24 Nov 2026 {time}.123 # {words}\n");
        let lines: String = lines.iter().map(line).collect();
        counts(&format!("24 Nov 2026 22:41:00\n{lines}"))
    }

    const TRY: &str = "+try-failover master veza 198.18.0.21 6379";
    const VOTE: &str = "+vote-for-leader 0a1b 7";

    #[test]
    fn a_try_or_a_vote_counts_until_a_switch_or_a_start() {
        let started = ("22:39:00", "Sentinel ID is 0a1b");
        assert_eq!(log(&[started]), Ok(None));
        assert_eq!(log(&[started, ("22:40:30", TRY)]), Ok(Some(30.0)));
        assert_eq!(
            log(&[("22:40:30", TRY), ("22:40:50", VOTE)]),
            Ok(Some(10.0))
        );
        let switch = (
            "22:40:40",
            "+switch-master veza 198.18.0.21 6379 198.18.0.22 6379",
        );
        assert_eq!(log(&[("22:40:30", TRY), switch]), Ok(None));
        assert_eq!(log(&[switch, ("22:40:50", VOTE)]), Ok(Some(10.0)));
        assert_eq!(log(&[("22:40:30", TRY), ("22:40:40", started.1)]), Ok(None));
    }

    #[test]
    fn what_can_not_be_read_is_no_proof() {
        assert!(counts("").is_err());
        assert!(counts("24 Nov 2026 22:41:00\n").is_err());
        assert!(counts("heute\n317:X 24 Nov 2026 22:40:30.1 # +tilt\n").is_err());
    }
}
