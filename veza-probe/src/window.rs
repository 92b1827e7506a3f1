//! The hours in which a drill may run: it must end inside them, with everything undone and whole again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

const DAY_S: i64 = 86_400;

/// A time of day from which to which drills may run, in UTC; it may span midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Seconds since midnight.
    from_s: i64,
    /// How long it is open, in seconds; at most a day.
    length_s: i64,
}

/// Not a window.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a window of the day: expected HH:MM-HH:MM in UTC, such as 22:30-04:00")]
pub struct InvalidWindow(String);

impl FromStr for Window {
    type Err = InvalidWindow;
    fn from_str(text: &str) -> Result<Window, InvalidWindow> {
        let bad = || InvalidWindow(text.to_owned());
        let (from, to) = text.split_once('-').ok_or_else(bad)?;
        let from_s = seconds(from).ok_or_else(bad)?;
        let to_s = seconds(to).ok_or_else(bad)?;
        let length_s = (to_s - from_s).rem_euclid(DAY_S);
        if length_s == 0 {
            return Err(bad());
        }
        Ok(Window { from_s, length_s })
    }
}

fn seconds(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |part: &str| {
        let plain = part.len() == 2 && part.chars().all(|c| c.is_ascii_digit());
        plain.then(|| part.parse::<i64>().ok())?
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to_s = (self.from_s + self.length_s).rem_euclid(DAY_S);
        let time = |s: i64| format!("{:02}:{:02}", s / 3600, s % 3600 / 60);
        write!(f, "{}-{} UTC", time(self.from_s), time(to_s))
    }
}

impl Window {
    /// Whether something that begins now and may take as long as `needed` ends inside.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn fits(&self, now: Timestamp, needed: Duration) -> Result<(), String> {
        let since_s = (now.as_second().rem_euclid(DAY_S) - self.from_s).rem_euclid(DAY_S);
        if since_s >= self.length_s {
            return Err(format!("it is {now}, outside of the window {self}"));
        }
        let left_s = self.length_s - since_s;
        let needed_s = i64::try_from(needed.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
        if needed_s > left_s {
            return Err(format!(
                "it may take {needed_s} s in all, and the window {self} closes in {left_s} s"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(window: &str, now: &str, needed_s: u64) -> Result<(), String> {
        let now = format!("2026-03-01T{now}Z").parse().unwrap();
        let window: Window = window.parse().unwrap();
        window.fits(now, Duration::from_secs(needed_s))
    }

    #[test]
    fn inside_at_the_edges_and_outside() {
        assert_eq!(fits("02:00-05:00", "02:00:00", 600), Ok(()));
        assert_eq!(fits("02:00-05:00", "04:50:00", 600), Ok(()));
        assert!(
            fits("02:00-05:00", "04:50:01", 600)
                .unwrap_err()
                .contains("closes in 599 s")
        );
        assert!(
            fits("02:00-05:00", "01:59:59", 1)
                .unwrap_err()
                .contains("outside")
        );
        assert!(
            fits("02:00-05:00", "05:00:00", 1)
                .unwrap_err()
                .contains("outside")
        );
    }

    #[test]
    fn a_window_may_span_midnight() {
        assert_eq!(fits("22:30-04:00", "23:59:59", 600), Ok(()));
        assert_eq!(fits("22:30-04:00", "00:10:00", 600), Ok(()));
        assert!(fits("22:30-04:00", "03:59:00", 600).is_err());
        assert!(fits("22:30-04:00", "12:00:00", 1).is_err());
        assert_eq!(
            "22:30-04:00".parse::<Window>().unwrap().to_string(),
            "22:30-04:00 UTC"
        );
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for bad in [
            "",
            "2-5",
            "02:00",
            "02:00-24:00",
            "02:60-03:00",
            "02:00-02:00",
            "2:00-3:00",
            "a:b-c:d",
            "+2:00-03:00",
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad:?}");
        }
    }
}
