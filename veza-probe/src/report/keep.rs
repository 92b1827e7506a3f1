//! Where the report, the events and the metrics of a run go, as its flags name it, and how reports
//! that were kept are looked at.

use std::path::{Path, PathBuf};

use super::{Folder, Report, Untouched, compare, text, textfile};
use crate::arguments::{Format, Output};
use crate::clock::Clock;
use crate::story::Story;
use crate::verdict::{Judgement, Verdict};

/// What the flags of a check say.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    /// The check.
    pub check: &'a str,
    /// `--report`: the folder that holds a folder for each run.
    pub report: Option<&'a Path>,
    /// `--keep`: how many runs are kept there.
    pub keep: Option<usize>,
    /// `--events`: a file, or `-`.
    pub events: Option<&'a Path>,
    /// `--textfile-dir`, where this run has metrics at all.
    pub textfile_dir: Option<&'a Path>,
}

impl<'a> Keep<'a> {
    /// What the arguments of a check say.
    pub fn new(check: &'a str, output: &'a Output) -> Keep<'a> {
        Keep {
            check,
            report: output.report.as_deref(),
            keep: output.keep,
            events: output.events.as_deref(),
            textfile_dir: output.textfile_dir.as_deref(),
        }
    }

    /// Makes the folder of this run, with a report that says that the run has not ended, in case it never
    /// does, and with its events; so a folder that can't be written to is told before anything is touched.
    ///
    /// # Errors
    /// Missing tool, with the flag and the path.
    pub fn open(
        &self,
        clock: &Clock,
        story: &Story,
        unfinished: &Report,
    ) -> Result<Option<Folder>, Untouched> {
        let unwritable = |flag: &str, error: &std::io::Error| {
            let reason = format!("{flag}: {error}");
            let next = "correct the folder or its permissions";
            missing("report-unwritable", reason, next)
        };
        match self.events {
            Some(path) if *path == *"-" => {
                story.record(*clock, "stdout", Box::new(std::io::stdout()));
            }
            Some(path) => {
                let file = std::fs::File::create(path);
                let file = file.map_err(|error| unwritable("--events", &error))?;
                story.record(*clock, &path.to_string_lossy(), Box::new(file));
            }
            None => {}
        }
        let Some(base) = self.report else {
            return Ok(None);
        };
        let made = Folder::make(base, self.check, clock).and_then(|folder| {
            folder.save(unfinished)?;
            let name = folder.path().to_string_lossy();
            story.record(*clock, &name, Box::new(folder.events()?));
            Ok(folder)
        });
        made.map(Some)
            .map_err(|error| unwritable("--report", &error))
    }

    /// A folder for metrics that can't be written to is told before anything is touched.
    ///
    /// # Errors
    /// Missing tool, with the flag and the path.
    pub fn look_at_metrics(&self) -> Result<(), Untouched> {
        let Some(folder) = self.textfile_dir else {
            return Ok(());
        };
        textfile::ready(self.check, folder).map_err(|error| {
            let reason = format!("--textfile-dir: {error}");
            let next = "correct the folder, its permissions, or the file in it";
            missing("textfile-unwritable", reason, next)
        })
    }

    /// Saves the report of a run that has ended, and removes older ones. What fails is told in the story
    /// and changes no verdict.
    pub fn save(&self, kept: Option<&Folder>, report: &Report, story: &Story) {
        save(kept, report, story);
        if let Some((kept, keep)) = kept.zip(self.keep)
            && let Err(error) = kept.keep(keep)
        {
            story.warn(&format!("older reports could not be removed: {error}"));
        }
    }

    /// Metrics that can't be written change no verdict: whoever watches them sees the last run grow old.
    pub fn save_metrics(&self, report: &Report, story: &Story) {
        if let Some(folder) = self.textfile_dir
            && let Err(error) = textfile::save(report, folder)
        {
            story.warn(&format!("the metrics could not be saved: {error}"));
        }
    }
}

fn missing(reason_id: &str, reason: String, next: &str) -> Untouched {
    Judgement::new(Verdict::MissingTool, reason_id, reason, next).into()
}

/// Saves a report, also one that is not the last.
pub fn save(kept: Option<&Folder>, report: &Report, story: &Story) {
    if let Some(folder) = kept
        && let Err(error) = folder.save(report)
    {
        story.warn(&format!("the report could not be saved: {error}"));
    }
}

/// What is printed on stdout of a run that has ended; nothing when it was to be quiet and there is
/// nothing to do.
pub fn printed(output: &Output, report: &Report) -> String {
    match output.format {
        Format::Text if output.quiet && matches!(report.verdict.as_str(), "pass" | "clean") => {
            String::new()
        }
        Format::Text => text(report),
        Format::Json => {
            let text = report.json();
            text.unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}\n"))
        }
    }
}

/// Reads a report that was kept.
///
/// # Errors
/// A sentence for the user, with the file.
pub fn read(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
    let report = text.and_then(|text| Report::read(&text));
    report.map_err(|words| format!("{}: {words}", path.display()))
}

/// `--show` and `--compare`: one report, or two, as text.
///
/// # Errors
/// A sentence for the user, with the file.
pub fn look_at(paths: &[PathBuf]) -> Result<String, String> {
    let reports: Vec<Report> = paths
        .iter()
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    match reports.as_slice() {
        [old, new] => compare(old, new),
        [one] => Ok(text(one)),
        _ => Err("one report is shown, or two are compared".to_owned()),
    }
}
