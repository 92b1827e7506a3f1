//! The load, and what is seen of it on both ends. pgbench is started, looked at each second, and ended
//! whatever happens; nothing is judged here.

pub mod output;
pub mod log;
pub mod pool;
mod journal;
mod files;
pub mod own;

use std::time::Duration;

use veza_probe::clock::{At, Clock, Signal, Stop};
use veza_probe::story::Story;
use veza_probe::undo;

use crate::baseline::{Baseline, Tables};
use crate::cli::Args;
use crate::targets::place::Running;
use crate::targets::{Access, Targets};
use log::Log;
use output::{Errors, Summary};
use own::Own;
use pool::{Pool, Watcher};

/// How often pgbench and the pooler are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How much longer than asked for a round may take: connecting, and the last transactions.
const GRACE: Duration = Duration::from_secs(150);

/// How long pgbench may take to make its tables.
const INIT_LIMIT: Duration = Duration::from_secs(1800);

/// How often in a row pgbench may not be looked at: the lease would be over soon.
const UNSEEN_MAX: u32 = 5;

/// Why a round came to no end of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A signal.
    Stopped(Signal),
    /// Others wait for the pooler.
    OthersWait(String),
    /// Somebody forbade all drills, in these words.
    Halted(String),
    /// It did not end in time.
    TooLong(u64),
    /// It could not be started or looked at.
    Lost(String),
    /// It may still run: what is left, and where.
    Left(String),
}

/// One run of pgbench and what was seen of it.
pub struct Round {
    /// Whether it went past the pooler.
    pub direct: bool,
    /// When pgbench was started, and when it had ended.
    pub began: At,
    /// See [`Round::began`].
    pub ended: At,
    /// pgbench's exit code.
    pub code: Option<i32>,
    /// Its result block, or why there is none.
    pub summary: Result<Summary, String>,
    /// What it complained of.
    pub errors: Errors,
    /// Its transaction log.
    pub log: Log,
    /// The pooler.
    pub pool: Pool,
    /// What the pooler complained of; none when its log can't be read.
    pub complaints: Option<Vec<String>>,
    /// Why it was cut off.
    pub cut: Option<Cut>,
    /// What this tool cost itself, when pgbench was started and when it had ended.
    pub own: Option<(Own, Own)>,
}

impl Round {
    /// How long it took, in seconds.
    pub fn took_s(&self) -> f64 {
        self.ended.us_since(self.began) as f64 / 1e6
    }
}

/// The longest that all of a load may take: tables, if they are to be made, and every round.
pub fn longest(args: &Args, tables: Tables) -> Duration {
    let tables = match tables {
        Tables::Make => INIT_LIMIT,
        _ => Duration::ZERO,
    };
    let rounds = args.rounds * if args.direct { 2 } else { 1 };
    tables + (args.length() + GRACE) * rounds
}

/// Who watches, and what for.
pub struct Watch<'a> {
    /// The run's clock.
    pub clock: Clock,
    /// Whom this is about.
    pub targets: &'a Targets,
    /// What was found before.
    pub baseline: &'a Baseline,
    /// What was asked for.
    pub args: &'a Args,
    /// Tells how it goes.
    pub story: &'a Story,
}

