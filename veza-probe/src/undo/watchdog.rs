//! The watchdog: our own program in a session of its own, which heals when the check dies, hangs, or
//! outlives its time.
//!
//! Two pipes join them. The check writes lines; when its end of the pipe closes without `healed`, the
//! watchdog heals. It survives the death of the check, of its process group and of its terminal; not
//! that of its cgroup, its PID namespace or its host: for these there are record, key and `--recover`.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::process::{ChildStdin, ChildStdout};

use super::lock::Locks;
use super::mend::Mender;
use super::record::{Chore, Mended, Owner, Record};
use super::state::State;
use crate::clock::{Clock, Deaf, within};
use crate::command::Command;
use crate::incus::Incus;

/// The first argument that makes our own program a watchdog; what follows is the check's command line.
pub const WATCHDOG_WORD: &str = "veza-watchdog";

/// How long the watchdog may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long the check may take before its fault, beside its warm-up.
pub(super) const BEFORE_FAULT: Duration = Duration::from_secs(60);

/// How long the watchdog tries to heal: a long restart of Incus lies within.
const HEAL_LIMIT: Duration = Duration::from_secs(600);

/// What the check tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// What to undo.
    Record(Box<Record>),
    /// The check will have said something else, or be gone, within this many milliseconds.
    Within(u64),
    /// The fault is gone, and so are the keys; only chores are left, for this many milliseconds.
    Undone(u64),
    /// Everything is done: the watchdog may go.
    Healed,
}

/// What the watchdog answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// It has the record and will heal.
    Armed(Owner),
    /// It has healed, or could not.
    Mended(Mended),
}

/// The check's side of the pipes. Cheap to clone: whoever holds one can let the watchdog go.
#[derive(Clone, Default)]
pub struct Leash(Arc<Inner>);

#[derive(Default)]
struct Inner {
    words: tokio::sync::Mutex<Option<ChildStdin>>,
    answers: tokio::sync::Mutex<Option<Lines<BufReader<ChildStdout>>>>,
    /// Set when the pipe is to be closed while somebody else writes to it.
    let_go: Mutex<bool>,
    armed: AtomicBool,
}

impl Leash {
    /// No watchdog yet.
    pub fn new() -> Leash {
        Leash::default()
    }

    /// Starts it, hands it the record, and waits until it has answered.
    pub(super) async fn arm(
        &self,
        watchdog: Command,
        record: &Record,
        locks: &Locks,
        patience: Duration,
    ) -> Result<Owner, String> {
        let started = watchdog.beside(&locks.descriptors());
        let mut child = started.map_err(|error| error.to_string())?;
        let (words, answers) = (child.stdin.take(), child.stdout.take());
        // An earlier act let its own watchdog go.
        *self.0.let_go.lock().unwrap_or_else(PoisonError::into_inner) = false;
        *self.0.words.lock().await = words;
        *self.0.answers.lock().await = answers.map(|out| BufReader::new(out).lines());
        self.tell(&Word::Record(Box::new(record.clone()))).await?;
        self.tell(&Word::Within(milliseconds(patience))).await?;
        match within(ANSWER_LIMIT, self.answer()).await {
            Ok(Some(Answer::Armed(owner))) => {
                self.0.armed.store(true, Ordering::SeqCst);
                Ok(owner)
            }
            Ok(other) => Err(format!("it answered {other:?} instead of armed")),
            Err(elapsed) => Err(elapsed.to_string()),
        }
    }

    async fn tell(&self, word: &Word) -> Result<(), String> {
        let mut line = serde_json::to_string(word).map_err(|error| error.to_string())?;
        line.push('\n');
        let mut pipe = self.0.words.lock().await;
        if *self.0.let_go.lock().unwrap_or_else(PoisonError::into_inner) {
            *pipe = None;
        }
        let Some(words) = pipe.as_mut() else {
            return Err("there is no watchdog".to_owned());
        };
        let told = within(ANSWER_LIMIT, words.write_all(line.as_bytes())).await;
        let told = told.map_err(|elapsed| elapsed.to_string())?;
        told.map_err(|error| format!("the watchdog is gone: {error}"))
    }

