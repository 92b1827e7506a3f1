//! The kinds of fault, by the words that people and permissions use.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a target is broken. As text: `stop`, `kill:UNIT` and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Kind {
    /// Nothing is broken: the observation alone, as a control that must show no outage.
    None,
    /// The instance is stopped by force: a power cut.
    Stop,
    /// Its processes are stopped where they are: a host that hangs.
    Freeze,
    /// Its network devices are taken away: a link that vanishes.
    Partition,
    /// A unit's processes are killed and it is not started again: a crash for good.
    Kill(Unit),
    /// A unit is stopped cleanly and held down: a shutdown by hand.
    Hold(Unit),
    /// A unit's processes are killed and systemd does what it is set to: a crash.
    KillRestart(Unit),
}

/// The name of a systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Unit(String);

/// Not the name of a service.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not the name of a systemd service, such as pgautofailover.service")]
pub struct InvalidUnit(String);

impl Unit {
    /// Checks a name; without a suffix it is that of a service, as systemctl takes it.
    ///
    /// # Errors
    /// [`InvalidUnit`], also for units of another type: only a service has processes to break.
    pub fn new(name: &str) -> Result<Unit, InvalidUnit> {
        let stem = name.strip_suffix(".service").unwrap_or(name);
        let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let other = [".socket", ".timer", ".target", ".mount", ".slice", ".scope"];
        let good = !stem.is_empty()
            && stem.len() <= 200
            && !stem.starts_with(['-', '.'])
            && stem.chars().all(known)
            && !other.iter().any(|suffix| stem.ends_with(suffix));
        if good {
            Ok(Unit(format!("{stem}.service")))
        } else {
            Err(InvalidUnit(name.to_owned()))
        }
    }

    /// The name with its suffix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Unit {
    type Error = InvalidUnit;
    fn try_from(name: String) -> Result<Unit, InvalidUnit> {
        Unit::new(&name)
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> String {
        unit.0
    }
}

/// Not a kind of fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnknownKind {
    /// No such word.
    #[error("{0:?} is not a kind of fault; there are: none, {kinds}", kinds = WORDS.join(", "))]
    Word(String),
    /// The kind needs a unit, or has none.
    #[error("{0:?}: {1}")]
    Unit(String, String),
}

/// The words of all kinds that break something, as permissions name them.
pub const WORDS: [&str; 6] = [
    "stop",
    "freeze",
    "partition",
    "kill",
    "hold",
    "kill-restart",
];

impl Kind {
    /// The kind's word, without a unit: what a permission names.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Stop => "stop",
            Kind::Freeze => "freeze",
            Kind::Partition => "partition",
            Kind::Kill(_) => "kill",
            Kind::Hold(_) => "hold",
            Kind::KillRestart(_) => "kill-restart",
        }
    }

    /// The unit that it breaks, where it does not break a whole instance.
    pub fn unit(&self) -> Option<&Unit> {
        match self {
            Kind::Kill(unit) | Kind::Hold(unit) | Kind::KillRestart(unit) => Some(unit),
            Kind::None | Kind::Stop | Kind::Freeze | Kind::Partition => None,
        }
    }

    /// Whether something is broken at all.
    pub fn breaks(&self) -> bool {
        *self != Kind::None
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Kind, UnknownKind> {
        let (word, unit) = match text.split_once(':') {
            Some((word, unit)) => (word, Some(unit)),
            None => (text, None),
        };
        let without = |kind: Kind| match unit {
            None => Ok(kind),
            Some(_) => {
                let words = format!("{word} breaks a whole instance, so no unit is named");
                Err(UnknownKind::Unit(text.to_owned(), words))
            }
        };
        let with = |kind: fn(Unit) -> Kind| {
            let unit = unit.ok_or_else(|| format!("name the unit: {word}:UNIT"));
            let unit = unit.and_then(|name| Unit::new(name).map_err(|e| e.to_string()));
            unit.map(kind)
                .map_err(|words| UnknownKind::Unit(text.to_owned(), words))
        };
        match word {
            "none" => without(Kind::None),
            "stop" => without(Kind::Stop),
            "freeze" => without(Kind::Freeze),
            "partition" => without(Kind::Partition),
            "kill" => with(Kind::Kill),
            "hold" => with(Kind::Hold),
            "kill-restart" => with(Kind::KillRestart),
            _ => Err(UnknownKind::Word(text.to_owned())),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit() {
            Some(unit) => write!(f, "{}:{unit}", self.word()),
            None => f.write_str(self.word()),
        }
    }
}

impl TryFrom<String> for Kind {
    type Error = UnknownKind;
    fn try_from(text: String) -> Result<Kind, UnknownKind> {
        text.parse()
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> String {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_its_text() {
        for text in [
            "none",
            "stop",
            "freeze",
            "partition",
            "kill:a.service",
            "hold:pg@17-main.service",
            "kill-restart:a.service",
        ] {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        assert_eq!("kill:a".parse(), Ok(Kind::Kill(Unit::new("a").unwrap())));
        assert!(WORDS.iter().all(|word| {
            let kind = word
                .parse::<Kind>()
                .or_else(|_| format!("{word}:u").parse());
            kind.is_ok_and(|kind| kind.word() == *word && kind.breaks())
        }));
    }

    #[test]
    fn what_is_no_kind_is_told_with_what_is() {
        for (text, word) in [
            ("explode", "kill-restart"),
            ("", "freeze"),
            ("kill", "kill:UNIT"),
            ("kill:", "systemd"),
            ("hold:-x", "systemd"),
            ("hold:a b", "systemd"),
            ("hold:a.timer", "systemd"),
            ("stop:a", "whole instance"),
            ("none:a", "whole instance"),
        ] {
            let error = text.parse::<Kind>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
