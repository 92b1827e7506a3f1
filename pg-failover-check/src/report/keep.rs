//! Where reports and metrics of this check are kept.

use veza_probe::clock::Clock;
use veza_probe::report::keep::Keep;
use veza_probe::report::{Folder, Report, Untouched};
use veza_probe::story::Story;
use veza_probe::verdict::{Judgement, Verdict};

use crate::cli::{Args, CHECK};

pub use veza_probe::report::keep::{look_at, printed, save};

/// What the flags say; `--recover` has no metrics: it is no drill, and nothing may keep it from mending.
fn flags(args: &Args) -> Keep<'_> {
    let flags = Keep::new(CHECK, &args.output);
    Keep {
        textfile_dir: flags.textfile_dir.filter(|_| !args.recover),
        ..flags
    }
}

/// Makes the folder of this run; see [`Keep::open`].
pub fn open(args: &Args, clock: &Clock, story: &Story) -> Result<Option<Folder>, Untouched> {
    let reason = "the run has not ended, or was killed; its watchdog heals what was broken";
    let next = format!("{} --recover", args.so_far());
    let judgement = Judgement::new(Verdict::Internal, "unfinished", reason, next);
    flags(args).open(clock, story, &Report::new(CHECK, clock, &judgement))
}

/// See [`Keep::save`].
pub fn save_last(args: &Args, kept: Option<&Folder>, report: &Report, story: &Story) {
    flags(args).save(kept, report, story);
}

/// See [`Keep::look_at_metrics`].
pub fn look_at_metrics(args: &Args) -> Result<(), Untouched> {
    flags(args).look_at_metrics()
}

/// See [`Keep::save_metrics`].
pub fn save_metrics(args: &Args, report: &Report, story: &Story) {
    flags(args).save_metrics(report, story);
}