    async fn answer(&self) -> Option<Answer> {
        let mut answers = self.0.answers.lock().await;
        let line = answers.as_mut()?.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    pub(super) async fn within(&self, limit: Duration) -> Result<(), String> {
        self.tell(&Word::Within(milliseconds(limit))).await
    }

    pub(super) async fn undone(&self, rest: Duration) {
        // A watchdog that is gone can't heal what is healed.
        let _ = self.tell(&Word::Undone(milliseconds(rest))).await;
    }

    pub(super) async fn healed(&self) {
        let _ = self.tell(&Word::Healed).await;
        self.0.armed.store(false, Ordering::SeqCst);
        self.let_go();
        // Its end of the answers closes when it is gone, and the locks with it.
        let _ = within(ANSWER_LIMIT, self.answer()).await;
    }

    /// Lets the watchdog heal, if there is one that has not been told otherwise.
    pub fn let_go(&self) {
        *self.0.let_go.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Ok(mut words) = self.0.words.try_lock() {
            *words = None;
        }
    }

    /// Whether a watchdog was started and has not been told that all is healed.
    pub fn holds(&self) -> bool {
        self.0.armed.load(Ordering::SeqCst)
    }

    /// Waits for what the watchdog came to after [`Leash::let_go`]; none when there is no watchdog that
    /// would have to say anything.
    pub async fn outcome(&self) -> Option<Mended> {
        if !self.holds() {
            return None;
        }
        let limit = HEAL_LIMIT + ANSWER_LIMIT;
        match within(limit, self.answer()).await {
            Ok(Some(Answer::Mended(outcome))) => Some(outcome),
            _ => Some(Mended::silent()),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Stands watch: the whole life of a watchdog. Call it before any thread is started. `check` is the
/// name of this program; `chores` does one of its own.
pub fn stand_watch(
    check: &str,
    chores: impl AsyncFn(&Chore) -> Result<String, String>,
) -> ExitCode {
    // It fails only for the leader of a group, which a child that was just started is not.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    match runtime.block_on(watch(check, chores)) {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// None when it could not even begin: the check has no answer then, and breaks nothing.
async fn watch(check: &str, chores: impl AsyncFn(&Chore) -> Result<String, String>) -> Option<()> {
    let _deaf = Deaf::to_signals().ok()?;
    let clock = Clock::start();
    let state = State::new(|name| std::env::var_os(name));
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let words = pipe::Receiver::from_owned_fd(stdin).ok()?;
    let mut words = BufReader::new(words).lines();
    let Word::Record(record) = word(&mut words).await? else {
        return None;
    };
    let owner = i32::try_from(record.owner.pid).ok();
    let owner = owner.and_then(rustix::process::Pid::from_raw)?;
    let owner = rustix::process::pidfd_open(owner, rustix::process::PidfdFlags::empty()).ok()?;
    // Before it says that it is armed: whatever becomes of a remote's certificates afterwards, it has them.
    let incus = Incus::new(&record.place, &record.project).ok()?;
    say(&Answer::Armed(Owner::this_process()));
    let ended = listen(&clock, &mut words).await;
    let (why, undone) = match ended {
        Ended::Healed => return Some(()),
        Ended::Gone { undone } => ("the check ended without healing", undone),
        Ended::Late { undone } => {
            let kill = rustix::process::Signal::KILL;
            let _ = rustix::process::pidfd_send_signal(&owner, kill);
            ("the check outlived its time and was killed", undone)
        }
    };
    let mut left = *record;
    if undone {
        left.undo.steps.clear();
    }
    let mender = Mender {
        clock: &clock,
        state: &state,
        by: "watchdog",
        why: why.to_owned(),
        limit: HEAL_LIMIT,
        check,
        chores: &chores,
    };
    let (outcome, _) = mender.mend(&incus, &left).await;
    say(&Answer::Mended(outcome));
    Some(())
}

/// How the check's words ended.
enum Ended {
    Healed,
    Gone { undone: bool },
    Late { undone: bool },
}

async fn listen(clock: &Clock, words: &mut Lines<BufReader<pipe::Receiver>>) -> Ended {
    let mut deadline = clock.at().plus(BEFORE_FAULT);
    let mut undone = false;
    loop {
        let word = tokio::select! {
            word = word(words) => word,
            () = clock.sleep_until(deadline) => return Ended::Late { undone },
        };
        let later = |ms| clock.at().plus(Duration::from_millis(ms));
        match word {
            Some(Word::Healed) => return Ended::Healed,
            Some(Word::Within(ms)) => deadline = later(ms),
            Some(Word::Undone(ms)) => {
                undone = true;
                deadline = later(ms);
            }
            // A line that can't be read: the check died in the middle of it.
            Some(Word::Record(_)) | None => return Ended::Gone { undone },
        }
    }
}

async fn word(words: &mut Lines<BufReader<pipe::Receiver>>) -> Option<Word> {
    let line = words.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// The check may be gone: nobody listens then.
fn say(answer: &Answer) {
    if let Ok(mut line) = serde_json::to_string(answer) {
        line.push('\n');
        let mut out = std::io::stdout();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}
