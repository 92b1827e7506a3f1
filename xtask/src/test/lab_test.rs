//! One test against the real lab: what it needs, when its turn is, and whether it passed.

use std::path::PathBuf;
use std::process::ExitStatus;

use crate::cargo::Program;
use crate::drill::Check;

/// What a lab test does to lab and host, in the order of their turns; the module of tests/lab that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// One drill or two.
    Light,
    /// Load, migration, heal.
    Heavy,
    /// It stops incusd, changes a sysctl, or the like.
    Host,
}

impl Class {
    fn of(name: &str) -> Option<Class> {
        match name.split_once("::")?.0 {
            "light" => Some(Class::Light),
            "heavy" => Some(Class::Heavy),
            "host" => Some(Class::Host),
            _ => None,
        }
    }
}

/// How a test leaves its groups, by the module that it stands in. The runner does not take its word for it, see
/// [`super::Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leaves {
    /// As it found them: the next test needs no reset. Module `untouched`.
    Untouched,
    /// Whole, with all settings that it found, though perhaps with other roles: the next test of this kind, which
    /// can do with that, needs no reset. Module `whole`.
    Whole,
    /// Somehow.
    Somehow,
}

impl Leaves {
    fn of(name: &str) -> Leaves {
        let in_module = |module| name.split("::").any(|m| m == module);
        match (in_module("untouched"), in_module("whole")) {
            (true, _) => Leaves::Untouched,
            (false, true) => Leaves::Whole,
            (false, false) => Leaves::Somehow,
        }
    }
}

/// A test to run.
#[derive(Clone, Debug)]
pub(super) struct LabTest {
    /// `light::replica_stopped_is_refused`.
    pub(super) name: String,
    /// When its turn is.
    pub(super) class: Class,
    /// The lab's groups that it needs.
    pub(super) groups: Vec<String>,
    /// How it leaves them.
    pub(super) leaves: Leaves,
    /// The check that it tests.
    pub(super) package: String,
    /// The folder it runs in, as under cargo.
    pub(super) folder: PathBuf,
    /// The program that holds it.
    pub(super) program: PathBuf,
}

impl LabTest {
    /// A test as its program lists it.
    pub(super) fn new(check: &Check, program: &Program, name: &str) -> anyhow::Result<LabTest> {
        let Some(class) = Class::of(name) else {
            let package = check.name;
            anyhow::bail!("{package}/tests/lab: {name} stands in none of light, heavy and host")
        };
        let in_module = |group: &&&str| name.split("::").any(|module| module == **group);
        let groups = check
            .groups
            .iter()
            .chain(check.also.iter().filter(in_module));
        Ok(LabTest {
            name: name.to_owned(),
            class,
            groups: groups.map(|group| (*group).to_owned()).collect(),
            leaves: Leaves::of(name),
            package: check.name.to_owned(),
            folder: program.folder.clone(),
            program: program.path.clone(),
        })
    }

    /// The name of its log.
    pub(super) fn log_name(&self) -> String {
        format!("{}.{}.log", self.package, self.name.replace("::", "."))
    }
}

/// How the groups of a test were made ready for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// They were fresh from a reset.
    Fresh,
    /// Another test had left them whole.
    Whole,
    /// They were reset.
    Reset,
}

/// What came of a test.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The test.
    pub(super) test: LabTest,
    /// Why it did not pass; none when it did.
    pub(super) complaint: Option<String>,
    /// How often it was run before, on a host that was too busy to measure.
    pub(super) unmeasured_before: u32,
    /// Where its output is.
    pub(super) log: PathBuf,
    /// How it left its groups, as far as Incus can see.
    pub(super) left: Leaves,
    /// How its groups were made ready.
    pub(super) ready: Ready,
    /// How long that took.
    pub(super) ready_s: f64,
    /// How long the test itself took.
    pub(super) took_s: f64,
}

impl Outcome {
    /// Whether it failed since a drill of it could not measure on a host as busy as this.
    pub(super) fn unmeasured(&self) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        self.complaint.is_some() && blind(&String::from_utf8_lossy(&log))
    }
}

