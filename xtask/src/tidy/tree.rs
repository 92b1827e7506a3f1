//! The files of a workspace, by path: what a fresh clone holds, as text.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::source::Source;

/// The text files of a workspace, each under its path from the root.
#[derive(Default)]
pub(super) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads every text file below a folder but those of git and those that `.gitignore` names.
    pub(super) fn read(root: &Path) -> anyhow::Result<Tree> {
        let ignored = std::fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let skipped: Vec<&str> = ignored
            .lines()
            .map(|line| line.trim().trim_matches('/'))
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .chain([".git"])
            .collect();
        let mut tree = Tree::default();
        tree.read_folder(root, "", &skipped)?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str, skipped: &[&str]) -> anyhow::Result<()> {
        let entries =
            std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if skipped.contains(&path.as_str()) {
                continue;
            }
            if kind.is_dir() {
                self.read_folder(&entry.path(), &format!("{path}/"), skipped)?;
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path())?;
                if let Ok(text) = String::from_utf8(bytes) {
                    self.files.insert(path, text);
                }
            }
        }
        Ok(())
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The text of one file.
    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every file with its path.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Every Rust file with its path, read as code.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&str, Source)> {
        self.files()
            .filter(|(path, _)| path.ends_with(".rs"))
            .map(|(path, text)| (path, Source::new(text)))
    }

    /// The folders that hold a package, in order.
    pub(super) fn crates(&self) -> impl Iterator<Item = &str> {
        self.files()
            .filter_map(|(path, _)| path.strip_suffix("/Cargo.toml"))
    }
}

/// The first line that holds `words`, counted from 1; 1 when none does.
pub(super) fn line_of(text: &str, words: &str) -> usize {
    let found = text.lines().position(|line| line.contains(words));
    found.map_or(1, |index| index + 1)
}

#[cfg(test)]
impl Tree {
    /// Writes the tree to a folder.
    pub(super) fn write(&self, root: &Path) -> std::io::Result<()> {
        for (path, text) in self.files() {
            let file = root.join(path);
            std::fs::create_dir_all(file.parent().unwrap())?;
            std::fs::write(file, text)?;
        }
        Ok(())
    }
}

/// A small workspace in which nothing is wrong, with some files replaced or added.
#[cfg(test)]
pub(super) fn small(changes: &[(&str, &str)]) -> Tree {
    let package = |name: &str| format!("[package]\nname = \"{name}\"\n");
    let clean = [
        (".gitignore", "/target\n".to_owned()),
        (
            "Cargo.toml",
            "[workspace]\nmembers = [\"veza-probe\", \"drop-check\"]\n\n[workspace.dependencies]\n\
             veza-probe = { path = \"veza-probe\" }\n# Wire data.\nserde = \"1\"\ntoml = \"1\"\n"
                .to_owned(),
        ),
        (
            "README.md",
            "# Drills\n```\ncargo xtask drill\ncargo xtask test\n```\n".to_owned(),
        ),
        (
            "Makefile",
            "drill: ## The drill.\n\tcargo xtask drill\ntest: ## Tests.\n\tcargo xtask test\n"
                .to_owned(),
        ),
        (
            ".ci/run",
            "#!/usr/bin/env bash\nset -eu\ncargo xtask tidy\ncargo xtask test\n".to_owned(),
        ),
        ("veza-probe/Cargo.toml", package("veza-probe")),
        (
            "veza-probe/src/lib.rs",
            "//! What drills share.\n\npub mod clock;\npub mod incus;\n".to_owned(),
        ),
        ("veza-probe/src/clock.rs", "//! The clock.\n".to_owned()),
        (
            "veza-probe/src/incus.rs",
            "//! Incus.\nuse crate::clock;\n".to_owned(),
        ),
        ("drop-check/Cargo.toml", package("drop-check")),
        (
            "drop-check/src/main.rs",
            "//! Drops.\n\nmod cli;\nmod baseline;\nmod verdict;\n".to_owned(),
        ),
        ("drop-check/src/cli.rs", "//! Arguments.\n".to_owned()),
        (
            "drop-check/src/baseline.rs",
            "//! Baseline.\nuse crate::cli;\n".to_owned(),
        ),
        (
            "drop-check/src/verdict.rs",
            "//! Judges.\nuse crate::{baseline, cli};\nuse veza_probe::clock::At;\n".to_owned(),
        ),
    ];
    let mut files: BTreeMap<String, String> = clean
        .into_iter()
        .map(|(path, text)| (path.to_owned(), text))
        .collect();
    for (path, text) in changes {
        files.insert((*path).to_owned(), (*text).to_owned());
    }
    Tree { files }
}
