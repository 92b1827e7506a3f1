//! `--recover`: mends what a drill left broken, by its record, or by the Incus keys alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{self, Content};
use super::lock::Locks;
use super::mend::Mender;
use super::record::{Chore, Record};
use super::state::State;
use super::{FAULT_KEY, Refusal};
use crate::clock::Clock;
use crate::fault::HealedStep;
use crate::incus::{Error, Incus, Instance, Place};
use crate::instance::InstanceName;

/// How long one run's healing may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What is to be looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Only what has outlived its time: for a timer that runs beside drills.
    pub expired_only: bool,
    /// Also what a drill on another host may still be at.
    pub take_over: bool,
}

/// What was found of one run.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub run: String,
    /// What it broke and what was done about it, in a line.
    pub words: String,
    /// What came of it.
    pub end: End,
    /// The steps that were taken.
    pub steps: Vec<HealedStep>,
}

/// What came of a run that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is as it was before.
    Undone,
    /// It is not.
    NotUndone,
    /// It still goes on, or has time left: it was left alone.
    LeftAlone,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// A run each.
    pub runs: Vec<Found>,
}

impl Recovered {
    /// Whether some run came to this.
    pub fn any(&self, end: End) -> bool {
        self.runs.iter().any(|run| run.end == end)
    }
}

/// What is known of a run.
#[derive(Default)]
struct Case {
    record: Option<Record>,
    /// The file that can't be read, and why.
    unreadable: Option<(PathBuf, String)>,
    claims: Vec<InstanceName>,
    on_file: bool,
}

