//! Rules about the flow: a check's modules are its steps in their order, a module uses only modules
//! above it, and a verdict is pure.

use super::Finding;
use super::source::Source;
use super::tree::Tree;

/// The steps of a check. Those in one row stand in each other's place.
const STEPS: [&[&str]; 8] = [
    &["cli"],
    &["targets"],
    &["baseline"],
    &["fault", "transfer"],
    &["observation"],
    &["verdict"],
    &["report"],
    // What each word of a program with several does with the steps above.
    &["course"],
];

/// What `veza_probe::clock` has that is plain data and may stand in a verdict.
const TIMES_AS_DATA: [&str; 3] = ["At", "Signal", "micros"];

/// What a verdict must not be able to reach.
const EFFECTS_OF_STD: [&str; 6] = ["fs", "io", "env", "net", "process", "thread"];

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut all = Vec::new();
    for folder in tree.crates() {
        let is_check = tree.get(&format!("{folder}/src/verdict.rs")).is_some();
        for root in ["lib.rs", "main.rs"] {
            let path = format!("{folder}/src/{root}");
            let Some(text) = tree.get(&path) else {
                continue;
            };
            let modules = Source::new(text).modules();
            if is_check && root == "main.rs" {
                all.extend(steps(&path, &modules));
            }
            all.extend(imports(tree, folder, &modules));
        }
    }
    all.extend(impure(tree));
    all
}

/// The modules of a check are steps, in the order of the flow.
fn steps(path: &str, modules: &[(usize, String)]) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut reached: Option<(usize, &str)> = None;
    for (line, name) in modules {
        let Some(rank) = STEPS
            .iter()
            .position(|names| names.contains(&name.as_str()))
        else {
            let message = format!("`{name}` is no step of the flow; it can be a part of one");
            all.push(Finding::new(path, *line, message));
            continue;
        };
        if let Some((_, last)) = reached.filter(|(last, _)| rank <= *last) {
            let message =
                format!("`{name}` stands after `{last}`, but comes before it in the flow");
            all.push(Finding::new(path, *line, message));
        }
        reached = reached.max(Some((rank, name.as_str())));
    }
    all
}

/// No module uses one that the crate's root declares after it.
fn imports(tree: &Tree, folder: &str, modules: &[(usize, String)]) -> Vec<Finding> {
    let names: Vec<&str> = modules.iter().map(|(_, name)| name.as_str()).collect();
    let rank_of = |name: &str| names.iter().position(|module| *module == name);
    let prefix = format!("{folder}/src/");
    let mut all = Vec::new();
    for (path, source) in tree.rust() {
        let Some(inside) = path
            .strip_prefix(&prefix)
            .and_then(|path| path.strip_suffix(".rs"))
        else {
            continue;
        };
        let module = inside.split('/').next().unwrap_or_default();
        let Some(rank) = rank_of(module) else {
            continue;
        };
        let mut used = source.names_after("crate::");
        used.extend(source.names_in_root_by_super(inside.split('/').count()));
        for (line, name) in used {
            if name == "*" {
                let message =
                    format!("`{module}` takes in all of the crate's root; name what it uses");
                all.push(Finding::new(path, line, message));
            } else if rank_of(&name).is_some_and(|other| other > rank) {
                let message = format!("`{module}` uses `{name}`, which comes after it");
                all.push(Finding::new(path, line, message));
            }
        }
    }
    all
}

/// A verdict has no Incus, no clock and no I/O in scope.
fn impure(tree: &Tree) -> Vec<Finding> {
    let mut all = Vec::new();
    for (path, source) in tree.rust() {
        if !(path.ends_with("/src/verdict.rs") || path.contains("/src/verdict/")) {
            continue;
        }
        let mut named: Vec<(usize, String)> = Vec::new();
        for word in ["Incus", "tokio", "incus::"] {
            let lines = source
                .positions(word)
                .map(|position| source.line_at(position));
            named.extend(lines.map(|line| (line, word.trim_end_matches(':').to_owned())));
        }
        let std = source.names_after("std::").into_iter();
        named.extend(
            std.filter(|(_, name)| EFFECTS_OF_STD.contains(&name.as_str()))
                .filter(|(line, name)| !is_exit_code(&source, *line, name))
                .map(|(line, name)| (line, format!("std::{name}"))),
        );
        let clock = source.names_after("clock::").into_iter();
        named.extend(
            clock
                .filter(|(_, name)| !TIMES_AS_DATA.contains(&name.as_str()))
                .map(|(line, name)| (line, format!("clock::{name}"))),
        );
        all.extend(named.into_iter().map(|(line, name)| {
            Finding::new(path, line, format!("a verdict is pure: it names `{name}`"))
        }));
    }
    all
}

