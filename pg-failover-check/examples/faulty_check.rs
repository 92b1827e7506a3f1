//! A check with a bug: it breaks an instance and then panics, or hangs in a child process. It shows what
//! the undo promises whatever a check does, and the least that a check consists of.
//!
//! `faulty_check INSTANCE task|main|child`, in the project that `VEZA_INCUS_PROJECT` names.
#![expect(clippy::print_stdout, reason = "an example's result")]
#![expect(clippy::panic, reason = "the bug that it is about")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use veza_probe::clock::Clock;
use veza_probe::command::Command;
use veza_probe::fault::{self, Kind};
use veza_probe::incus::{Incus, socket_path};
use veza_probe::instance::InstanceName;
use veza_probe::undo::{self, Chore, Intent, Journal, Leash, State, WATCHDOG_WORD};
use veza_probe::verdict::Verdict;

const CHECK: &str = "faulty_check";

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args()
        .nth(1)
        .is_some_and(|word| word == WATCHDOG_WORD)
    {
        let none = async |chore: &Chore| Err(format!("no chore {}", chore.name));
        return Ok(undo::stand_watch(CHECK, none));
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let leash = Leash::new();
    let verdict = match runtime.block_on(undo::to_the_end(&leash, run(&leash))) {
        Ok(done) => {
            done?;
            Verdict::Inconclusive
        }
        Err(bug) => {
            println!("{}", bug.words);
            if bug.undone() {
                Verdict::Internal
            } else {
                Verdict::NotUndone
            }
        }
    };
    Ok(ExitCode::from(verdict.code()))
}

async fn run(leash: &Leash) -> anyhow::Result<()> {
    let [instance, how]: [String; 2] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .ok()
        .context("faulty_check INSTANCE task|main|child")?;
    let name = InstanceName::new(instance)?;
    let project = std::env::var("VEZA_INCUS_PROJECT").context("VEZA_INCUS_PROJECT")?;
    let socket = socket_path(|name| std::env::var_os(name));
    let (incus, _) = Incus::connect(&socket, &project).await?;
    let clock = Clock::start();
    let names = std::slice::from_ref(&name);
    let mut plan = fault::prepare(&incus, "an example", &Kind::Freeze, names, &[]).await?;
    plan.ttl_s = 30;
    let intent = Intent {
        check: CHECK,
        run: &undo::run_id(&clock),
        plan: &plan,
        members: vec![name],
        chores: Vec::new(),
        warm_up: Duration::ZERO,
    };
    let state = State::new(|name| std::env::var_os(name));
    let watchdog = Command::new("/proc/self/exe").arg(WATCHDOG_WORD);
    let mut journal = Journal::open(&incus, &clock, &state, intent, watchdog, leash).await?;
    journal.set_keys().await?;
    journal.breaking(Duration::from_secs(plan.ttl_s)).await?;
    fault::inject(&incus, &clock, &plan).await;
    let seen = fault::seen(&incus, &plan).await;
    println!("{}", seen.context("nothing is broken")?);
    match how.as_str() {
        "child" => {
            let sleep = Command::new("sleep").arg("20");
            sleep.run(Duration::from_secs(30)).await?;
        }
        "task" => {
            let task = tokio::spawn(async { panic!("in a task, number {}", 7) });
            let Err(error) = task.await;
            std::panic::resume_unwind(error.into_panic());
        }
        _ => panic!("in main, number {}", 7),
    }
    Ok(())
}
