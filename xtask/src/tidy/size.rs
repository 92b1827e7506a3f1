//! Rules about single files: what the first line says, how long functions and files are, and why a
//! test is ignored.

use super::Finding;
use super::source::Source;
use super::tree::Tree;

/// As in clippy.toml, for functions that clippy leaves out because a macro wrote them anew.
const FUNCTION_LINES_MAX: usize = 70;

/// What can be read in a sitting.
const FILE_LINES_MAX: usize = 600;

/// The one reason to ignore a test; `cargo xtask test` runs those.
const IGNORED: &str = "#[ignore = \"needs the lab\"]";

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut all = Vec::new();
    for (path, source) in tree.rust() {
        let text = tree.get(path).unwrap_or_default();
        if !text.starts_with("//! ") {
            let message = "the first line says what the file is for: `//! …`";
            all.push(Finding::new(path, 1, message));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            let message = format!("{lines} lines; a file has at most {FILE_LINES_MAX}");
            all.push(Finding::new(path, FILE_LINES_MAX + 1, message));
        }
        for function in source.functions() {
            if function.length > FUNCTION_LINES_MAX {
                let (name, length) = (&function.name, function.length);
                let message = format!(
                    "`{name}` has {length} lines; a function has at most {FUNCTION_LINES_MAX}"
                );
                all.push(Finding::new(path, function.line, message));
            }
        }
        all.extend(ignored(path, text, &source));
    }
    all
}

fn ignored(path: &str, text: &str, source: &Source) -> Vec<Finding> {
    let lines = text.lines().zip(source.code().lines()).enumerate();
    lines
        .filter(|(_, (_, code))| code.contains("#[ignore") || code.contains("ignore ="))
        .filter(|(_, (line, _))| line.trim() != IGNORED)
        .map(|(index, _)| {
            let message = format!("a test is ignored for one reason only: `{IGNORED}`");
            Finding::new(path, index + 1, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::small;
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let tree = small(&[("drop-check/src/cli.rs", text)]);
        findings(&tree).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_clean_tree_has_no_findings() {
        assert_eq!(findings(&small(&[])), []);
    }

    #[test]
    fn a_first_line_that_says_nothing_is_reported() {
        for text in ["use std::fmt;\n", "//!\n", "\n//! Late.\n"] {
            assert_eq!(
                lines(text),
                ["drop-check/src/cli.rs:1: the first line says what the file is for: `//! …`"],
                "{text}"
            );
        }
    }

    #[test]
    fn a_function_at_the_limit_passes_and_one_line_more_is_reported() {
        let function = |count| {
            format!(
                "//! F.\nfn long() {{\n{}}}\n",
                "    let _ = 1;\n".repeat(count)
            )
        };
        assert_eq!(lines(&function(70)), Vec::<String>::new());
        assert_eq!(
            lines(&function(71)),
            ["drop-check/src/cli.rs:2: `long` has 71 lines; a function has at most 70"]
        );
    }

    #[test]
    fn a_file_at_the_limit_passes_and_one_line_more_is_reported() {
        let file = |count| format!("//! F.\n{}", "const A: u8 = 1;\n".repeat(count));
        assert_eq!(lines(&file(599)), Vec::<String>::new());
        assert_eq!(
            lines(&file(600)),
            ["drop-check/src/cli.rs:601: 601 lines; a file has at most 600"]
        );
    }

    #[test]
    fn a_test_ignored_for_another_reason_is_reported() {
        let reason = |ignore: &str| format!("//! F.\n#[test]\n{ignore}\nfn t() {{}}\n");
        assert_eq!(lines(&reason(IGNORED)), Vec::<String>::new());
        for other in [
            "#[ignore]",
            "#[ignore = \"slow\"]",
            "#[cfg_attr(all(), ignore = \"slow\")]",
        ] {
            let found = lines(&reason(other));
            assert_eq!(found.len(), 1, "{other}");
            assert!(
                found[0].starts_with("drop-check/src/cli.rs:3: "),
                "{found:?}"
            );
        }
    }
}
