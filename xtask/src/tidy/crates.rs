//! Rules about packages and names: folder = package = binary, every crate is a member, every
//! dependency has its reason, what is for tests is in no program, and no file is a drawer.

use super::Finding;
use super::tree::{Tree, line_of};

/// A library with two servers: the one package that is not named for its binary.
const MANY_BINARIES: &str = "reference-backend";

/// What the tests of the checks share. It panics where a test has failed, so no program may have any of it.
const OF_TESTS: &str = "lab-test";

/// Names of drawers: what lies in them could be anything.
const DRAWERS: [&str; 7] = [
    "util", "utils", "common", "helper", "helpers", "prelude", "misc",
];

/// The drawer of errors that belong beside what fails.
const ERRORS: &str = "errors.rs";

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut all = members(tree);
    all.extend(tree.crates().flat_map(|folder| package(tree, folder)));
    all.extend(reasons(tree));
    all.extend(drawers(tree));
    all
}

fn manifest(tree: &Tree, path: &str) -> Result<toml::Table, Finding> {
    let text = tree.get(path).unwrap_or_default();
    let parsed = text.parse::<toml::Table>();
    parsed.map_err(|error| Finding::new(path, 1, format!("can't be read: {}", error.message())))
}

/// Every crate is a member of the workspace, and every member is there.
fn members(tree: &Tree) -> Vec<Finding> {
    let root = match manifest(tree, "Cargo.toml") {
        Ok(root) => root,
        Err(finding) => return vec![finding],
    };
    let listed = root
        .get("workspace")
        .and_then(|workspace| workspace.get("members"));
    let listed: Vec<&str> = listed
        .and_then(toml::Value::as_array)
        .map(|members| members.iter().filter_map(toml::Value::as_str).collect())
        .unwrap_or_default();
    let missing = tree
        .crates()
        .filter(|folder| !listed.contains(folder))
        .map(|folder| {
            Finding::new(
                &format!("{folder}/Cargo.toml"),
                1,
                "the workspace's members don't list this crate",
            )
        });
    let gone = listed
        .iter()
        .filter(|member| !tree.crates().any(|folder| folder == **member));
    let line = line_of(tree.get("Cargo.toml").unwrap_or_default(), "members");
    missing
        .chain(gone.map(|member| {
            Finding::new(
                "Cargo.toml",
                line,
                format!("member `{member}` has no Cargo.toml"),
            )
        }))
        .collect()
}

/// Folder = package name = binary name.
fn package(tree: &Tree, folder: &str) -> Vec<Finding> {
    let path = format!("{folder}/Cargo.toml");
    let manifest = match manifest(tree, &path) {
        Ok(manifest) => manifest,
        Err(finding) => return vec![finding],
    };
    let text = tree.get(&path).unwrap_or_default();
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"));
    let name = name.and_then(toml::Value::as_str).unwrap_or_default();
    let mut all = Vec::new();
    if name != folder {
        let message = format!("package `{name}` stands in folder `{folder}`: one name for both");
        all.push(Finding::new(&path, line_of(text, "name"), message));
    }
    let depended = ["dependencies", "build-dependencies"].map(|table| manifest.get(table));
    if depended
        .into_iter()
        .flatten()
        .any(|table| table.get(OF_TESTS).is_some())
    {
        let message = format!("`{OF_TESTS}` is for tests: it belongs to [dev-dependencies]");
        all.push(Finding::new(&path, line_of(text, OF_TESTS), message));
    }
    let binaries = manifest.get("bin").and_then(toml::Value::as_array);
    for binary in binaries.into_iter().flatten() {
        let binary = binary
            .get("name")
            .and_then(toml::Value::as_str)
            .unwrap_or_default();
        if binary != folder && folder != MANY_BINARIES {
            let message = format!("binary `{binary}` of folder `{folder}`: one name for both");
            all.push(Finding::new(&path, line_of(text, "[[bin]]"), message));
        }
    }
    all
}

/// Every dependency of the workspace has a comment above it or above its group.
fn reasons(tree: &Tree) -> Vec<Finding> {
    let text = tree.get("Cargo.toml").unwrap_or_default();
    let mut all = Vec::new();
    let (mut inside, mut has_reason) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        }
        match line.chars().next() {
            None | Some('[') => has_reason = false,
            Some('#') => has_reason = true,
            Some(_) if !inside || has_reason => {}
            Some(_) => {
                // Our own crates need no reason.
                let name = line.split('=').next().unwrap_or_default().trim();
                if !tree.crates().any(|folder| folder == name) {
                    let message =
                        format!("dependency `{name}` has no reason in a comment above it");
                    all.push(Finding::new("Cargo.toml", index + 1, message));
                }
            }
        }
    }
    all
}

