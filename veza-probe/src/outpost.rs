//! An observer inside an instance: this very program, started there, for a runner that does not reach
//! the network of the service. It issues the probes and keeps their time; all other connections of the
//! check go through it.
//!
//! ```text
//! runner ── Incus ── exec ── program in the instance ──┬── probes, timed there
//!                                                      └── connections, passed on
//! ```
//! The program removes its own file as soon as it runs, and ends when it hears nothing from the runner.

mod far;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::{self, At, Clock, Offset, within};
use crate::incus::{self, Attached, FileKind, Incus};
use crate::instance::InstanceName;
use crate::prober::{Batch, Prober, Shape};
use crate::way::{Frame, Frames, Tunnel, Way, Word};

pub use far::stand;

/// The first argument that makes our own program an outpost.
pub const OUTPOST_WORD: &str = "veza-outpost";

/// Where the program's file is put, with a number behind it. Not on a tmpfs, whose size counts as the
/// instance's memory.
const FOLDER: &str = "/var/tmp/veza-outpost-";

/// Files of runs that were killed before the program could remove its own are removed after this time.
const STALE_S: i64 = 3600;

/// How long the program may take to start and answer.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How many round trips measure the clock; the fastest counts.
const CLOCK_TRIPS: u64 = 20;

/// How often each side lets the other know that it is there.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// How long a side may be silent before the other takes it for gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Why there is no observer in an instance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Incus did not do what was asked.
    #[error(transparent)]
    Incus(#[from] incus::Error),
    /// Our own file can't be read.
    #[error("reading this program's own file: {0}")]
    Program(std::io::Error),
    /// It does not run there.
    #[error(
        "this program was put into {instance} and does not run there ({words}): a program that is linked \
         dynamically needs a C library there that is as new as where it was built; build it with \
         RUSTFLAGS='-C target-feature=+crt-static' and a --target of its own"
    )]
    NotStarted {
        /// The instance.
        instance: InstanceName,
        /// What it said, if anything.
        words: String,
    },
}

/// What an outpost is asked beside connections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ask {
    /// Probe: `hosts` is for the check's own code.
    Probe {
        prober: u32,
        hosts: Value,
        shape: Shape,
        first_due: At,
    },
    /// Issue no more probes.
    Finish { prober: u32 },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Batch {
        prober: u32,
        batch: Batch,
    },
    /// The probes can't be started.
    Failed {
        prober: u32,
        words: String,
    },
}

/// An observer that runs in an instance. Dropping it ends it.
#[derive(Debug)]
pub struct Outpost {
    /// Where it runs.
    pub instance: InstanceName,
    /// Its clock, seen from ours.
    pub offset: Offset,
    tunnel: Tunnel,
    out: mpsc::UnboundedSender<Frame>,
    heard: Arc<Heard>,
    /// How many probers were started.
    probers: AtomicU32,
    _tasks: JoinSet<()>,
}

/// What the far end said that is not about a connection.
#[derive(Debug)]
struct Heard {
    pong: watch::Sender<Option<(u64, At)>>,
    hello: watch::Sender<Option<Option<String>>>,
    /// Where the samples of each prober go.
    batches: Mutex<BTreeMap<u32, mpsc::UnboundedSender<Batch>>>,
    words: Mutex<String>,
}

impl Outpost {
    /// Puts this program into a running instance, starts it there, and measures its clock.
    ///
    /// # Errors
    /// [`Error`]; nothing is left in the instance then.
    pub async fn open(
        incus: &Incus,
        clock: &Clock,
        instance: &InstanceName,
    ) -> Result<Outpost, Error> {
        sweep(incus, clock, instance).await;
        let program = tokio::fs::read("/proc/self/exe").await;
        let program = program.map_err(Error::Program)?;
        let folder = format!(
            "{FOLDER}{}-{}",
            clock.wall(clock.at()).as_second(),
            std::process::id()
        );
        let file = format!("{folder}/program");
        let root = (0, 0, 0o700);
        let made = incus.write_file(instance, &folder, FileKind::Folder, root);
        made.await?;
        let written = incus.write_file(instance, &file, FileKind::File(program), root);
        let started = match written.await {
            Ok(()) => Outpost::start(incus, clock, instance, &file).await,
            Err(error) => Err(error.into()),
        };
        if started.is_err() {
            // It could not do it itself; what does not go is swept away by a later run.
            let _ = incus.remove_file(instance, &file).await;
            let _ = incus.remove_file(instance, &folder).await;
        }
        started
    }

