//! What healing does: what each version of each object lacks on which drive, and how long until it lacks nothing, by
//! itself first and then asked for.

pub mod look;
pub mod written;
pub mod healer;
pub mod rot;
pub mod acts;

use veza_probe::clock::At;
use veza_probe::verdict::Measured;

use look::{Look, by_drive};

/// A heal that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// When.
    pub asked: At,
    /// When it said that it was done.
    pub done: At,
    /// What it said then.
    pub summary: String,
    /// At how many versions it had looked.
    pub looked_at: usize,
    /// The versions that a drive got back: key, version, drive.
    pub mended: Vec<(String, String, String)>,
    /// What it could not do: key and reason.
    pub failed: Vec<String>,
}

/// All that was seen of one healing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How many versions there must be.
    pub expected: usize,
    /// When the fault began to be healed.
    pub returned: Option<At>,
    /// When every drive was there again, for every node.
    pub online: Option<At>,
    /// When a look was asked for last that did not reach every drive.
    pub unreached: Option<At>,
    /// How long nothing was asked for, in microseconds, so that healing could begin by itself.
    pub patience_us: i64,
    /// What a dry run said, again and again.
    pub looks: Vec<Look>,
    /// How many of the looks were made before anything was asked for.
    pub alone: usize,
    /// The heals that were asked for.
    pub asks: Vec<Ask>,
    /// What went wrong while looking.
    pub trouble: Vec<String>,
    /// Nodes whose drive came back another one, or empty, and nobody of us had done that.
    pub replaced: Vec<String>,
}

impl Record {
    /// How many versions lacked something when it was first looked; none before that.
    pub fn lacking_at_first(&self) -> Option<usize> {
        self.looks
            .first()
            .map(|look| self.expected - look.whole.min(self.expected))
    }

    /// How many versions lack something now; all of them where nobody could look.
    pub fn lacking_now(&self) -> usize {
        let whole = self.looks.last().map_or(0, |look| look.whole);
        self.expected - whole.min(self.expected)
    }

    /// Whether the last look found everything whole.
    pub fn is_whole(&self) -> bool {
        self.looks.last().is_some_and(Look::is_whole)
    }

    /// Whether it was whole before anything was asked for.
    pub fn healed_alone(&self) -> bool {
        let alone = self.looks.get(..self.alone).unwrap_or_default();
        alone.last().is_some_and(Look::is_whole)
    }

    /// From a moment until everything was whole, in seconds; open at the end while it is not.
    pub fn whole_after(&self, since: At) -> Option<Measured> {
        self.looks.first()?;
        let until = self
            .looks
            .iter()
            .rev()
            .take_while(|look| look.is_whole())
            .last();
        let before = self.looks.iter().rev().find(|look| !look.is_whole());
        let seconds = |at: At| at.us_since(since).max(0) as f64 / 1e6;
        let before = before.map(|look| look.asked).or(self.unreached);
        let lower = before.map_or(0.0, seconds);
        let upper = until.map(|look| seconds(look.answered));
        Some(Measured { lower, upper })
    }

    /// From the return, or, where it was not whole by itself, from when a heal was first asked for, until everything was
    /// whole: what a promise can be about, without the time in which nobody asked.
    pub fn redundancy(&self) -> Option<Measured> {
        let asked = self.asks.first().map(|ask| ask.asked);
        let since = match asked {
            Some(asked) if !self.healed_alone() => asked,
            _ => self.returned?,
        };
        self.whole_after(since)
    }

