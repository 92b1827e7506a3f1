//! `cargo xtask tidy`: the rules that clippy cannot say. Everything that is wrong is listed at once,
//! as `file:line: message`; a rule that is not listed here is not a rule.

mod source;
mod tree;
mod crates;
mod order;
mod size;
mod words;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crate::cargo::workspace;

use tree::Tree;

/// It takes no arguments: the tree is the workspace that it was built in.
#[derive(clap::Args)]
pub struct Args {}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Reads the workspace and lists what is wrong; 0 when nothing is.
///
/// # Errors
/// When the workspace can't be read.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    let tree = Tree::read(workspace()?)?;
    let findings = findings(&tree);
    let mut lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    lines.push(match lines.len() {
        0 => format!("tidy: {} files, nothing wrong", tree.len()),
        count => format!("tidy: {} files, {count} wrong", tree.len()),
    });
    writeln!(std::io::stdout().lock(), "{}", lines.join("\n"))?;
    Ok(ExitCode::from(u8::from(!findings.is_empty())))
}

fn findings(tree: &Tree) -> Vec<Finding> {
    let rules = [
        crates::findings(tree),
        order::findings(tree),
        size::findings(tree),
        words::findings(tree),
    ];
    let mut all: Vec<Finding> = rules.into_iter().flatten().collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_tidy() {
        let tree = Tree::read(workspace().unwrap()).unwrap();
        let all = findings(&tree);
        let lines: Vec<String> = all.iter().map(Finding::to_string).collect();
        assert!(all.is_empty(), "\n{}", lines.join("\n"));
        assert!(
            tree.get("xtask/src/tidy.rs").is_some(),
            "another tree was read"
        );
    }

    #[test]
    fn the_small_tree_of_the_tests_is_tidy_from_disk_too() {
        assert_eq!(findings(&tree::small(&[])), []);
        let folder = std::env::temp_dir().join(format!("veza-tidy-{}", std::process::id()));
        tree::small(&[("target/junk.rs", "fn junk() {}\n")])
            .write(&folder)
            .unwrap();
        let read = Tree::read(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        let read = read.unwrap();
        assert_eq!(findings(&read), []);
        assert_eq!(read.len(), tree::small(&[]).len());
    }

    #[test]
    fn all_findings_are_listed_at_once_in_order() {
        let tree = tree::small(&[
            ("drop-check/src/verdict.rs", "use std::fs;\n"),
            ("veza-probe/src/util.rs", "//! A drawer.\n"),
        ]);
        let lines: Vec<String> = findings(&tree).iter().map(Finding::to_string).collect();
        assert_eq!(
            lines,
            [
                "drop-check/src/verdict.rs:1: a verdict is pure: it names `std::fs`",
                "drop-check/src/verdict.rs:1: the first line says what the file is for: `//! …`",
                "veza-probe/src/util.rs:1: `util` says nothing: a name says what the thing is",
            ]
        );
    }
}