    async fn start(
        incus: &Incus,
        clock: &Clock,
        instance: &InstanceName,
        file: &str,
    ) -> Result<Outpost, Error> {
        let attached = incus.attach(instance, &[file, OUTPOST_WORD]).await?;
        let (out, outgoing) = mpsc::unbounded_channel();
        let tunnel = Tunnel::new(out.clone());
        let heard = Arc::new(Heard {
            pong: watch::Sender::new(None),
            hello: watch::Sender::new(None),
            batches: Mutex::default(),
            words: Mutex::new(String::new()),
        });
        let mut tasks = JoinSet::new();
        let kept = Arc::clone(&heard);
        let listening = listen(attached, outgoing, tunnel.clone(), kept, SILENCE);
        tasks.spawn(listening);
        let mut outpost = Outpost {
            instance: instance.clone(),
            offset: Offset { us: 0, error_us: 0 },
            tunnel,
            out,
            heard,
            probers: AtomicU32::new(0),
            _tasks: tasks,
        };
        let met = async {
            let mut hello = outpost.heard.hello.subscribe();
            let met = hello.wait_for(Option::is_some).await;
            let left = met.ok().and_then(|hello| hello.clone()).flatten();
            match left {
                None => outpost.measure(clock).await,
                Some(words) => {
                    outpost.heard.keep(&words);
                    None
                }
            }
        };
        match within(START_LIMIT, met).await {
            Ok(Some(offset)) => outpost.offset = offset,
            Ok(None) | Err(_) => {
                return Err(Error::NotStarted {
                    instance: instance.clone(),
                    words: outpost.heard.told(),
                });
            }
        }
        outpost._tasks.spawn(show_signs(outpost.out.clone()));
        Ok(outpost)
    }

    /// None when the program is gone.
    async fn measure(&self, clock: &Clock) -> Option<Offset> {
        let mut pong = self.heard.pong.subscribe();
        let mut best: Option<Offset> = None;
        for number in 1..=CLOCK_TRIPS {
            let sent = clock.at();
            self.out.send(Frame::Word(Word::Ping { number })).ok()?;
            let answer = pong.wait_for(|pong| pong.is_some_and(|(n, _)| n == number));
            let there = answer.await.ok()?.map(|(_, at)| at)?;
            let trip = (sent, clock.at());
            best = Some(Offset::of_trip(trip, there.0, |at| at.0).or_closer(best));
        }
        best
    }

    /// How connections are made through it.
    pub fn way(&self) -> Way {
        Way::Through(self.tunnel.clone())
    }

    /// Starts probes there, at `first_due` by our clock. `hosts` is what the check's own
    /// [`stand`] makes hosts of; `names` are theirs.
    ///
    /// # Panics
    /// Never; a host that can't be made shows as probes that are lost.
    pub fn probe(
        &self,
        clock: Clock,
        (hosts, names): (Value, Vec<String>),
        shape: Shape,
        first_due: At,
    ) -> Prober {
        let (sender, mut batches) = mpsc::unbounded_channel::<Batch>();
        let number = self.probers.fetch_add(1, Ordering::Relaxed);
        self.heard.batches().insert(number, sender);
        let there = At(first_due.0.saturating_sub(self.offset.us));
        self.ask(&Ask::Probe {
            prober: number,
            hosts,
            shape,
            first_due: there,
        });
        let (moved, feed) = mpsc::unbounded_channel();
        let us = self.offset.us;
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                if moved.send(batch.moved(us)).is_err() {
                    return;
                }
            }
        });
        let out = self.out.clone();
        let finish = move || ask(&out, &Ask::Finish { prober: number });
        Prober::fed(clock, names.into_iter(), feed, finish)
    }

    fn ask(&self, word: &Ask) {
        ask(&self.out, word);
    }

    /// What the program said when it could not go on; empty when it said nothing.
    pub fn told(&self) -> String {
        self.heard.told()
    }
}

fn ask(out: &mpsc::UnboundedSender<Frame>, word: &Ask) {
    // A program that is gone is noticed by what doesn't come back.
    let value = serde_json::to_value(word).unwrap_or_default();
    let _ = out.send(Frame::Word(Word::Other(value)));
}

