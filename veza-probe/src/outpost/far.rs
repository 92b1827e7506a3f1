//! The program in the instance: connects and probes for a runner that speaks to it over its standard
//! input and output, and ends with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Answer, Ask, FOLDER, SILENCE};
use crate::clock::{self, Clock, within};
use crate::prober::{Batch, Batches, Host, Prober};
use crate::way::{Doors, Frame, Frames, Word};

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// How long samples are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(50);

/// The whole life of an outpost. `hosts` makes the check's hosts of what the runner sends.
pub fn stand<H: Host>(hosts: impl Fn(Value) -> Result<Vec<H>, String>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(serve(hosts));
    // Standard input is read by a thread that can't be interrupted.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

async fn serve<H: Host>(hosts: impl Fn(Value) -> Result<Vec<H>, String>) {
    let clock = Clock::start();
    let (out, outgoing) = mpsc::unbounded_channel();
    let mut doors = Doors::new(clock, out.clone());
    let mut probes = Probes {
        clock,
        out: out.clone(),
        stops: BTreeMap::new(),
    };
    let left = remove_own_file().err();
    let _ = out.send(Frame::Word(Word::Hello { left }));
    tokio::spawn(write(outgoing));
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0; PIECE_BYTES];
    let mut frames = Frames::default();
    // A runner that is silent for too long is cut off: nobody can use this any more.
    while let Ok(Ok(length @ 1..)) = within(SILENCE, stdin.read(&mut piece)).await {
        frames.push(piece.get(..length).unwrap_or_default());
        while let Ok(Some(frame)) = frames.next() {
            match doors.take(frame) {
                Some(Word::Ping { number }) => {
                    let at = clock.at();
                    let _ = out.send(Frame::Word(Word::Pong { number, at }));
                }
                Some(Word::Other(value)) => probes.asked(value, &hosts),
                _ => {}
            }
        }
    }
}

/// The file is not needed once it runs, and then nothing can be forgotten.
fn remove_own_file() -> Result<(), String> {
    let file = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    if !folder.to_string_lossy().starts_with(FOLDER) {
        return Err(format!("it was started from {}", file.display()));
    }
    std::fs::remove_dir_all(folder).map_err(|e| format!("removing {}: {e}", folder.display()))
}

async fn write(mut outgoing: mpsc::UnboundedReceiver<Frame>) {
    let mut stdout = tokio::io::stdout();
    while let Some(frame) = outgoing.recv().await {
        let written = stdout.write_all(&frame.encoded()).await;
        if written.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}

struct Probes {
    clock: Clock,
    out: mpsc::UnboundedSender<Frame>,
    /// Dropped to stop a prober.
    stops: BTreeMap<u32, mpsc::Sender<()>>,
}

impl Probes {
    fn asked<H: Host>(&mut self, value: Value, make: &impl Fn(Value) -> Result<Vec<H>, String>) {
        match serde_json::from_value(value) {
            Ok(Ask::Probe {
                prober: number,
                hosts,
                shape,
                first_due,
            }) => match make(hosts) {
                Ok(hosts) => {
                    let prober = Prober::start(self.clock, shape, hosts, first_due);
                    let (stop, stopped) = mpsc::channel(1);
                    self.stops.insert(number, stop);
                    tokio::spawn(send(number, prober, stopped, self.out.clone()));
                }
                Err(words) => {
                    let prober = number;
                    say(&self.out, &Answer::Failed { prober, words });
                }
            },
            Ok(Ask::Finish { prober }) => drop(self.stops.remove(&prober)),
            // The runner is this very program: it says nothing else.
            Err(_) => {}
        }
    }
}

fn say(out: &mpsc::UnboundedSender<Frame>, answer: &Answer) {
    // Nobody is left to hear it: then all of this ends, too.
    let value = serde_json::to_value(answer).unwrap_or_default();
    let _ = out.send(Frame::Word(Word::Other(value)));
}

async fn send(
    number: u32,
    prober: Prober,
    mut stopped: mpsc::Receiver<()>,
    out: mpsc::UnboundedSender<Frame>,
) {
    let tell = |batch| {
        let prober = number;
        say(&out, &Answer::Batch { prober, batch });
    };
    let mut news = prober.subscribe();
    let mut batches = Batches::default();
    loop {
        let is_over = tokio::select! {
            _ = stopped.recv() => true,
            changed = news.changed() => changed.is_err(),
        };
        if is_over {
            break;
        }
        let so_far = prober.inspect(|samples| {
            let in_all = samples.len() as u64;
            (batches.new_of(samples), in_all)
        });
        let issued = so_far.1 + prober.in_flight();
        let batch = Batch {
            samples: so_far.0,
            issued,
            connectors: prober.connectors(),
            is_last: false,
        };
        tell(batch);
        clock::sleep(GATHER).await;
    }
    let connectors = prober.connectors();
    let samples = prober.finish().await;
    let batch = Batch {
        samples: batches.new_of(&samples),
        issued: samples.len() as u64,
        connectors,
        is_last: true,
    };
    tell(batch);
}
