//! Which keys a run is about, by patterns.

/// Only some keys.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Choosing {
    /// Only keys that fit PATTERN, in which `*` stands for any text, slashes, too; may be repeated, or have commas between (for a comma in a
    /// key, `*`). Of a part the verdict says that it is one.
    #[arg(
        long = "include",
        env = "MINIO_MIGRATE_INCLUDE",
        value_name = "PATTERN",
        value_delimiter = ','
    )]
    included: Vec<String>,

    /// No keys that fit PATTERN, whatever --include says; may be repeated, or have commas between.
    #[arg(
        long = "exclude",
        env = "MINIO_MIGRATE_EXCLUDE",
        value_name = "PATTERN",
        value_delimiter = ','
    )]
    excluded: Vec<String>,
}

impl Choosing {
    /// Checks the patterns: an empty one fits nothing, and was meant for something else.
    ///
    /// # Errors
    /// A sentence that names the flag.
    pub fn check(&self) -> Result<(), String> {
        let flags = [("--include", &self.included), ("--exclude", &self.excluded)];
        match flags
            .into_iter()
            .find(|(_, patterns)| patterns.iter().any(String::is_empty))
        {
            Some((flag, _)) => Err(format!("{flag}: expected a key, or a pattern with *")),
            None => Ok(()),
        }
    }

    /// Whether a key is one of them.
    pub fn takes(&self, key: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, key));
        (self.included.is_empty() || any(&self.included)) && !any(&self.excluded)
    }

    /// Which ones, in words; none: all.
    pub fn words(&self) -> Option<String> {
        let of = |word: &str, patterns: &[String]| {
            (!patterns.is_empty()).then(|| format!("{word} {}", patterns.join(", ")))
        };
        let words = [of("only", &self.included), of("without", &self.excluded)];
        let words: Vec<String> = words.into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

/// Whether a name fits a pattern, in which `*` stands for any text.
pub fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    // The first place is as good as any: what stands behind it is all that later ones have.
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name) in [
            ("a", "a"),
            ("*", ""),
            ("*", "a/b"),
            ("a*", "a"),
            ("a*c", "ac"),
            ("a*c", "abcbc"),
            ("*.tmp", "x/y.tmp"),
            ("a*b*c", "a-bb-c"),
            ("*é*", "caf\u{e9}s"),
            ("a**", "a"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a", "ab"),
            ("", "a"),
            ("a*a", "a"),
            ("a*b*b", "ab"),
            ("*.tmp", "x.tmp2"),
            ("A*", "a"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        // Not tried in every way: that would take years.
        let name = "a".repeat(5000);
        assert!(!fits(&format!("{}b", "a*".repeat(50)), &name));
    }

    #[test]
    fn what_is_excluded_is_not_included() {
        let of = |included: &[&str], excluded: &[&str]| Choosing {
            included: included.iter().map(|text| (*text).to_owned()).collect(),
            excluded: excluded.iter().map(|text| (*text).to_owned()).collect(),
        };
        let all = of(&[], &[]);
        assert!(all.takes("a") && all.words().is_none() && all.check().is_ok());
        let some = of(&["tracks/*", "covers/*"], &["*.tmp", "covers/old/*"]);
        for key in ["tracks/a", "covers/b"] {
            assert!(some.takes(key), "{key}");
        }
        for key in ["tracks/a.tmp", "covers/old/b", "other/a", "track"] {
            assert!(!some.takes(key), "{key}");
        }
        let words = "only tracks/*, covers/* without *.tmp, covers/old/*";
        assert_eq!(some.words().as_deref(), Some(words));
        assert!(of(&[], &[""]).check().unwrap_err().contains("--exclude"));
    }
}