/// Whether the panic that ended a test is about a drill that called its own observer blind.
fn blind(log: &str) -> bool {
    let panicked = log.lines().skip_while(|line| !line.contains("panicked at"));
    let said: Vec<&str> = panicked.collect();
    said.iter()
        .any(|line| line.contains("INCONCLUSIVE observer-blind"))
}

/// A test passed when its program says that one did; a program that found no such test is content,
/// too, and so proves nothing.
pub(super) fn passed(status: ExitStatus, log: &str) -> Result<(), String> {
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    let is_result = |line: &&str| line.starts_with("test result: ");
    match log.lines().rfind(is_result) {
        Some(line) if line.starts_with("test result: ok. 1 passed; 0 failed;") => Ok(()),
        Some(line) => Err(format!("it did not run: {line}")),
        None => Err("it ended well without a result".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn only_a_panic_over_a_blind_observer_is_unmeasured() {
        let drill = "INCONCLUSIVE observer-blind; next: see the runbook\n";
        let panic = "thread 'a' panicked at b:1:2:\n";
        assert!(blind(&format!("{panic}assertion failed: {drill}")));
        assert!(!blind(&format!("{drill}{panic}another thing\n")));
        assert!(!blind(drill));
        assert!(!blind(&format!(
            "{panic}INCONCLUSIVE fault-not-proven; next\n"
        )));
    }

    use super::*;

    fn test(name: &str, groups: &'static [&'static str]) -> anyhow::Result<LabTest> {
        let check = Check {
            name: "drop-check",
            groups,
            also: &["pooler"],
        };
        let program = Program {
            package: "drop-check".to_owned(),
            folder: PathBuf::from("/w/drop-check"),
            target: "lab".to_owned(),
            kind: "test".to_owned(),
            path: PathBuf::from("/w/target/lab"),
        };
        LabTest::new(&check, &program, name)
    }

    #[test]
    fn the_module_says_the_class() {
        for (name, class) in [
            ("light::a", Class::Light),
            ("heavy::a::b", Class::Heavy),
            ("host::a", Class::Host),
        ] {
            assert_eq!(test(name, &["g"]).unwrap().class, class);
        }
        assert!(Class::Light < Class::Heavy && Class::Heavy < Class::Host);
        for name in ["a", "lightly::a", "light"] {
            let error = test(name, &["g"]).unwrap_err().to_string();
            assert!(error.contains("none of light, heavy and host"), "{error}");
        }
        assert_eq!(
            test("light::a", &["g"]).unwrap().log_name(),
            "drop-check.light.a.log"
        );
    }

    #[test]
    fn a_module_named_as_a_group_needs_it_too() {
        let plain = test("light::a_pooler", &["one"]).unwrap();
        assert_eq!(plain.groups, ["one"]);
        let both = test("light::pooler::a", &["one"]).unwrap();
        assert_eq!(both.groups, ["one", "pooler"]);
    }

    #[test]
    fn a_module_says_how_the_lab_is_left() {
        for (name, leaves) in [
            ("light::untouched::a", Leaves::Untouched),
            ("light::untouched::pooler::a", Leaves::Untouched),
            ("light::whole::untouched::a", Leaves::Untouched),
            ("heavy::whole::a", Leaves::Whole),
            ("light::a", Leaves::Somehow),
            ("light::untouched_by_a", Leaves::Somehow),
            ("light::a_whole", Leaves::Somehow),
        ] {
            assert_eq!(test(name, &["one"]).unwrap().leaves, leaves, "{name}");
        }
    }

    #[test]
    fn a_program_that_ran_nothing_has_not_passed() {
        let ended = |code: i32| ExitStatus::from_raw(code << 8);
        let one = "x\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out\n";
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out\n";
        assert_eq!(passed(ended(0), one), Ok(()));
        assert!(passed(ended(0), none).unwrap_err().contains("did not run"));
        assert!(
            passed(ended(0), "")
                .unwrap_err()
                .contains("without a result")
        );
        assert!(passed(ended(101), one).unwrap_err().contains("101"));
        // What the test prints itself is no result.
        let forged = format!("{one}{none}");
        assert!(passed(ended(0), &forged).is_err());
    }
}
