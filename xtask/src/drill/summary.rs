//! The end of a drill: the verdict first, a row for each check, and where the reports lie.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use veza_probe::verdict::{Gate, Verdict};

use super::finding::Finding;

/// The summary, for people.
pub(super) fn text(worst: Verdict, took_s: f64, findings: &[Finding], folder: &Path) -> String {
    let head = ["check", "verdict", "seconds", "gate", "reason"].map(str::to_owned);
    let rows = findings.iter().map(|finding| {
        [
            finding.check.clone(),
            finding.verdict.to_string(),
            format!("{:.1}", finding.took_s),
            finding.gate.as_ref().map_or_else(|| "-".to_owned(), gate),
            finding.reason.clone(),
        ]
    });
    let table: Vec<[String; 5]> = [head].into_iter().chain(rows).collect();
    let mut lines = vec![
        String::new(),
        format!(
            "drill: {worst} ({} run, {took_s:.0} s)",
            checks(findings.len())
        ),
        String::new(),
    ];
    lines.extend(aligned(&table));
    for finding in findings.iter().filter(|finding| !finding.next.is_empty()) {
        if finding.verdict != Verdict::Pass {
            lines.push(format!("next, {}: {}", finding.check, finding.next));
        }
    }
    lines.push(String::new());
    for finding in findings.iter().filter(|finding| finding.reported) {
        let path = shown(&folder.join(&finding.check));
        lines.push(format!(
            "report of {}: {path}/latest (report.txt, report.json)",
            finding.check
        ));
    }
    lines.push(format!("this summary: {}/summary.txt", shown(folder)));
    lines.join("\n") + "\n"
}

/// Prints the summary, and leaves it beside the reports.
///
/// # Errors
/// When neither works: a result that nobody sees is none.
pub(super) fn tell(text: &str, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("summary.txt");
    let saved = std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()));
    let mut stdout = std::io::stdout().lock();
    let told = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match told {
        Ok(()) => saved,
        // A closed stdout is no reason to lose the verdict's code.
        Err(_) if saved.is_ok() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn checks(count: usize) -> String {
    match count {
        1 => "1 check".to_owned(),
        count => format!("{count} checks"),
    }
}

fn gate(gate: &Gate) -> String {
    let unit = &gate.unit;
    let value = match gate.measured {
        None => "not measured".to_owned(),
        Some(measured) => match measured.upper {
            None => format!("more than {:.2} {unit}", measured.lower),
            Some(upper) if format!("{upper:.2}") == format!("{:.2}", measured.lower) => {
                format!("{upper:.2} {unit}")
            }
            Some(upper) => format!("{:.2} to {upper:.2} {unit}", measured.lower),
        },
    };
    format!(
        "{}: {value}, limit {} {unit}, {}",
        gate.id, gate.limit, gate.outcome
    )
}

/// Rows with their columns aligned; the last column is left as it is.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    rows.iter()
        .map(|row| {
            let cells = row.iter().enumerate();
            let padded = cells.map(|(column, cell)| format!("{cell:<0$}  ", width(column)));
            padded.collect::<String>().trim_end().to_owned()
        })
        .collect()
}

/// A path as it can be typed here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here
        .as_deref()
        .and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use veza_probe::verdict::Measured;

    #[test]
    fn verdict_first_then_a_row_each_then_the_reports() {
        let measured = Measured {
            lower: 9.812,
            upper: Some(9.834),
        };
        let mut one = Finding::of_drill("drop-check", Verdict::Fail, "a gate was missed");
        one.gate = Some(Gate::at_most(
            "rto",
            "service back",
            5.0,
            "s",
            Some(measured),
        ));
        one.took_s = 48.04;
        one.next = "read the runbook".to_owned();
        one.reported = true;
        let two = Finding::of_drill("x", Verdict::Internal, "no report");
        let text = text(
            Verdict::Internal,
            60.0,
            &[one, two],
            Path::new("/t/drill/now"),
        );
        let expected = "
drill: internal (2 checks run, 60 s)

check       verdict   seconds  gate                                        reason
drop-check  fail      48.0     rto: 9.81 to 9.83 s, limit 5 s, missed      a gate was missed
x           internal  0.0      -                                           no report
next, drop-check: read the runbook

report of drop-check: /t/drill/now/drop-check/latest (report.txt, report.json)
this summary: /t/drill/now/summary.txt
";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&text), squeezed(expected));
        let columns = |word: &str| text.lines().find_map(|line| line.find(word));
        assert_eq!(columns("reason"), columns("a gate was missed"));
        assert_eq!(columns("reason"), columns("no report"));
    }

    #[test]
    fn a_gate_is_shown_with_its_bounds() {
        let of = |measured| gate(&Gate::at_most("rto", "t", 60.0, "s", measured));
        assert_eq!(of(None), "rto: not measured, limit 60 s, unclear");
        assert_eq!(
            of(Some(Measured::exact(1.0))),
            "rto: 1.00 s, limit 60 s, held"
        );
        let open = Measured {
            lower: 61.0,
            upper: None,
        };
        assert_eq!(of(Some(open)), "rto: more than 61.00 s, limit 60 s, missed");
    }
}