/// `std::process::ExitCode` is a number, not a process.
fn is_exit_code(source: &Source, line: usize, name: &str) -> bool {
    let text = source.code().lines().nth(line.saturating_sub(1));
    name == "process" && text.is_some_and(|text| text.contains("process::ExitCode"))
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
    fn steps_out_of_order_or_of_no_flow_are_reported() {
        let main = "//! Drops.\nmod cli;\nmod verdict;\nmod baseline;\nmod parser;\n";
        let found = lines(&[
            ("drop-check/src/main.rs", main),
            ("drop-check/src/verdict.rs", "//! Judges.\n"),
        ]);
        assert_eq!(
            found,
            [
                "drop-check/src/main.rs:4: `baseline` stands after `verdict`, but comes before it in the flow",
                "drop-check/src/main.rs:5: `parser` is no step of the flow; it can be a part of one",
            ]
        );
    }

    #[test]
    fn a_fault_and_a_transfer_stand_in_the_same_place() {
        let main =
            "//! Drops.\nmod cli;\nmod transfer;\nmod observation;\nmod verdict;\nmod report;\n";
        let verdict = ("drop-check/src/verdict.rs", "//! Judges.\n");
        assert_eq!(
            lines(&[("drop-check/src/main.rs", main), verdict]),
            Vec::<String>::new()
        );
        let both = "//! Drops.\nmod fault;\nmod transfer;\nmod verdict;\n";
        assert_eq!(lines(&[("drop-check/src/main.rs", both), verdict]).len(), 1);
    }

    #[test]
    fn a_later_module_is_reported_however_it_is_named() {
        for text in [
            "//! B.\nuse crate::verdict;\n",
            "//! B.\nuse crate::{cli, verdict::Gate};\n",
            "//! B.\nuse super::verdict;\n",
            "//! B.\nfn f() { crate::verdict::judge() }\n",
            "//! B.\nmod t { use super::super::verdict; }\n",
        ] {
            let found = lines(&[("drop-check/src/baseline.rs", text)]);
            assert_eq!(
                found,
                ["drop-check/src/baseline.rs:2: `baseline` uses `verdict`, which comes after it"],
                "{text}"
            );
        }
    }

    #[test]
    fn a_part_has_the_rank_of_its_step() {
        let part = "//! A part.\nuse crate::cli;\nuse super::super::verdict;\nuse super::other;\n";
        assert_eq!(
            lines(&[("drop-check/src/baseline/part.rs", part)]),
            ["drop-check/src/baseline/part.rs:3: `baseline` uses `verdict`, which comes after it"]
        );
    }

    #[test]
    fn the_library_has_an_order_too_and_roots_are_not_taken_in_whole() {
        let found = lines(&[(
            "veza-probe/src/clock.rs",
            "//! C.\nuse crate::incus::Incus;\nuse crate::*;\n",
        )]);
        assert_eq!(
            found,
            [
                "veza-probe/src/clock.rs:2: `clock` uses `incus`, which comes after it",
                "veza-probe/src/clock.rs:3: `clock` takes in all of the crate's root; name what it uses",
            ]
        );
    }

    #[test]
    fn words_in_comments_and_strings_are_no_imports() {
        let text = "//! See [`crate::verdict`].\nconst A: &str = \"crate::verdict\";\n";
        assert_eq!(
            lines(&[("drop-check/src/baseline.rs", text)]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_impure_verdict_is_reported_by_what_it_names() {
        let text = "//! Judges.\nuse std::{fmt, fs, io};\nuse std::process::ExitCode;\n\
            use veza_probe::clock::{At, Clock};\nuse veza_probe::incus::Incus;\nasync fn f() { tokio::x() }\n\
            fn g() { std::env::var(x) }\n";
        let mut found = lines(&[("drop-check/src/verdict.rs", text)]);
        found.sort();
        let named = [
            (2, "std::fs"),
            (2, "std::io"),
            (4, "clock::Clock"),
            (5, "Incus"),
            (5, "incus"),
            (6, "tokio"),
            (7, "std::env"),
        ];
        let expected = named.map(|(line, name)| {
            format!("drop-check/src/verdict.rs:{line}: a verdict is pure: it names `{name}`")
        });
        assert_eq!(found, expected);
    }
}
