//! The fault of this check: whichever node is primary now is broken; proof that it is gone, and later
//! that it is back, comes from PostgreSQL's own protocol.

use std::time::Duration;

use veza_probe::clock::{self, Clock};
use veza_probe::command::Command;
use veza_probe::fault::{self, Evidence, Fault, Kind, Plan, Undo};
use veza_probe::incus::Incus;
use veza_probe::instance::InstanceName;
use veza_probe::pulse::{Protocol, Pulse};
use veza_probe::report::Untouched;
use veza_probe::story::Story;
use veza_probe::undo::{self, Chore, Intent, Journal, Leash, Refusal, WATCHDOG_WORD};
use veza_probe::verdict::{Judgement, Verdict};

use crate::baseline::{Baseline, Member};
use crate::cli::{Args, CHECK};
use crate::targets::{Targets, of_undo};

/// How long one question may stay without an answer to count as none.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// How long evidence is looked for after the injecting call.
const EVIDENCE_LIMIT: Duration = Duration::from_secs(10);

/// How long healing may take in all: two boots of a container and some.
pub const HEAL_LIMIT: Duration = Duration::from_secs(120);

/// How long the watchdog waits beyond the longest fault for a check that should be healing by then;
/// evidence may have been looked for in vain meanwhile.
const GRACE: Duration = Duration::from_secs(15);

/// How long beyond the warm-up a client may take to become steady: first writes into a new table, and
/// on a machine that was just started, may be slow.
pub const STEADY_LIMIT: Duration = Duration::from_secs(10);

/// How long the injecting calls themselves may take: a unit may be slow to stop.
const INJECT_LIMIT: Duration = Duration::from_secs(60);

/// What will be broken.
///
/// # Errors
/// Refused: nobody has allowed it, or it could not be put back exactly as it was found.
pub async fn plan(
    clock: &Clock,
    targets: &Targets,
    baseline: &Baseline,
    args: &Args,
) -> Result<Plan, Untouched> {
    let primary = baseline.primary();
    let name = &primary.instance;
    let own = targets.instances.iter().find(|i| i.name == *name);
    let own: Vec<_> = own.iter().map(|i| (i.name.as_str(), &i.config)).collect();
    let project = (args.project.as_str(), &targets.project_config);
    undo::permitted(&args.fault, project, &own).map_err(|refusal| of_undo(&refusal))?;
    let unwatched = match args.fault.breaks() {
        true => undo::watched(targets.incus.place(), project, clock.wall(clock.at())).err(),
        false => None,
    };
    if let Some(refusal) = unwatched.as_ref().filter(|_| !args.dry_run) {
        return Err(of_undo(refusal));
    }
    let observer = args.observe_from.as_ref();
    let (system, pulse) = (system(args), pulse(primary, observer));
    let prepared = fault::prepare(
        &targets.incus,
        &system,
        &args.fault,
        std::slice::from_ref(name),
        std::slice::from_ref(&pulse),
    );
    let mut plan = prepared.await.map_err(|unfit| {
        let (reason, next) = (unfit.to_string(), unfit.next(&args.project));
        Judgement::new(Verdict::Refused, unfit.reason_id(), reason, next)
    })?;
    let refused = |refusal: Refusal| {
        format!(
            "without --dry-run it would be refused: {}; next: {}",
            refusal.reason, refusal.next
        )
    };
    plan.notes.extend(unwatched.map(refused));
    plan.ttl_s = (args.max_fault() + GRACE).as_secs();
    Ok(plan)
}

