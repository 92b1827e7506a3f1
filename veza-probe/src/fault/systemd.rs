//! Units of an instance's own systemd, asked and changed by `systemctl` in it.
//!
//! Never asked of a frozen instance: the command would hang.

use std::time::Duration;

use super::{Progress, Target, Tried, Undo, UndoStep, Unfit, Unit};
use crate::incus::{Error, ExecOutput, Incus, Status};
use crate::instance::InstanceName;

/// How long one question may take; a start has [`START_LIMIT`].
const LIMIT: Duration = Duration::from_secs(15);
/// How long a unit may take to start or to stop cleanly.
pub(super) const START_LIMIT: Duration = Duration::from_secs(45);

/// A unit as its systemd describes it (`systemctl show`).
pub(super) struct State {
    /// `ActiveState`: `active`, `failed`, `activating` while it waits for its restart.
    pub(super) active: String,
    /// `LoadState`: `loaded` when there is such a unit.
    pub(super) load: String,
    /// `Restart`: when systemd starts it again by itself.
    pub(super) restart: String,
    /// `InvocationID`: each run of the unit has another one.
    pub(super) invocation: String,
    /// Units that stop when it stops.
    pub(super) dependants: Vec<Unit>,
}

/// Why a unit's state could not be had.
enum Trouble {
    Incus(Error),
    Words(String),
}

impl Trouble {
    fn told(self) -> String {
        match self {
            Trouble::Incus(error) => error.to_string(),
            Trouble::Words(words) => words,
        }
    }
}

async fn ask(incus: &Incus, name: &InstanceName, unit: &Unit) -> Result<State, Trouble> {
    let argv = [
        "systemctl",
        "show",
        "--property=ActiveState,LoadState,Restart,InvocationID,RequiredBy,BoundBy,ConsistsOf",
        "--",
        unit.as_str(),
    ];
    let output = incus
        .exec(name, &argv, LIMIT)
        .await
        .map_err(Trouble::Incus)?;
    if output.code != 0 {
        return Err(Trouble::Words(told(&output)));
    }
    let property = |key: &str| {
        let mut lines = output.stdout.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().to_owned()
    };
    let dependants = ["RequiredBy", "BoundBy", "ConsistsOf"]
        .map(property)
        .join(" ");
    let services = dependants
        .split_whitespace()
        .filter(|n| n.ends_with(".service"));
    Ok(State {
        active: property("ActiveState"),
        load: property("LoadState"),
        restart: property("Restart"),
        invocation: property("InvocationID"),
        dependants: services.filter_map(|name| Unit::new(name).ok()).collect(),
    })
}

fn told(output: &ExecOutput) -> String {
    let words = format!("{} {}", output.stderr.trim(), output.stdout.trim());
    format!("exit code {}: {}", output.code, words.trim())
}

/// An active unit, as it was found.
pub(super) async fn active(incus: &Incus, target: &Target, unit: &Unit) -> Result<State, Unfit> {
    let instance = &target.instance;
    let asked = ask(incus, instance, unit).await;
    let state = asked.map_err(|trouble| Unfit::Systemd {
        instance: instance.clone(),
        unit: unit.clone(),
        words: trouble.told(),
    })?;
    if state.load != "loaded" || state.active != "active" {
        let state = match state.load.as_str() {
            "loaded" => state.active,
            other => other.to_owned(),
        };
        return Err(Unfit::UnitNotActive {
            instance: instance.clone(),
            unit: unit.clone(),
            state,
        });
    }
    let path = drop_in(unit);
    let there = incus.exec(instance, &["test", "-e", &path], LIMIT).await?;
    if there.code == 0 {
        return Err(Unfit::DropInThere {
            instance: instance.clone(),
            unit: unit.clone(),
            path,
        });
    }
    Ok(state)
}

/// The steps that bring a unit back, and what was active with it.
pub(super) async fn start_steps(
    incus: &Incus,
    target: &Target,
    unit: &Unit,
    state: &State,
) -> Vec<UndoStep> {
    let mut steps = vec![UndoStep::StartUnit {
        target: target.clone(),
        unit: unit.clone(),
        invocation: Some(state.invocation.clone()),
    }];
    for dependant in &state.dependants {
        let found = ask(incus, &target.instance, dependant).await;
        if found.is_ok_and(|found| found.active == "active") {
            steps.push(UndoStep::StartUnit {
                target: target.clone(),
                unit: dependant.clone(),
                invocation: None,
            });
        }
    }
    steps
}

/// The drop-in of a drill: in `/run`, so that a boot removes it. The unit file itself may stand in
/// `/etc`, over which a runtime mask would have no power; drop-ins of all folders are merged.
fn drop_in(unit: &Unit) -> String {
    format!("/run/systemd/system/{unit}.d/veza-drill.conf")
}

