//! What will be broken, and whether it may be: allowed, restorable, agreed on.

use std::time::Duration;

use super::site::of_undo;
use super::{Check, Found, GRACE, INJECT_LIMIT, Later, STEADY_LIMIT};
use crate::clock::Clock;
use crate::fault::{self, Plan};
use crate::pulse::Pulse;
use crate::report::Untouched;
use crate::story::Story;
use crate::undo::{self, Refusal};
use crate::verdict::{Judgement, Verdict};

/// What will be broken.
///
/// # Errors
/// Refused: nobody has allowed it, or it could not be put back exactly as it was found.
pub(super) async fn plan<C: Check>(
    clock: &Clock,
    check: &C,
    found: &Found<C>,
) -> Result<Plan, Untouched> {
    let (site, args, kind) = (&found.site, check.drill(), check.fault());
    let (names, pulses): (Vec<_>, Vec<Pulse>) = check
        .broken(found)
        .into_iter()
        .map(|broken| (broken.instance, broken.asked.pulse))
        .unzip();
    let own = site.instances.iter().filter(|i| names.contains(&i.name));
    let own: Vec<_> = own.map(|i| (i.name.as_str(), &i.config)).collect();
    let project = (args.project.as_str(), &site.project_config);
    undo::permitted(&kind, project, &own).map_err(|refusal| of_undo(&refusal))?;
    let unwatched = match kind.breaks() {
        true => undo::watched(site.incus.place(), project, clock.wall(clock.at())).err(),
        false => None,
    };
    if let Some(refusal) = unwatched.as_ref().filter(|_| !args.dry_run) {
        return Err(of_undo(refusal));
    }
    let system = check.system();
    let prepared = fault::prepare(&site.incus, &system, &kind, &names, &pulses).await;
    let mut plan = prepared.map_err(|unfit| {
        let (reason, next) = (unfit.to_string(), unfit.next(&args.project));
        Judgement::new(Verdict::Refused, unfit.reason_id(), reason, next)
    })?;
    let refused = |refusal: Refusal| {
        format!(
            "without --dry-run it would be refused: {}; next: {}",
            refusal.reason, refusal.next
        )
    };
    plan_later(check, found, &mut plan).await?;
    plan.notes.extend(unwatched.map(refused));
    plan.ttl_s = (args.max_fault(check.rto_target()) + GRACE).as_secs();
    Ok(plan)
}

/// Adds what a check breaks later to its plan.
///
/// # Errors
/// Refused: nobody has allowed it, or it could not be put back exactly as it was found.
async fn plan_later<C: Check>(
    check: &C,
    found: &Found<C>,
    plan: &mut Plan,
) -> Result<(), Untouched> {
    let (site, args) = (&found.site, check.drill());
    for Later { kind, broken, .. } in check.later(found) {
        let (names, pulses): (Vec<_>, Vec<Pulse>) = broken
            .into_iter()
            .map(|broken| (broken.instance, broken.asked.pulse))
            .unzip();
        let own = site.instances.iter().filter(|i| names.contains(&i.name));
        let own: Vec<_> = own.map(|i| (i.name.as_str(), &i.config)).collect();
        let project = (args.project.as_str(), &site.project_config);
        undo::permitted(&kind, project, &own).map_err(|refusal| of_undo(&refusal))?;
        let prepared = fault::prepare_later(&site.incus, plan, &kind, &names, &pulses).await;
        prepared.map_err(|unfit| {
            let (reason, next) = (unfit.to_string(), unfit.next(&args.project));
            Judgement::new(Verdict::Refused, unfit.reason_id(), reason, next)
        })?;
    }
    Ok(())
}

/// Refuses a drill that nobody has confirmed, or that would not end in its window.
///
/// # Errors
/// Refused, with the flag or the sum.
pub(super) async fn agreed<C: Check>(
    clock: &Clock,
    story: &Story,
    check: &C,
    found: &Found<C>,
    plan: &Plan,
) -> Result<(), Untouched> {
    let args = check.drill();
    if let Some(window) = &args.window {
        let before = check.preparation() + args.warm_up + STEADY_LIMIT;
        let watched = before + check.redundancy_target() + args.settle;
        let needed = watched + INJECT_LIMIT + Duration::from_secs(plan.ttl_s);
        window
            .fits(clock.wall(clock.at()), needed)
            .map_err(|words| {
                let next = "run it in the window, or with smaller limits";
                Judgement::new(Verdict::Refused, "outside-window", words, next)
            })?;
    }
    if args.dry_run || !plan.kind.breaks() {
        return Ok(());
    }
    let system = &plan.system;
    let config = &found.site.project_config;
    let in_lab = undo::is_lab(config, |name| std::env::var_os(name));
    let mut typed = args.confirm.clone();
    if !in_lab && !args.yes && typed.is_none() {
        let question = format!("{}. To go on, type: {system}", plan.told());
        typed = story.ask(&question).await;
    }
    undo::confirmed(system, in_lab, args.yes, typed.as_deref()).map_err(|refusal| of_undo(&refusal))
}