fn drawers(tree: &Tree) -> Vec<Finding> {
    let mut all = Vec::new();
    for (path, _) in tree.files() {
        for part in path.split('/') {
            let stem = part.split('.').next().unwrap_or_default();
            if DRAWERS.contains(&stem) {
                let message = format!("`{stem}` says nothing: a name says what the thing is");
                all.push(Finding::new(path, 1, message));
            }
            if part == ERRORS {
                all.push(Finding::new(path, 1, "an error stands beside what fails"));
            }
        }
    }
    all
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
    fn a_package_named_otherwise_is_reported() {
        let other = "[package]\nname = \"drops\"\n";
        assert_eq!(
            lines(&[("drop-check/Cargo.toml", other)]),
            [
                "drop-check/Cargo.toml:2: package `drops` stands in folder `drop-check`: one name for both"
            ]
        );
    }

    #[test]
    fn a_binary_named_otherwise_is_reported_but_for_the_backend() {
        let other = "[package]\nname = \"drop-check\"\n\n[[bin]]\nname = \"drops\"\n";
        assert_eq!(
            lines(&[("drop-check/Cargo.toml", other)]),
            ["drop-check/Cargo.toml:4: binary `drops` of folder `drop-check`: one name for both"]
        );
        let backend =
            "[package]\nname = \"reference-backend\"\n\n[[bin]]\nname = \"backend-api\"\n";
        let workspace =
            "[workspace]\nmembers = [\"veza-probe\", \"drop-check\", \"reference-backend\"]\n";
        assert_eq!(
            lines(&[
                ("reference-backend/Cargo.toml", backend),
                ("Cargo.toml", workspace)
            ]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_is_for_tests_is_in_no_program() {
        let package = "[package]\nname = \"drop-check\"\n\n";
        let with = |table: &str| {
            let manifest = format!("{package}[{table}]\nlab-test.workspace = true\n");
            lines(&[("drop-check/Cargo.toml", &manifest)])
        };
        assert_eq!(with("dev-dependencies"), Vec::<String>::new());
        for table in ["dependencies", "build-dependencies"] {
            assert_eq!(
                with(table),
                [
                    "drop-check/Cargo.toml:5: `lab-test` is for tests: it belongs to [dev-dependencies]"
                ]
            );
        }
    }

    #[test]
    fn a_crate_that_is_no_member_and_a_member_that_is_no_crate_are_reported() {
        let workspace = "[workspace]\nmembers = [\"veza-probe\", \"gone\"]\n";
        assert_eq!(
            lines(&[("Cargo.toml", workspace)]),
            [
                "drop-check/Cargo.toml:1: the workspace's members don't list this crate",
                "Cargo.toml:2: member `gone` has no Cargo.toml",
            ]
        );
    }

    #[test]
    fn a_dependency_without_a_reason_is_reported() {
        let workspace = "[workspace]\nmembers = [\"veza-probe\", \"drop-check\"]\n\n\
            [workspace.dependencies]\n# Wire data.\nserde = \"1\"\n\nwhich = \"8\"\n";
        assert_eq!(
            lines(&[("Cargo.toml", workspace)]),
            ["Cargo.toml:8: dependency `which` has no reason in a comment above it"]
        );
    }

    #[test]
    fn drawers_are_reported_as_file_and_as_folder() {
        let found = lines(&[
            ("drop-check/src/errors.rs", "//! Errors.\n"),
            ("drop-check/tests/common/mod.rs", "//! Drawer.\n"),
        ]);
        assert_eq!(
            found,
            [
                "drop-check/src/errors.rs:1: an error stands beside what fails",
                "drop-check/tests/common/mod.rs:1: `common` says nothing: a name says what the thing is",
            ]
        );
    }

    #[test]
    fn a_manifest_that_is_no_toml_is_reported() {
        let found = lines(&[("drop-check/Cargo.toml", "[package\n")]);
        assert!(
            found.iter().any(|line| line.contains("can't be read")),
            "{found:?}"
        );
    }
}