/// Writes the drop-in and then does something about the unit: one command, so that there is no moment
/// between the two.
pub(super) async fn with_drop_in(
    incus: &Incus,
    target: &Target,
    unit: &Unit,
    text: &str,
    then: &str,
) -> Result<(), Error> {
    let script = format!(
        "mkdir -p \"${{1%/*}}\" && printf '%s' \"$2\" >\"$1\" && systemctl daemon-reload && {then}"
    );
    let path = drop_in(unit);
    let argv = ["sh", "-c", &script, "sh", &path, text, unit.as_str()];
    run(incus, target, &argv).await
}

/// Kills every process of the unit.
pub(super) const KILL: &str = "systemctl kill --kill-whom=all --signal=KILL -- \"$3\"";

/// Runs a command of injecting; another exit code than 0 is an error.
pub(super) async fn run(incus: &Incus, target: &Target, argv: &[&str]) -> Result<(), Error> {
    let output = incus.exec(&target.instance, argv, START_LIMIT).await?;
    if output.code == 0 {
        return Ok(());
    }
    Err(Error::Operation {
        asked: format!("{} in {}", argv.join(" "), target.instance),
        words: told(&output),
    })
}

/// What systemd says of a unit that is to be down.
pub(super) async fn seen_down(incus: &Incus, target: &Target, unit: &Unit) -> Option<String> {
    let state = ask(incus, &target.instance, unit).await.ok()?;
    matches!(state.active.as_str(), "inactive" | "failed").then(|| {
        format!(
            "systemd in {} calls {unit} {}",
            target.instance, state.active
        )
    })
}

/// What systemd calls a unit's run now.
pub(super) async fn invocation(incus: &Incus, target: &Target, unit: &Unit) -> Option<String> {
    Some(ask(incus, &target.instance, unit).await.ok()?.invocation)
}

/// The run of a unit before the fault, as the undo has it.
pub(super) fn invocation_before<'a>(undo: &'a Undo, unit: &Unit) -> Option<&'a str> {
    undo.steps.iter().find_map(|step| match step {
        UndoStep::StartUnit {
            unit: of,
            invocation,
            ..
        } if of == unit => invocation.as_deref(),
        _ => None,
    })
}

/// Asks only of an instance that runs: one that is stopped or frozen answers nothing.
async fn stands_in_the_way(incus: &Incus, target: &Target) -> Result<Option<String>, Error> {
    let found = incus.instance(&target.instance).await?;
    Ok(match found.status {
        Status::Running => None,
        other => Some(format!("{} is {other}", target.instance)),
    })
}

pub(super) async fn remove_drop_in(incus: &Incus, target: &Target, unit: &Unit) -> Tried {
    let found = incus.instance(&target.instance).await?;
    match found.status {
        Status::Running => {}
        Status::Stopped => {
            let words = format!("{} is stopped: /run went with it", target.instance);
            return Ok(Progress::Done(words));
        }
        other => return Ok(Progress::NotYet(format!("{} is {other}", target.instance))),
    }
    // A check that was killed may have left its command running: what it does would come after us.
    if incus.is_executing(&target.instance).await? {
        let words = format!("a command in {} still runs", target.instance);
        return Ok(Progress::NotYet(words));
    }
    let script = "rm -f \"$1\" && { rmdir \"${1%/*}\" 2>/dev/null || true; } && \
                  systemctl daemon-reload && test ! -e \"$1\"";
    let path = drop_in(unit);
    let output = incus
        .exec(&target.instance, &["sh", "-c", script, "sh", &path], LIMIT)
        .await?;
    Ok(if output.code == 0 {
        Progress::Done("the drop-in is not there".to_owned())
    } else {
        Progress::NotYet(told(&output))
    })
}

/// Active again, in another run than before; a unit that is still in that run was never broken.
pub(super) async fn start(
    incus: &Incus,
    target: &Target,
    unit: &Unit,
    before: Option<&str>,
) -> Tried {
    if let Some(words) = stands_in_the_way(incus, target).await? {
        return Ok(Progress::NotYet(words));
    }
    let state = match ask(incus, &target.instance, unit).await {
        Ok(state) => state,
        Err(Trouble::Incus(error)) => return Err(error),
        Err(Trouble::Words(words)) => return Ok(Progress::NotYet(words)),
    };
    if state.active == "active" {
        let same = before == Some(state.invocation.as_str());
        if same && incus.is_executing(&target.instance).await? {
            let words = format!("a command in {} still runs", target.instance);
            return Ok(Progress::NotYet(words));
        }
        let words = if same {
            "was never stopped"
        } else {
            "runs again"
        };
        return Ok(Progress::Done(format!("{unit} {words}")));
    }
    // A unit that is given up as failed after many starts must be cleared first.
    let script = "systemctl reset-failed -- \"$1\" 2>/dev/null; systemctl start -- \"$1\"";
    let argv = ["sh", "-c", script, "sh", unit.as_str()];
    let output = incus.exec(&target.instance, &argv, START_LIMIT).await?;
    Ok(Progress::NotYet(match output.code {
        0 => format!("{unit} was told to start"),
        _ => told(&output),
    }))
}