    /// The whole story, for people.
    pub fn told(&self, since: At) -> Vec<String> {
        let mut lines = Vec::new();
        let seconds = |at: At| at.us_since(since) as f64 / 1e6;
        if let Some(online) = self.online.filter(|_| self.returned.is_some()) {
            lines.push(format!(
                "every drive was there again {:.1} s after the heal",
                seconds(online)
            ));
        }
        let of = self.expected;
        if let Some(first) = self.looks.first() {
            lines.push(match self.lacking_at_first().unwrap_or(0) {
                0 => format!("when every drive was reached first, none of {of} versions lacked anything"),
                lacking => format!(
                    "at first {lacking} of {of} versions lacked something ({}), {:.1} s after the heal",
                    by_drive(&first.drives),
                    seconds(first.answered)
                ),
            });
        }
        let alone = self.looks.get(..self.alone).unwrap_or_default();
        if let Some(last) = alone
            .last()
            .filter(|_| self.patience_us > 0 && self.lacking_at_first() != Some(0))
        {
            let left = of - last.whole.min(of);
            lines.push(if last.is_whole() {
                let took = self.looks.iter().find(|look| look.is_whole());
                let took = took.map_or(0.0, |look| seconds(look.answered));
                format!("by itself everything was whole {took:.1} s after the heal")
            } else {
                let waited = self.patience_us as f64 / 1e6;
                let lacking = self.lacking_at_first().unwrap_or(0);
                let by_itself = lacking.saturating_sub(left);
                let when = alone.iter().find(|look| look.whole >= last.whole);
                let when = when.filter(|_| by_itself > 0).map(|look| seconds(look.answered));
                let when = when.map(|at| format!(" (the last {at:.1} s after the heal)"));
                format!(
                    "by itself {by_itself} of these {lacking} became whole{} within the {waited:.0} s that were \
                     waited: {left} still lacked something",
                    when.unwrap_or_default()
                )
            });
        }
        for (number, ask) in self.asks.iter().enumerate() {
            let took = ask.done.us_since(ask.asked) as f64 / 1e6;
            let after = self.looks.iter().find(|look| look.asked >= ask.done);
            let whole = after.map_or("unknown".to_owned(), |look| look.whole.to_string());
            let failed = match ask.failed.first() {
                None => String::new(),
                Some(first) => format!("; it failed at {}, first {first}", ask.failed.len()),
            };
            lines.push(format!(
                "asked heal {}: {} after {took:.1} s, {} versions looked at, {} shards mended; then {whole} of {of} \
                 were whole{failed}",
                number + 1,
                ask.summary,
                ask.looked_at,
                ask.mended.len()
            ));
        }
        if let Some(last) = self.looks.last().filter(|look| !look.is_whole()) {
            lines.push(format!("not whole in the end: {}", last.told(of)));
        }
        lines.extend(self.replaced.iter().cloned());
        lines.extend(self.trouble.iter().cloned());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at_s: i64, whole: usize, expected: usize) -> Look {
        let asked = At(at_s * 1_000_000);
        let mut look = Look::blank((asked, At(asked.0 + 500_000)), expected);
        look.whole = whole;
        look
    }

    fn record(looks: &[(i64, usize)], alone: usize) -> Record {
        Record {
            expected: 10,
            returned: Some(At(1_000_000)),
            online: Some(At(2_000_000)),
            looks: looks
                .iter()
                .map(|(at, whole)| look(*at, *whole, 10))
                .collect(),
            alone,
            patience_us: 60_000_000,
            ..Record::default()
        }
    }

    fn ask(asked_s: i64) -> Ask {
        Ask {
            asked: At(asked_s * 1_000_000),
            done: At(asked_s * 1_000_000 + 900_000),
            summary: "finished".to_owned(),
            looked_at: 10,
            mended: Vec::new(),
            failed: Vec::new(),
        }
    }

    #[test]
    fn healed_by_itself_is_counted_from_the_return() {
        let record = record(&[(2, 4), (4, 8), (6, 10)], 3);
        assert_eq!(
            (record.lacking_at_first(), record.lacking_now()),
            (Some(6), 0)
        );
        assert!(record.is_whole() && record.healed_alone());
        let measured = record.redundancy().unwrap();
        assert_eq!((measured.lower, measured.upper), (3.0, Some(5.5)));
        let told = record.told(At(0)).join("\n");
        assert!(
            told.contains("at first 6 of 10 versions lacked something"),
            "{told}"
        );
        assert!(
            told.contains("by itself everything was whole 6.5 s after the heal"),
            "{told}"
        );
    }

    #[test]
    fn an_asked_heal_is_counted_from_when_it_was_asked_for() {
        let mut record = record(&[(2, 4), (60, 8), (63, 8), (66, 10)], 2);
        record.asks = vec![ask(62), ask(65)];
        assert!(record.is_whole() && !record.healed_alone());
        let measured = record.redundancy().unwrap();
        assert_eq!((measured.lower, measured.upper), (1.0, Some(4.5)));
        let told = record.told(At(0)).join("\n");
        assert!(
            told.contains("by itself 4 of these 6 became whole (the last 60.5 s after the heal)"),
            "{told}"
        );
        assert!(
            told.contains("asked heal 1: finished after 0.9 s"),
            "{told}"
        );
        assert!(told.contains("then 8 of 10 were whole"), "{told}");
    }

    #[test]
    fn what_was_whole_once_and_is_not_in_the_end_is_not_whole() {
        let record = record(&[(2, 4), (4, 10), (6, 9)], 3);
        assert!(!record.is_whole() && !record.healed_alone());
        assert_eq!(record.lacking_now(), 1);
        let measured = record.redundancy().unwrap();
        assert_eq!((measured.lower, measured.upper), (5.0, None));
        assert!(
            record
                .told(At(0))
                .join("\n")
                .contains("not whole in the end")
        );
    }

    #[test]
    fn nobody_looked_is_nothing_known() {
        let mut record = record(&[], 0);
        assert!(!record.is_whole() && record.redundancy().is_none());
        assert_eq!(
            (record.lacking_at_first(), record.lacking_now()),
            (None, 10)
        );
        record.looks = vec![look(2, 10, 10)];
        record.alone = 1;
        assert_eq!(record.lacking_at_first(), Some(0));
        assert!(record.told(At(0)).join("\n").contains("lacked anything"));
    }
}