impl Watch<'_> {
    /// Makes pgbench's tables, if that is to be done.
    ///
    /// # Errors
    /// Why not.
    pub async fn prepare(&self, stop: &mut Stop) -> Result<(), Cut> {
        let Tables::Make = self.baseline.tables else {
            return Ok(());
        };
        let scale = self.args.scale.to_string();
        self.story
            .say(&format!("making pgbench's tables, scale {scale}"));
        let command = ["-i", "-q", "-s", &scale].map(str::to_owned).to_vec();
        let round = self
            .run(&self.targets.pooler, command, (INIT_LIMIT, None), stop)
            .await?;
        match (round.cut, round.code) {
            (Some(cut), _) => Err(cut),
            (None, Some(0)) => Ok(()),
            (None, code) => {
                let said = round.errors.first.join("; ");
                let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
                Err(Cut::Lost(format!("pgbench -i ended with {code}: {said}")))
            }
        }
    }

    /// One round of the load, through the pooler or past it.
    ///
    /// # Errors
    /// Why there was none.
    pub async fn round(&self, number: u32, direct: bool, stop: &mut Stop) -> Result<Round, Cut> {
        let access = match &self.targets.primary {
            Some(primary) if direct => primary,
            _ => &self.targets.pooler,
        };
        let way = if direct {
            "past the pooler"
        } else {
            "through the pooler"
        };
        self.story.say(&format!(
            "round {number} of {}, {way}: {} clients for {} s",
            self.args.rounds, self.args.clients, self.args.seconds
        ));
        let limit = self.args.length() + GRACE;
        let mut watcher = Watcher::new(self.clock, &self.targets.pooler, &self.targets.console);
        let watched = (limit, Some(&mut watcher));
        let mut round = self.run(access, self.command(), watched, stop).await?;
        round.direct = direct;
        round.complaints = self.complaints(round.began).await;
        Ok(round)
    }

    async fn complaints(&self, since: At) -> Option<Vec<String>> {
        let instance = self.targets.pooler_instance()?;
        let login = &self.targets.pooler.login;
        let since_s = self.clock.wall(since).as_second();
        let told = journal::complaints(instance, since_s, (&login.dbname, &login.user)).await;
        match told {
            Ok(lines) => Some(lines),
            Err(words) => {
                self.story.say(&words);
                None
            }
        }
    }

    /// pgbench's options; who, where and with which password is in its environment.
    fn command(&self) -> Vec<String> {
        let args = self.args;
        let mut command = Vec::new();
        let mut add = |words: &[&str]| command.extend(words.iter().map(|word| (*word).to_owned()));
        add(&[
            "-n",
            "-P",
            "1",
            "-l",
            "--log-prefix=tx",
            "--failures-detailed",
        ]);
        add(&[
            "-c",
            &args.clients.to_string(),
            "-j",
            &args.threads.to_string(),
        ]);
        add(&["-T", &args.seconds.to_string(), "-M", args.mode.word()]);
        if let Some(rate) = args.rate {
            add(&["-R", &rate.to_string()]);
        }
        if args.reconnect {
            add(&["-C"]);
        }
        for number in 0..args.scripts.len() {
            add(&["-f", &files::script(number)]);
        }
        command
    }

    /// Runs pgbench to its end, or until it is cut off; afterwards it does not run any more.
    async fn run(
        &self,
        access: &Access,
        options: Vec<String>,
        (limit, watcher): (Duration, Option<&mut Watcher<'_>>),
        stop: &mut Stop,
    ) -> Result<Round, Cut> {
        if let Some(signal) = stop.requested() {
            return Err(Cut::Stopped(signal));
        }
        let began = self.clock.at();
        let mut round = Round {
            direct: false,
            began,
            ended: began,
            code: None,
            summary: Err("it printed no result".to_owned()),
            errors: Errors::default(),
            log: Log::new(self.args.seconds).map_err(Cut::Lost)?,
            pool: Pool::default(),
            complaints: None,
            cut: None,
            own: None,
        };
        let before = Own::now();
        let place = &self.targets.place;
        let files = files::files(self.args, access).map_err(Cut::Lost)?;
        let run = undo::run_id(&self.clock);
        let folder = place.folder(&run, &files).await.map_err(Cut::Lost)?;
        let program = std::iter::once(place.pgbench());
        let command: Vec<String> = program.chain(options).collect();
        let mut running = match place.start(&folder, &command).await {
            Ok(running) => running,
            Err(words) => {
                place.end(&folder).await.map_err(Cut::Left)?;
                return Err(Cut::Lost(words));
            }
        };
        let attended = self.attend(&mut running, &mut round, (limit, watcher), stop);
        let cut = undo::guarded(attended).await;
        round.ended = self.clock.at();
        round.own = before.zip(Own::now());
        running.end().await.map_err(Cut::Left)?;
        round.cut = cut.unwrap_or_else(|bug| Some(Cut::Lost(bug)));
        Ok(round)
    }

    /// Looks at pgbench and the pooler each second until pgbench has ended.
    async fn attend(
        &self,
        running: &mut Running,
        round: &mut Round,
        (limit, mut watcher): (Duration, Option<&mut Watcher<'_>>),
        stop: &mut Stop,
    ) -> Option<Cut> {
        let (mut due, mut unseen) = (round.began, 0);
        let halted = async {
            match &self.targets.around {
                Some(around) => undo::halted(&around.incus).await,
                None => std::future::pending().await,
            }
        };
        let mut halted = std::pin::pin!(halted);
        loop {
            let seen = async {
                let news = running.look().await;
                let others = match &mut watcher {
                    Some(watcher) if round.code.is_none() => watcher.look(&mut round.pool).await,
                    _ => Vec::new(),
                };
                (news, others)
            };
            let (news, others) = tokio::select! {
                seen = seen => seen,
                signal = stop.wait() => return Some(Cut::Stopped(signal)),
            };
            match news {
                Ok(news) => {
                    unseen = 0;
                    let progress = round.errors.take(&news.stderr);
                    news.logs
                        .iter()
                        .for_each(|(thread, piece)| round.log.take(thread, piece));
                    self.told(progress, &round.pool);
                    round.code = news.ended;
                    if news.ended.is_some() {
                        // Everything that was written before its end is read.
                        if news.is_empty() {
                            break;
                        }
                        continue;
                    }
                }
                Err(words) => {
                    unseen += 1;
                    if unseen >= UNSEEN_MAX {
                        return Some(Cut::Lost(words));
                    }
                }
            }
            if let Some(first) = others.first().filter(|_| !self.targets.is_lab()) {
                return Some(Cut::OthersWait(first.clone()));
            }
            if self.clock.at() > round.began.plus(limit) {
                return Some(Cut::TooLong(limit.as_secs()));
            }
            due = due.plus(EVERY).max(self.clock.at());
            tokio::select! {
                () = self.clock.sleep_until(due) => {}
                words = &mut halted => return Some(Cut::Halted(words)),
                signal = stop.wait() => return Some(Cut::Stopped(signal)),
            }
        }
        round.errors.end();
        round.summary = match running.printed().await {
            Ok(text) => output::parse(&text),
            Err(words) => Err(words),
        };
        None
    }

    /// The live line.
    fn told(&self, progress: Option<String>, pool: &Pool) {
        let Some(progress) = progress else { return };
        let seen = pool.samples.last().map(|sample| {
            format!(
                "; {} clients at the pooler, {} wait, {} of {} servers at work",
                sample.clients, sample.waiting, sample.sv_active, sample.servers
            )
        });
        self.story
            .doing(&format!("{progress}{}", seen.unwrap_or_default()));
    }
}