/// Refuses a drill that nobody has confirmed, or that would not end in its window.
///
/// # Errors
/// Refused, with the flag or the sum.
pub async fn agreed(
    clock: &Clock,
    story: &Story,
    targets: &Targets,
    plan: &Plan,
    args: &Args,
) -> Result<(), Untouched> {
    if let Some(window) = &args.window {
        let watched = args.warm_up + STEADY_LIMIT + args.redundancy_target + args.settle;
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
    let in_lab = undo::is_lab(&targets.project_config, |name| std::env::var_os(name));
    let mut typed = args.confirm.clone();
    if !in_lab && !args.yes && typed.is_none() {
        let question = format!("{}. To go on, type: {system}", plan.told());
        typed = story.ask(&question).await;
    }
    undo::confirmed(system, in_lab, args.yes, typed.as_deref()).map_err(|refusal| of_undo(&refusal))
}

/// The system's name in reports and records.
pub fn system(args: &Args) -> String {
    format!(
        "formation {}/{} in project {}",
        args.formation, args.group, args.project
    )
}

/// Whether the network no longer reaches the primary, although it runs.
pub fn cuts_off(plan: &Plan) -> bool {
    plan.kind == Kind::Partition
}

fn pulse(member: &Member, observer: Option<&InstanceName>) -> Pulse {
    Pulse {
        name: member.node.name.clone(),
        address: member.at.address,
        protocol: Protocol::Postgres,
        from: observer.cloned(),
    }
}

/// Makes sure that whatever happens from now on is undone: locks, record, watchdog. `run` is this
/// run's name; a run that breaks nothing has only its chores to undo.
///
/// # Errors
/// Refused: another drill is at this system, or the state folder can't be written to.
pub async fn journal(
    targets: &Targets,
    clock: &Clock,
    (plan, run): (&Plan, &str),
    baseline: &Baseline,
    (args, chores): (&Args, Vec<Chore>),
    leash: &Leash,
) -> Result<Journal, Untouched> {
    let mut plan = plan.clone();
    if args.dry_run {
        plan.undo = Undo::default();
    }
    let intent = Intent {
        check: CHECK,
        run,
        plan: &plan,
        members: members(targets, baseline),
        chores,
        warm_up: args.warm_up,
    };
    let watchdog = Command::new("/proc/self/exe")
        .arg(WATCHDOG_WORD)
        .args(std::env::args_os().skip(1));
    let opened = Journal::open(
        &targets.incus,
        clock,
        &targets.state,
        intent,
        watchdog,
        leash,
    );
    opened.await.map_err(|refusal| of_undo(&refusal))
}

/// The formation's instances: its nodes, and the monitor where it is one of the project's.
fn members(targets: &Targets, baseline: &Baseline) -> Vec<InstanceName> {
    let mut names: Vec<_> = baseline
        .members
        .iter()
        .map(|m| m.instance.clone())
        .collect();
    let monitor = targets.monitor_at.address.ip();
    let monitor = targets
        .instances
        .iter()
        .find(|i| i.ipv4().iter().any(|address| *address == monitor));
    names.extend(monitor.map(|i| i.name.clone()));
    names.sort();
    names.dedup();
    names
}

/// Injects the fault and looks for evidence: the target gives no protocol answer while another node
/// does.
///
/// # Errors
/// Refused while nothing is broken: a key of another drill, or no watchdog any more. Afterwards it is
/// always a fault, perhaps without evidence.
pub async fn inject(
    incus: &Incus,
    clock: &Clock,
    plan: &Plan,
    baseline: &Baseline,
    journal: &mut Journal,
) -> Result<Fault, Untouched> {
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
        fault.evidence = look(clock, baseline).await;
        if fault.evidence.is_none() && matches!(plan.kind, Kind::KillRestart(_)) {
            fault.evidence = restarted(incus, clock, plan, baseline).await;
        }
        clock::sleep(Duration::from_millis(20)).await;
    }
    if let Some(evidence) = fault.evidence.as_mut().filter(|e| e.host.is_none()) {
        evidence.host = fault::seen(incus, plan).await;
    }
    Ok(fault)
}

async fn look(clock: &Clock, baseline: &Baseline) -> Option<Evidence> {
    let primary = baseline.primary();
    let asked = pulse(primary, None);
    let silent = asked.ask(&primary.at.way, ANSWER_LIMIT).await.err()?;
    Some(Evidence {
        at: clock.at(),
        target: format!("{} gives no protocol answer ({silent})", primary.node.name),
        control: control(baseline).await?,
        host: None,
    })
}

/// A restart may be over before anyone asks: then it is a new run of the unit that proves it.
async fn restarted(
    incus: &Incus,
    clock: &Clock,
    plan: &Plan,
    baseline: &Baseline,
) -> Option<Evidence> {
    let seen = fault::seen(incus, plan).await?;
    Some(Evidence {
        at: clock.at(),
        target: format!("{} was started anew", baseline.primary().node.name),
        control: control(baseline).await?,
        host: Some(seen),
    })
}

/// A member that answers over the same path: without one, silence may be our own blindness.
async fn control(baseline: &Baseline) -> Option<String> {
    let nodes = baseline
        .others()
        .map(|node| (pulse(node, None), &node.at.way));
    // The monitor speaks the same protocol over the same network: it still tells our own blindness
    // from the target's silence when no other node is left.
    let monitor = Pulse {
        name: "the monitor".to_owned(),
        address: baseline.monitor.at.address,
        protocol: Protocol::Postgres,
        from: None,
    };
    for (pulse, way) in nodes.chain([(monitor, &baseline.monitor.at.way)]) {
        if let Ok(word) = pulse.ask(way, ANSWER_LIMIT).await {
            return Some(format!("{} answers ({word})", pulse.name));
        }
    }
    None
}
