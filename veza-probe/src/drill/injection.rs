//! The moment of the fault: what undoes it is made sure of first, and evidence is looked for after it.

use std::time::Duration;

use super::site::of_undo;
use super::{Asked, Broken, Check, Found, INJECT_LIMIT};
use crate::clock::{self, Clock};
use crate::command::Command;
use crate::fault::{self, Evidence, Fault, Kind, Plan, Undo};
use crate::report::Untouched;
use crate::undo::{Intent, Journal, Leash, WATCHDOG_WORD};

/// How long one question may stay without an answer to count as none.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// How long evidence is looked for after the injecting call.
pub(super) const EVIDENCE_LIMIT: Duration = Duration::from_secs(10);

/// The pause between two looks for it.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Makes sure that whatever happens from now on is undone: locks, record, watchdog. `run` is this
/// run's name; a run that breaks nothing has only its chores to undo.
///
/// # Errors
/// Refused: another drill is at this system, or the state folder can't be written to.
pub(super) async fn journal<C: Check>(
    clock: &Clock,
    check: &C,
    found: &Found<C>,
    (plan, run): (&Plan, &str),
    leash: &Leash,
) -> Result<Journal, Untouched> {
    let mut plan = plan.clone();
    if check.drill().dry_run {
        plan.undo = Undo::default();
    }
    let mut members = check.members(found);
    members.sort();
    members.dedup();
    let intent = Intent {
        check: C::NAME,
        run,
        plan: &plan,
        members,
        chores: check.chores(found, run),
        warm_up: check.drill().warm_up + check.preparation(),
    };
    let watchdog = Command::new("/proc/self/exe")
        .arg(WATCHDOG_WORD)
        .args(std::env::args_os().skip(1));
    let (incus, state) = (&found.site.incus, &found.site.state);
    let opened = Journal::open(incus, clock, state, intent, watchdog, leash);
    opened.await.map_err(|refusal| of_undo(&refusal))
}

/// Injects the fault and looks for evidence: the targets give no protocol answer while another member
/// does.
///
/// # Errors
/// Refused while nothing is broken: a key of another drill, or no watchdog any more. Afterwards it is
/// always a fault, perhaps without evidence.
pub(super) async fn inject<C: Check>(
    clock: &Clock,
    check: &C,
    found: &Found<C>,
    plan: &Plan,
    journal: &mut Journal,
) -> Result<Fault, Untouched> {
    let incus = &found.site.incus;
    let set = journal.set_keys().await;
    set.map_err(|refusal| of_undo(&refusal))?;
    let ttl = Duration::from_secs(plan.ttl_s);
    let told = journal.breaking(ttl + INJECT_LIMIT).await;
    told.map_err(|refusal| of_undo(&refusal))?;
    let mut fault = fault::inject(incus, clock, plan).await;
    // If there is no watchdog any more, it is healed here, and at once.
    if let Err(refusal) = journal.breaking(ttl).await {
        fault.trouble.get_or_insert(refusal.reason);
        return Ok(fault);
    }
    if !plan.kind.breaks() {
        return Ok(fault);
    }
    let deadline = clock.at().plus(EVIDENCE_LIMIT);
    while fault.evidence.is_none() && clock.at() < deadline {
        let (broken, controls) = (check.broken(found), check.controls(found));
        fault.evidence = look(clock, &broken, &controls).await;
        if fault.evidence.is_none() && matches!(plan.kind, Kind::KillRestart(_)) {
            fault.evidence = restarted(clock, check, found, plan).await;
        }
        clock::sleep(LOOK_EVERY).await;
    }
    if let Some(evidence) = fault.evidence.as_mut().filter(|e| e.host.is_none()) {
        evidence.host = fault::seen(incus, plan).await;
    }
    Ok(fault)
}

/// Proof that everything of `broken` is silent while one of `controls` answers; none where that is not so.
pub(super) async fn look(clock: &Clock, broken: &[Broken], controls: &[Asked]) -> Option<Evidence> {
    let mut silent = Vec::new();
    for broken in broken {
        let Asked { pulse, way } = &broken.asked;
        let why = pulse.ask(way, ANSWER_LIMIT).await.err()?;
        silent.push(format!("{} gives no protocol answer ({why})", pulse.name));
    }
    if silent.is_empty() {
        return None;
    }
    Some(Evidence {
        at: clock.at(),
        target: silent.join("; "),
        control: control(controls).await?,
        host: None,
    })
}

/// A restart may be over before anyone asks: then it is a new run of the unit that proves it.
async fn restarted<C: Check>(
    clock: &Clock,
    check: &C,
    found: &Found<C>,
    plan: &Plan,
) -> Option<Evidence> {
    let seen = fault::seen(&found.site.incus, plan).await?;
    let broken = check.broken(found).into_iter();
    let anew = broken.map(|broken| format!("{} was started anew", broken.asked.pulse.name));
    Some(Evidence {
        at: clock.at(),
        target: anew.collect::<Vec<_>>().join("; "),
        control: control(&check.controls(found)).await?,
        host: Some(seen),
    })
}

/// A member that answers over the same path: without one, silence may be our own blindness.
async fn control(controls: &[Asked]) -> Option<String> {
    for Asked { pulse, way } in controls {
        if let Ok(word) = pulse.ask(way, ANSWER_LIMIT).await {
            return Some(format!("{} answers ({word})", pulse.name));
        }
    }
    None
}
