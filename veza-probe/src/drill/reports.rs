//! The reports of a drill, as far as they don't depend on what was broken.

use super::{Check, SoFar};
use crate::arguments::DrillArgs;
use crate::clock::{Clock, Signal};
use crate::fault::Plan;
use crate::report::keep::Keep;
use crate::report::{Report, Untouched};
use crate::undo::{Bug, End, Found, Recovered};
use crate::verdict::{Gate, Judgement, Verdict};

/// What the flags say of keeping; `--recover` has no metrics: it is no drill, and nothing may keep it
/// from mending.
pub(super) fn keep<C: Check>(check: &C) -> Keep<'_> {
    let args = check.drill();
    let keep = Keep::new(C::NAME, &args.output);
    Keep {
        textfile_dir: keep.textfile_dir.filter(|_| !args.recover),
        ..keep
    }
}

/// The report that stands in the folder of a run until it has ended.
pub(super) fn unfinished<C: Check>(clock: &Clock, check: &C) -> Report {
    let reason = "the run has not ended, or was killed; its watchdog heals what was broken";
    let next = format!("{} --recover", check.drill().so_far(C::NAME));
    let judgement = Judgement::new(Verdict::Internal, "unfinished", reason, next);
    Report::new(C::NAME, clock, &judgement)
}

/// A report that knows its verdict, its system, and the version of this program.
fn begun<C: Check>(clock: &Clock, judgement: &Judgement, system: String) -> Report {
    let mut report = Report::new(C::NAME, clock, judgement);
    report.system = system;
    report.condition("version", env!("CARGO_PKG_VERSION"));
    report
}

/// The report of a run that ended before anything was touched.
pub(super) fn untouched<C: Check>(clock: &Clock, check: &C, untouched: Untouched) -> Report {
    let mut report = begun::<C>(clock, &untouched.judgement, check.system());
    report.tables = untouched.tables;
    report.feasibility = untouched.feasibility;
    report.notes.push("nothing was touched".to_owned());
    report
}

/// What something that is not there comes to.
pub(super) fn missing(reason_id: &str, reason: String, next: &str) -> Judgement {
    Judgement::new(Verdict::MissingTool, reason_id, reason, next)
}

/// What a signal before the fault comes to.
pub(super) fn interrupted(signal: Signal) -> Judgement {
    let reason = format!("{signal} ended the run before anything was broken");
    let verdict = Verdict::Interrupted(signal);
    Judgement::new(verdict, "interrupted", reason, "run it again")
}

/// What a dry run came to.
pub(super) fn planned(plan: &Plan) -> Judgement {
    let reason = format!(
        "would break this: {}; for at most {} s, and undo it: {}",
        plan.told(),
        plan.ttl_s,
        plan.undo.told()
    );
    Judgement::new(
        Verdict::Planned,
        "dry-run",
        reason,
        "the same command without --dry-run",
    )
}

/// What a person does when a fault may still be in place, in commands that find this project.
pub(super) fn look_now(check: &str, args: &DrillArgs) -> String {
    let remote = args.remote.as_ref().map(|name| format!(" {name}:"));
    format!(
        "look now: {} --recover, then `incus --project {} list{}`",
        args.so_far(check),
        args.project,
        remote.unwrap_or_default()
    )
}

/// What a panic that reached the end of the run came to: the watchdog had to heal.
pub(super) fn of_a_bug<C: Check>(clock: &Clock, check: &C, bug: &Bug) -> Report {
    let words = &bug.words;
    let judgement = if bug.undone() {
        let reason = format!("a bug of this tool ended the run; the fault was undone: {words}");
        let next = "report it with the story above";
        Judgement::new(Verdict::Internal, "bug", reason, next)
    } else {
        let reason = format!("a bug of this tool ended the run, and the fault may remain: {words}");
        let next = look_now(C::NAME, check.drill());
        Judgement::new(Verdict::NotUndone, "fault-may-remain", reason, next)
    };
    let mut report = begun::<C>(clock, &judgement, check.system());
    let mended = bug.mended.iter();
    report
        .notes
        .extend(mended.map(|mended| format!("{}: {}", mended.by, mended.words)));
    report
}

/// What `--recover` came to.
pub(super) fn recovered<C: Check>(
    clock: &Clock,
    check: &C,
    recovered: Recovered,
    note: Option<String>,
) -> Report {
    let args = check.drill();
    let told = |run: &Found| format!("run {} {}", run.run, run.words);
    let again = look_now(C::NAME, args) + "; correct what stands in the way";
    // A timer beside drills has nothing to complain of when one is under way.
    let (verdict, reason_id, next) = if recovered.any(End::NotUndone) {
        (Verdict::NotUndone, "fault-may-remain", again.as_str())
    } else if recovered.any(End::LeftAlone) && !args.expired {
        let next = "wait for the end of what is under way";
        (Verdict::Refused, "drill-under-way", next)
    } else {
        (Verdict::Clean, "nothing-left", "nothing to do")
    };
    let reason = match recovered.runs.as_slice() {
        [] => "no record and no key of a drill was found".to_owned(),
        runs => runs.iter().map(told).collect::<Vec<_>>().join("; "),
    };
    let judgement = Judgement::new(verdict, reason_id, reason, next);
    let mut report = begun::<C>(clock, &judgement, format!("project {}", args.project));
    report.undo = recovered
        .runs
        .into_iter()
        .flat_map(|run| run.steps)
        .collect();
    report.notes.extend(note);
    report
}

/// The report of a run that came as far as its watch.
pub(super) fn assemble<C: Check>(
    clock: &Clock,
    check: &C,
    judgement: &Judgement,
    (so_far, gates): (&SoFar<'_, C>, Vec<Gate>),
) -> Report {
    let mut report = begun::<C>(clock, judgement, check.system());
    report.condition("Incus", so_far.found.site.told());
    report.fault = so_far.fault.cloned();
    let healed = so_far.healed.map(|healed| healed.steps.clone());
    report.undo = healed.unwrap_or_default();
    report.gates = gates;
    report.notes.clone_from(&so_far.notes);
    check.tell(so_far, &mut report);
    report
}
