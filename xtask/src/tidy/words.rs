//! Rules about words: the README's two commands are the ones that run everywhere, and no file names
//! a download host, somebody's home, or the lab's placeholder secret where it has no business.
//!
//! The forbidden words are put together from pieces, so that this file does not hold them.

use super::Finding;
use super::tree::Tree;

/// The commands that a newcomer types, and the make target that runs each.
const COMMANDS: [(&str, &str); 2] = [("drill", "cargo xtask drill"), ("test", "cargo xtask test")];

/// Hosts of package registries and distribution mirrors: those are a matter of the machine's setup.
const HOSTS: [&str; 10] = [
    concat!("crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("registry.npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("docker", ".io"),
    concat!("ghcr", ".io"),
    concat!("quay", ".io"),
    concat!("proxy.golang", ".org"),
    concat!("pkgs.zabbly", ".com"),
];

/// Folders of one machine or one person.
const HOMES: [&str; 3] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
];

/// The secret that the lab's roles show where a real one must stand.
const PLACEHOLDER: &str = concat!("changeme", "-DEV-ONLY");

/// Where the placeholder may stand.
const PLACEHOLDER_FOLDERS: [&str; 4] = ["lab/", "xtask/src/lab", "xtask/tests/", "docs/"];

/// Written by cargo, with the registry's name in it.
const GENERATED: [&str; 1] = ["Cargo.lock"];

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut all = commands(tree);
    for (path, text) in tree.files().filter(|(path, _)| !GENERATED.contains(path)) {
        all.extend(forbidden(path, text));
    }
    all
}

/// README, Makefile and .ci/run agree on the two commands.
fn commands(tree: &Tree) -> Vec<Finding> {
    let [readme, makefile, ci] = ["README.md", "Makefile", ".ci/run"];
    let mut all = Vec::new();
    for path in [readme, makefile, ci] {
        if tree.get(path).is_none() {
            all.push(Finding::new(path, 1, "is not there"));
        }
    }
    let text = |path| tree.get(path).unwrap_or_default();
    for (target, command) in COMMANDS {
        if tree.get(readme).is_some() && !fenced(text(readme)).any(|line| line == command) {
            let message = format!("`{command}` stands on no line of its own in a code block");
            all.push(Finding::new(readme, 1, message));
        }
        if let Some(makefile_text) = tree.get(makefile) {
            all.extend(recipe(makefile, makefile_text, target, command));
        }
    }
    let last = text(ci)
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .last();
    let (_, tests) = COMMANDS[1];
    if let Some((index, line)) = last.filter(|(_, line)| line.trim() != tests) {
        let message = format!(
            "ends with `{}`, not with the README's `{tests}`",
            line.trim()
        );
        all.push(Finding::new(ci, index + 1, message));
    }
    all
}

/// The lines of a Markdown text's code blocks, without a comment at their end.
fn fenced(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks
        .flat_map(str::lines)
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
}

/// A make target runs the command, and nothing else.
fn recipe(path: &str, text: &str, target: &str, command: &str) -> Option<Finding> {
    let head = format!("{target}:");
    let Some(index) = text.lines().position(|line| line.starts_with(&head)) else {
        return Some(Finding::new(path, 1, format!("has no target `{target}`")));
    };
    let lines: Vec<&str> = text
        .lines()
        .skip(index + 1)
        .take_while(|line| line.starts_with('\t'))
        .map(|line| line.trim().trim_start_matches('@'))
        .collect();
    (lines != [command]).then(|| {
        let message = format!(
            "target `{target}` runs `{}`, not `{command}`",
            lines.join("; ")
        );
        Finding::new(path, index + 1, message)
    })
}

fn forbidden(path: &str, text: &str) -> Vec<Finding> {
    let placeholder_allowed = PLACEHOLDER_FOLDERS
        .iter()
        .any(|folder| path.starts_with(folder));
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut report = |message: String| all.push(Finding::new(path, index + 1, message));
        for host in HOSTS {
            if line.contains(host) {
                report(format!(
                    "`{host}` is a host of this or that machine's setup"
                ));
            }
        }
        for home in HOMES {
            if names_path(line, home) {
                report(format!("`{home}` is a folder of one machine"));
            }
        }
        if line.contains(PLACEHOLDER) && !placeholder_allowed {
            report(format!("`{PLACEHOLDER}` is the lab's alone"));
        }
    }
    all
}

/// Whether an absolute path begins with a folder: `/a/` in `x /a/b`, not in `c/a/b`.
fn names_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(position, _)| {
        let before = line.get(..position).unwrap_or_default();
        !before.ends_with(|c: char| c.is_alphanumeric() || "._-~})*>".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::small;
    use super::*;

    fn lines(changes: &[(&str, &str)]) -> Vec<String> {
        findings(&small(changes))
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn a_clean_tree_has_no_findings() {
        assert_eq!(lines(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_command_that_the_readme_does_not_show_is_reported() {
        let readme = "# Drills\n`cargo xtask drill`\n```\ncargo xtask test   # everything\n```\n";
        assert_eq!(
            lines(&[("README.md", readme)]),
            ["README.md:1: `cargo xtask drill` stands on no line of its own in a code block"]
        );
    }

    #[test]
    fn a_make_target_that_runs_something_else_is_reported() {
        let makefile = "drill: ## D.\n\tcargo xtask drill --fast\n";
        assert_eq!(
            lines(&[("Makefile", makefile)]),
            [
                "Makefile:1: target `drill` runs `cargo xtask drill --fast`, not `cargo xtask drill`",
                "Makefile:1: has no target `test`",
            ]
        );
    }

    #[test]
    fn a_ci_that_does_not_end_with_the_tests_is_reported() {
        let ci = "#!/usr/bin/env bash\ncargo xtask test\ncargo test\n\n";
        assert_eq!(
            lines(&[(".ci/run", ci)]),
            [".ci/run:3: ends with `cargo test`, not with the README's `cargo xtask test`"]
        );
    }

    #[test]
    fn hosts_and_homes_are_reported_wherever_they_stand() {
        for host in HOSTS {
            let found = lines(&[("docs/a.md", &format!("ok\nsee https://{host}/x\n"))]);
            assert_eq!(
                found,
                [format!(
                    "docs/a.md:2: `{host}` is a host of this or that machine's setup"
                )]
            );
        }
        for home in HOMES {
            let found = lines(&[("docs/a.md", &format!("in {home}x\n"))]);
            assert_eq!(
                found,
                [format!("docs/a.md:1: `{home}` is a folder of one machine")]
            );
            let relative = format!("in some{home}x and ~{home}y\n");
            assert_eq!(lines(&[("docs/a.md", &relative)]), Vec::<String>::new());
        }
        let lock = format!("source = \"{}\"\n", HOSTS[0]);
        assert_eq!(lines(&[("Cargo.lock", &lock)]), Vec::<String>::new());
    }

    #[test]
    fn the_placeholder_is_the_labs_alone() {
        let text = format!("password = \"{PLACEHOLDER}\"\n");
        assert_eq!(lines(&[("lab/roles/a.toml", &text)]), Vec::<String>::new());
        assert_eq!(
            lines(&[("drop-check/a.toml", &text)]),
            [format!(
                "drop-check/a.toml:1: `{PLACEHOLDER}` is the lab's alone"
            )]
        );
    }
}
