//! Where reports and metrics are kept, and how those that were kept are looked at.

use std::path::{Path, PathBuf};

use veza_probe::clock::Clock;
use veza_probe::report::{self, Folder, Report, Untouched, textfile};
use veza_probe::story::Story;
use veza_probe::verdict::{Judgement, Verdict};

use super::missing;
use crate::cli::{Args, CHECK};

/// Makes the folder of this run, with a report that says that the run has not ended, in case it never
/// does, and with its events; so a folder that can't be written to is told before anything is touched.
pub fn open(args: &Args, clock: &Clock, story: &Story) -> Result<Option<Folder>, Untouched> {
    let unwritable = |flag: &str, error: &std::io::Error| {
        let next = "correct the folder or its permissions";
        Untouched::from(missing(
            "report-unwritable",
            format!("{flag}: {error}"),
            next,
        ))
    };
    match &args.events {
        Some(path) if *path == *"-" => story.record(*clock, "stdout", Box::new(std::io::stdout())),
        Some(path) => {
            let file = std::fs::File::create(path);
            let file = file.map_err(|error| unwritable("--events", &error))?;
            story.record(*clock, &path.to_string_lossy(), Box::new(file));
        }
        None => {}
    }
    let Some(base) = &args.report else {
        return Ok(None);
    };
    let reason = "the run has not ended, or was killed; its watchdog heals what was broken";
    let next = format!("{} --recover", args.so_far());
    let judgement = Judgement::new(Verdict::Internal, "unfinished", reason, next);
    let made = Folder::make(base, CHECK, clock).and_then(|folder| {
        folder.save(&Report::new(CHECK, clock, &judgement))?;
        let name = folder.path().to_string_lossy();
        story.record(*clock, &name, Box::new(folder.events()?));
        Ok(folder)
    });
    made.map(Some)
        .map_err(|error| unwritable("--report", &error))
}

pub fn save(kept: Option<&Folder>, report: &Report, story: &Story) {
    if let Some(folder) = kept
        && let Err(error) = folder.save(report)
    {
        story.warn(&format!("the report could not be saved: {error}"));
    }
}

/// The folder for metrics; `--recover` has none: it is no drill, and nothing may keep it from mending.
fn textfile_dir(args: &Args) -> Option<&Path> {
    args.textfile_dir.as_deref().filter(|_| !args.recover)
}

/// A folder for metrics that can't be written to is told before anything is touched.
pub fn look_at_metrics(args: &Args) -> Result<(), Untouched> {
    let Some(folder) = textfile_dir(args) else {
        return Ok(());
    };
    textfile::ready(CHECK, folder).map_err(|error| {
        let reason = format!("--textfile-dir: {error}");
        let next = "correct the folder, its permissions, or the file in it";
        missing("textfile-unwritable", reason, next).into()
    })
}

/// Metrics that can't be written change no verdict: whoever watches them sees the last run grow old.
pub fn save_metrics(args: &Args, report: &Report, story: &Story) {
    if let Some(folder) = textfile_dir(args)
        && let Err(error) = textfile::save(report, folder)
    {
        story.warn(&format!("the metrics could not be saved: {error}"));
    }
}

/// `--show` and `--compare`: one report, or two, as text.
///
/// # Errors
/// A sentence for the user, with the file.
pub fn look_at(paths: &[PathBuf]) -> Result<String, String> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
        let report = text.and_then(|text| Report::read(&text));
        report.map_err(|words| format!("{}: {words}", path.display()))
    };
    let reports: Vec<Report> = paths.iter().map(read).collect::<Result<_, _>>()?;
    match reports.as_slice() {
        [old, new] => report::compare(old, new),
        [one] => Ok(report::text(one)),
        _ => Err("one report is shown, or two are compared".to_owned()),
    }
}