/// Why nothing was looked for.
#[derive(Debug, thiserror::Error)]
pub enum Unrecovered {
    /// Incus can't be asked.
    #[error(transparent)]
    Incus(#[from] Error),
    /// The state folder can't be read.
    #[error(transparent)]
    State(#[from] Refusal),
}

/// Looks at all records of the state folder and all keys of the project, and mends what is broken.
///
/// # Errors
/// [`Unrecovered`].
pub async fn recover<C: AsyncFn(&Chore) -> Result<String, String>>(
    incus: &Incus,
    clock: &Clock,
    state: &State,
    wanted: Wanted,
    (check, chores): (&str, &C),
) -> Result<Recovered, Unrecovered> {
    let mut recovered = Recovered::default();
    for (run, case) in cases(incus, state, &mut recovered).await? {
        let found = match &case.record {
            Some(record) => {
                let held = leave_alone(state, clock, record, &case, wanted);
                match held {
                    Err(words) => alone(&run, words),
                    Ok(_locks) => {
                        let mender = Mender {
                            clock,
                            state,
                            by: "recover",
                            why: "asked by a person or a timer".to_owned(),
                            limit: LIMIT,
                            check,
                            chores,
                        };
                        mended(&mender, incus, record, &case).await
                    }
                }
            }
            None => without_record(incus, &run, &case).await,
        };
        recovered.runs.push(found);
    }
    Ok(recovered)
}

async fn cases(
    incus: &Incus,
    state: &State,
    recovered: &mut Recovered,
) -> Result<BTreeMap<String, Case>, Unrecovered> {
    let instances = incus.instances().await?;
    let entries = state.records()?;
    let mut cases = by_key(incus, &instances, recovered);
    for entry in entries {
        match entry.record {
            Ok(record) if is_here(incus, &record, &cases) => {
                let case = cases.entry(record.run.clone()).or_default();
                case.on_file = true;
                case.record = Some(record);
            }
            Ok(record) => recovered
                .runs
                .push(alone(&record.run, elsewhere(incus, &record))),
            Err(words) => {
                let run = entry.path.file_stem().unwrap_or_default();
                let case = cases.entry(run.to_string_lossy().into_owned()).or_default();
                case.unreadable = Some((entry.path, words));
            }
        }
    }
    Ok(cases)
}

/// Whether a record is of the project, and of the server, that is asked now: of two servers, each may
/// have instances of the same names. A server whose keys tell of the run is the one, whichever way it
/// is asked.
fn is_here(incus: &Incus, record: &Record, by_key: &BTreeMap<String, Case>) -> bool {
    let known = by_key.contains_key(&record.run);
    record.project == incus.project() && (known || record.place.is_same_server(incus.place()))
}

/// How to ask for a run that is of another project or server.
fn elsewhere(incus: &Incus, record: &Record) -> String {
    let Record { project, place, .. } = record;
    if place.is_same_server(incus.place()) {
        return format!("is of project {project}: --project {project} --recover");
    }
    match place {
        Place::Socket(socket) => {
            let socket = socket.display();
            format!("is of the Incus at {socket}: --project {project} --recover without --remote")
        }
        Place::Remote { name, folder } => {
            let folder = folder.display();
            format!(
                "is of the remote {name} in {folder}: INCUS_CONF={folder} and --remote {name} --project {project} --recover"
            )
        }
    }
}

/// The runs that the instances' keys tell of.
fn by_key(
    incus: &Incus,
    instances: &[Instance],
    recovered: &mut Recovered,
) -> BTreeMap<String, Case> {
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for instance in instances {
        match keys::of(instance) {
            Some(Content::Fault(record)) => {
                let case = cases.entry(record.run.clone()).or_default();
                case.record.get_or_insert(*record);
            }
            Some(Content::Claim(claim)) => {
                let case = cases.entry(claim.run).or_default();
                case.claims.push(instance.name.clone());
            }
            Some(Content::Unreadable(words)) => recovered.runs.push(Found {
                run: "?".to_owned(),
                words: format!(
                    "{FAULT_KEY} of {} can't be read ({words}): look at the instance, then: incus \
                     --project {} config unset {} {FAULT_KEY}",
                    instance.name,
                    incus.project(),
                    instance.name
                ),
                end: End::NotUndone,
                steps: Vec::new(),
            }),
            None => {}
        }
    }
    cases
}

fn alone(run: &str, words: String) -> Found {
    Found {
        run: run.to_owned(),
        words,
        end: End::LeftAlone,
        steps: Vec::new(),
    }
}

/// The locks of a run that may be mended now, or why it is to be left alone.
fn leave_alone(
    state: &State,
    clock: &Clock,
    record: &Record,
    case: &Case,
    wanted: Wanted,
) -> Result<Option<Locks>, String> {
    let told = record.plan_told();
    let expires: Option<jiff::Timestamp> = record.expires.parse().ok();
    let has_time = expires.is_some_and(|expires| clock.wall(clock.at()) < expires);
    if wanted.expired_only && has_time {
        return Err(format!("({told}) has time until {}", record.expires));
    }
    for process in std::iter::once(&record.owner).chain(&record.watchdog) {
        if process.lives() {
            return Err(format!(
                "({told}) is still at work as process {}",
                process.pid
            ));
        }
    }
    if !case.on_file && !record.owner.is_here() && has_time && !wanted.take_over {
        return Err(format!(
            "({told}) belongs to a drill on {}, which has time until {}: --take-over mends it now",
            record.owner.host, record.expires
        ));
    }
    match Locks::take(state, record) {
        Ok(locks) => Ok(Some(locks)),
        Err(refusal) if refusal.reason_id == "drill-under-way" => Err(refusal.reason),
        // A folder that can't be written to must not keep anyone from mending.
        Err(_) => Ok(None),
    }
}

async fn mended<C: AsyncFn(&Chore) -> Result<String, String>>(
    mender: &Mender<'_, C>,
    incus: &Incus,
    record: &Record,
    case: &Case,
) -> Found {
    // The way and project of whoever asks now, which may be another than the drill's.
    let mut record = record.clone();
    incus.place().clone_into(&mut record.place);
    incus.project().clone_into(&mut record.project);
    let (outcome, steps) = mender.mend(incus, &record).await;
    let mut words = format!("({}): {}", record.plan_told(), outcome.words);
    if let Some((path, why)) = case.unreadable.as_ref().filter(|_| outcome.undone) {
        let removed = mender.state.remove_file(path);
        let what = removed.err().map_or("removed".to_owned(), |r| r.reason);
        words.push_str(&format!("; its record could not be read ({why}): {what}"));
    }
    let end = if outcome.undone {
        End::Undone
    } else {
        End::NotUndone
    };
    Found {
        run: record.run,
        words,
        end,
        steps,
    }
}

/// A run of which only claims are left, or a file that nobody can read.
async fn without_record(incus: &Incus, run: &str, case: &Case) -> Found {
    let mut end = End::Undone;
    let mut words = Vec::new();
    for name in &case.claims {
        match keys::remove_one(incus, name, run).await {
            Ok(()) => words.push(format!("removed its claim on {name}")),
            Err(error) => {
                end = End::NotUndone;
                words.push(format!("its claim on {name} stays: {error}"));
            }
        }
    }
    if let Some((path, why)) = &case.unreadable {
        end = End::NotUndone;
        words.push(format!(
            "{} can't be read ({why}) and no instance of project {} carries its key: look at the \
             instances, then remove the file",
            path.display(),
            incus.project()
        ));
    }
    Found {
        run: run.to_owned(),
        words: words.join("; "),
        end,
        steps: Vec::new(),
    }
}

/// Does the chores that are left of earlier runs of this program, whose faults are undone. Returns
/// what was done or why not, a line each.
pub async fn finish_chores<C: AsyncFn(&Chore) -> Result<String, String>>(
    state: &State,
    incus: &Incus,
    (check, chores): (&str, &C),
) -> Vec<String> {
    let mut told = Vec::new();
    for entry in state.records().unwrap_or_default() {
        let Ok(record) = entry.record else { continue };
        let here = record.place.is_same_server(incus.place());
        let ours = here && record.check == check && record.project == incus.project();
        if !ours || !record.undo.steps.is_empty() {
            continue;
        }
        // Held by a run that is still at it.
        let Ok(_locks) = Locks::take(state, &record) else {
            continue;
        };
        let mut all = true;
        for chore in &record.chores {
            let done = chores(chore).await;
            all &= done.is_ok();
            let words = done.unwrap_or_else(|words| format!("{} stays ({words})", chore.name));
            told.push(format!("left by run {}: {words}", record.run));
        }
        if all && let Err(refusal) = state.remove(&record) {
            told.push(refusal.reason);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn a_record_of_another_server_is_left_alone_unless_this_one_has_its_keys() {
        let incus = Incus::new(std::path::Path::new("/other.socket"), "p").unwrap();
        let here = record("run-1");
        let mut cases = BTreeMap::new();
        assert!(is_here(&incus, &here, &cases), "sockets are of this host");
        let mut there = record("run-2");
        there.place = Place::Remote {
            name: "far".to_owned(),
            folder: "/c".into(),
        };
        assert!(!is_here(&incus, &there, &cases));
        let words = elsewhere(&incus, &there);
        assert!(words.contains("INCUS_CONF=/c and --remote far --project p --recover"));
        cases.insert(there.run.clone(), Case::default());
        assert!(is_here(&incus, &there, &cases), "asked another way");
        there.project = "q".to_owned();
        assert!(!is_here(&incus, &there, &cases));
    }
}