impl Heard {
    fn batches(&self) -> MutexGuard<'_, BTreeMap<u32, mpsc::UnboundedSender<Batch>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, words: &str) {
        let mut kept = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_empty() {
            words.clone_into(&mut kept);
        }
    }

    fn told(&self) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.clone()
    }

    fn take(&self, word: Word) {
        match word {
            Word::Hello { left } => {
                self.hello.send_replace(Some(left));
            }
            Word::Pong { number, at } => {
                self.pong.send_replace(Some((number, at)));
            }
            Word::Other(value) => match serde_json::from_value(value) {
                Ok(Answer::Batch { prober, batch }) => {
                    let mut batches = self.batches();
                    let is_last = batch.is_last;
                    if let Some(sender) = batches.get(&prober) {
                        // A prober that was dropped wants no more.
                        let _ = sender.send(batch);
                    }
                    if is_last {
                        batches.remove(&prober);
                    }
                }
                Ok(Answer::Failed { prober, words }) => {
                    self.keep(&words);
                    self.batches().remove(&prober);
                }
                Err(error) => self.keep(&error.to_string()),
            },
            Word::Open { .. }
            | Word::Opened { .. }
            | Word::Refused { .. }
            | Word::End { .. }
            | Word::Ping { .. } => {}
        }
    }
}

/// Passes frames in both directions until the program is gone, or silent for too long.
async fn listen(
    mut attached: Attached,
    mut outgoing: mpsc::UnboundedReceiver<Frame>,
    tunnel: Tunnel,
    heard: Arc<Heard>,
    silence: Duration,
) {
    let input = attached.input.clone();
    let sending = async {
        while let Some(frame) = outgoing.recv().await
            && input.send(frame.encoded()).is_ok()
        {}
    };
    // Apart from what is sent: our own signs of life must not count as the program's.
    tokio::select! {
        () = sending => {}
        () = hear(&mut attached.output, &tunnel, &heard, silence) => {}
    }
    // Its last words may still be on their way.
    clock::sleep(Duration::from_millis(100)).await;
    heard.keep(&attached.errors());
    heard.keep("it is gone");
    tunnel.close();
    heard.batches().clear();
    heard.hello.send_if_modified(|hello| {
        let is_unmet = hello.is_none();
        if is_unmet {
            *hello = Some(Some(heard.told()));
        }
        is_unmet
    });
}

/// Takes what the program says until it says no more.
async fn hear(
    output: &mut mpsc::UnboundedReceiver<Vec<u8>>,
    tunnel: &Tunnel,
    heard: &Heard,
    silence: Duration,
) {
    let mut frames = Frames::default();
    loop {
        match within(silence, output.recv()).await {
            Ok(Some(piece)) => frames.push(&piece),
            Ok(None) => return,
            Err(elapsed) => return heard.keep(&elapsed.to_string()),
        }
        if let Err(error) = take_all(&mut frames, tunnel, heard) {
            return heard.keep(&error.to_string());
        }
    }
}

fn take_all(frames: &mut Frames, tunnel: &Tunnel, heard: &Heard) -> std::io::Result<()> {
    while let Some(frame) = frames.next()? {
        if let Some(word) = tunnel.take(frame) {
            heard.take(word);
        }
    }
    Ok(())
}

/// Lets the program know that the runner is there; it answers, and so does the same.
async fn show_signs(out: mpsc::UnboundedSender<Frame>) {
    while out.send(Frame::Word(Word::Ping { number: 0 })).is_ok() {
        clock::sleep(SIGN_EVERY).await;
    }
}

/// Removes what runs left that were killed between putting the program there and its first line.
async fn sweep(incus: &Incus, clock: &Clock, instance: &InstanceName) {
    let (parent, prefix) = FOLDER.rsplit_once('/').unwrap_or_default();
    // A folder that can't be listed holds up nobody: what follows says what is wrong.
    let names = incus
        .list_folder(instance, parent)
        .await
        .unwrap_or_default();
    let now_s = clock.wall(clock.at()).as_second();
    for name in names {
        let made = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.split('-').next());
        let made_s = made.and_then(|second| second.parse::<i64>().ok());
        if made_s.is_some_and(|made_s| now_s - made_s > STALE_S) {
            let folder = Path::new(parent).join(name);
            let file = folder.join("program");
            for path in [file, folder] {
                let _ = incus.remove_file(instance, &path.to_string_lossy()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
