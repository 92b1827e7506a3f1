//! The prober with a made-up host: structure, never timing.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::mpsc;

use super::*;
use crate::clock;

/// What a fake host does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Well,
    Refuse,
    Break,
    Hang,
    Panic,
    /// Only the first action hangs.
    HangOnce,
    /// Takes its time, and is good.
    Slow,
}

struct Fake {
    name: &'static str,
    connect: Does,
    act: Does,
    acts: AtomicUsize,
    /// Connections now, and the most there ever were.
    live: Arc<(AtomicUsize, AtomicUsize)>,
    /// Its receiver ends when the host and all its connections are gone.
    alive: Option<mpsc::Sender<()>>,
}

struct Line {
    live: Arc<(AtomicUsize, AtomicUsize)>,
    _alive: Option<mpsc::Sender<()>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.live.0.fetch_sub(1, SeqCst);
    }
}

impl Host for Fake {
    type Connection = Line;

    fn name(&self) -> &str {
        self.name
    }

    async fn connect(&self) -> Result<Line, String> {
        match self.connect {
            Does::Well => {
                let now = self.live.0.fetch_add(1, SeqCst) + 1;
                self.live.1.fetch_max(now, SeqCst);
                Ok(Line {
                    live: Arc::clone(&self.live),
                    _alive: self.alive.clone(),
                })
            }
            Does::Hang => std::future::pending().await,
            Does::Panic => panic!("connect of {}", self.name),
            _ => Err("not\nhere".to_owned()),
        }
    }

    async fn act(&self, _: &mut Line, number: u64) -> Result<(), ActError> {
        let first = self.acts.fetch_add(1, SeqCst) == 0;
        match self.act {
            Does::Well => Ok(()),
            Does::HangOnce if !first => Ok(()),
            Does::Refuse => Err(ActError::Refused(format!("read-only {number}"))),
            Does::Break => Err(ActError::Broken("reset".to_owned())),
            Does::Hang | Does::HangOnce => std::future::pending().await,
            Does::Panic => panic!("act of {}", self.name),
            Does::Slow => {
                clock::sleep(Duration::from_millis(12)).await;
                Ok(())
            }
        }
    }
}

fn host(name: &'static str, connect: Does, act: Does) -> Fake {
    let live = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    Fake {
        name,
        connect,
        act,
        acts: AtomicUsize::new(0),
        live,
        alive: None,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Quick, with deadlines that only something that hangs can miss.
fn quick() -> Shape {
    let shape = Shape::default()
        .with_spacing(ms(5))
        .unwrap()
        .with_limit(ms(150))
        .unwrap();
    shape
        .with_connect_limit(ms(150))
        .unwrap()
        .with_reconnect_every(ms(5))
        .unwrap()
}

fn start(shape: Shape, hosts: Vec<Fake>) -> Prober {
    let clock = Clock::start();
    Prober::start(clock, shape, hosts, clock.at().plus(ms(20)))
}

/// Waits until the samples are as asked; a guard of 20 s, far above what it ever takes.
async fn until(prober: &Prober, seen: impl Fn(&[Sample]) -> bool) {
    let mut news = prober.subscribe();
    let wait = async {
        while !prober.inspect(&seen) {
            news.changed().await.unwrap();
        }
    };
    within(Duration::from_secs(20), wait)
        .await
        .expect("the samples never were as asked");
}

fn kinds(samples: &[Sample]) -> Vec<Option<FailureKind>> {
    let kind = |sample: &Sample| match &sample.outcome {
        Outcome::Success => None,
        Outcome::Failure(failure) => Some(failure.kind),
    };
    samples.iter().map(kind).collect()
}

fn assert_one_per_due_instant(samples: &[Sample], spacing: Duration) {
    let first = samples.first().expect("no samples at all");
    for (n, sample) in samples.iter().enumerate() {
        assert_eq!(sample.number, n as u64);
        assert_eq!(sample.due, due(first.due, spacing, n as u64));
        assert!(
            sample.due <= sample.start && sample.start <= sample.end,
            "{sample:?}"
        );
    }
    assert!(samples.is_sorted_by_key(|sample| sample.start));
}

#[tokio::test]
async fn one_sample_for_each_due_instant() {
    let prober = start(quick(), vec![host("a", Does::Well, Does::Slow)]);
    until(&prober, |samples| {
        samples.iter().filter(|s| s.is_success()).count() >= 10
    })
    .await;
    let so_far = prober.so_far();
    assert!(so_far.samples.is_sorted_by_key(|sample| sample.due));
    let all = prober.finish().await;
    assert_one_per_due_instant(&all, ms(5));
    assert!(all.len() as u64 >= so_far.samples.len() as u64 + so_far.in_flight);
}

#[tokio::test]
async fn finish_issues_what_was_due_and_waits_for_what_is_in_flight() {
    let shape = quick().with_connections(1).unwrap();
    let prober = start(shape, vec![host("a", Does::Well, Does::Hang)]);
    let mut news = prober.subscribe();
    while prober.so_far().in_flight == 0 {
        within(Duration::from_secs(20), news.changed())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(prober.so_far().in_flight, 1);
    let all = prober.finish().await;
    assert_one_per_due_instant(&all, ms(5));
    assert!(kinds(&all).contains(&Some(FailureKind::Deadline)));
}

#[tokio::test]
async fn without_a_connection_every_sample_fails_at_its_dispatch() {
    let prober = start(quick(), vec![host("a", Does::Refuse, Does::Well)]);
    until(&prober, |samples| samples.len() >= 5).await;
    let connectors = prober.connectors();
    let error = connectors[0]
        .last_error
        .as_ref()
        .expect("an error of the connector");
    assert_eq!(
        (connectors[0].host.as_str(), error.text.as_str()),
        ("a", "not here")
    );
    assert_eq!(connectors[0].last_connected, None);
    let all = prober.finish().await;
    assert_one_per_due_instant(&all, ms(5));
    assert!(
        kinds(&all)
            .iter()
            .all(|kind| *kind == Some(FailureKind::NoConnection))
    );
    assert!(all.iter().all(|sample| sample.start == sample.end));
}

#[tokio::test]
async fn without_hosts_every_sample_fails() {
    let prober = start(quick(), vec![]);
    until(&prober, |samples| samples.len() >= 3).await;
    let all = prober.finish().await;
    assert!(
        kinds(&all)
            .iter()
            .all(|kind| *kind == Some(FailureKind::NoConnection))
    );
}

#[tokio::test]
async fn a_host_that_hangs_does_not_hold_up_another() {
    let never = quick()
        .with_connect_limit(Duration::from_secs(3600))
        .unwrap();
    let hosts = vec![
        host("a", Does::Hang, Does::Well),
        host("b", Does::Well, Does::Well),
    ];
    let prober = start(never, hosts);
    until(&prober, |samples| samples.iter().any(Sample::is_success)).await;
    let connectors = prober.connectors();
    assert_eq!(
        (connectors[0].last_connected, &connectors[0].last_error),
        (None, &None)
    );
    assert!(connectors[1].last_connected.is_some());
}

#[tokio::test]
async fn a_connect_that_hangs_ends_at_its_limit() {
    let shape = quick().with_connect_limit(ms(5)).unwrap();
    let prober = start(shape, vec![host("a", Does::Hang, Does::Well)]);
    // Samples go on failing meanwhile: each is an occasion to look.
    let mut news = prober.subscribe();
    while prober.connectors()[0].last_error.is_none() {
        within(Duration::from_secs(20), news.changed())
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_probe_that_hangs_loses_its_connection_and_another_is_made() {
    let shape = quick().with_connections(1).unwrap();
    let fake = host("a", Does::Well, Does::HangOnce);
    let live = Arc::clone(&fake.live);
    let prober = start(shape, vec![fake]);
    until(&prober, |samples| samples.iter().any(Sample::is_success)).await;
    let kinds = kinds(&prober.finish().await);
    let at = |wanted| kinds.iter().position(|kind| *kind == wanted);
    let deadline = at(Some(FailureKind::Deadline)).expect("the hanging probe");
    assert!(deadline < at(None).expect("a success"));
    assert_eq!(live.1.load(SeqCst), 1);
}

#[tokio::test]
async fn a_refused_or_broken_action_drops_its_connection() {
    for (does, kind, text) in [
        (Does::Refuse, FailureKind::Refused, "a: read-only"),
        (Does::Break, FailureKind::Broken, "a: reset"),
    ] {
        let shape = quick().with_connections(2).unwrap();
        let fake = host("a", Does::Well, does);
        let live = Arc::clone(&fake.live);
        let prober = start(shape, vec![fake]);
        let seen = |sample: &Sample| match &sample.outcome {
            Outcome::Success => false,
            Outcome::Failure(f) => f.kind == kind && f.text.starts_with(text),
        };
        // More than there are connections: they were dropped and made again.
        until(&prober, |samples| {
            samples.iter().filter(|s| seen(s)).count() >= 5
        })
        .await;
        prober.finish().await;
        assert!(live.1.load(SeqCst) <= 2);
    }
}

#[tokio::test]
async fn two_hosts_share_the_connections() {
    let hosts = vec![
        host("a", Does::Well, Does::Well),
        host("b", Does::Well, Does::Well),
    ];
    let shape = quick().with_connections(3).unwrap();
    let pool = Pool {
        clock: Clock::start(),
        shape,
        store: Arc::new(Store::new(std::iter::empty())),
        alive: watch::Sender::new(0),
        idle: Mutex::new(VecDeque::new()),
    };
    let hosts: Vec<Arc<Fake>> = hosts.into_iter().map(Arc::new).collect();
    for host in hosts.iter().cycle().take(6) {
        let connection = host.connect().await.unwrap();
        pool.admit(Standing {
            host: Arc::clone(host),
            connection,
        });
    }
    let names: Vec<&str> = pool
        .idle()
        .iter()
        .map(|standing| standing.host.name)
        .collect();
    assert_eq!((names, *pool.alive.borrow()), (vec!["a", "b", "a"], 3));
}

async fn panic_of(prober: Prober) -> String {
    let finished = tokio::spawn(prober.finish()).await;
    let panic = finished.expect_err("finish went on").into_panic();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_panic_in_a_task_is_resumed_in_the_caller() {
    for (connect, act, text) in [
        (Does::Panic, Does::Well, "connect of a"),
        (Does::Well, Does::Panic, "act of a"),
    ] {
        let prober = start(quick(), vec![host("a", connect, act)]);
        let mut news = prober.subscribe();
        while !prober.store.lock().panicked {
            within(Duration::from_secs(20), news.changed())
                .await
                .unwrap()
                .unwrap();
        }
        assert_eq!(panic_of(prober).await, text);

        let prober = start(quick(), vec![host("a", connect, act)]);
        let mut news = prober.subscribe();
        while !prober.store.lock().panicked {
            within(Duration::from_secs(20), news.changed())
                .await
                .unwrap()
                .unwrap();
        }
        let looked = std::panic::catch_unwind(AssertUnwindSafe(|| prober.so_far()));
        let panic = looked.expect_err("so_far went on");
        assert_eq!(
            panic.downcast_ref::<String>().map(String::as_str),
            Some(text)
        );
        let again = std::panic::catch_unwind(AssertUnwindSafe(|| prober.inspect(<[_]>::len)));
        assert!(again.is_err(), "a panic is not forgotten once it was told");
    }
}

#[tokio::test]
async fn dropping_the_prober_ends_everything() {
    let (alive, mut gone) = mpsc::channel(1);
    let hosts = [("a", Does::Well, Does::Hang), ("b", Does::Hang, Does::Well)];
    let hosts = hosts.map(|(name, connect, act)| Fake {
        alive: Some(alive.clone()),
        ..host(name, connect, act)
    });
    drop(alive);
    let long = quick().with_limit(Duration::from_secs(3600)).unwrap();
    let prober = start(long, hosts.into());
    until(&prober, |samples| !samples.is_empty()).await;
    drop(prober);
    let ended = within(Duration::from_secs(20), gone.recv()).await;
    assert_eq!(ended.expect("a task or a connection stayed"), None);
}

#[test]
fn a_shape_that_can_not_be_is_refused() {
    let shape = Shape::default();
    let zero = Duration::ZERO;
    assert_eq!(shape.with_connections(0), Err(ShapeError::NoConnections));
    for made in [
        shape.with_spacing(zero),
        shape.with_spacing(Duration::from_micros(999)),
        shape.with_limit(zero),
        shape.with_connect_limit(zero),
        shape.with_reconnect_every(zero),
    ] {
        assert!(matches!(made, Err(ShapeError::TooShort { .. })), "{made:?}");
    }
    assert!(matches!(
        shape.with_limit(Duration::MAX),
        Err(ShapeError::TooLong { .. })
    ));
}

fn late(number: u64, late_us: i64) -> Sample {
    let due = At(number as i64 * 20_000);
    let start = At(due.0 + late_us);
    Sample {
        number,
        due,
        start,
        end: start,
        outcome: Outcome::Success,
    }
}

#[test]
fn lateness_is_exact_and_judged_at_p99() {
    assert_eq!(Lateness::of(&[]), None);
    let samples: Vec<Sample> = (0..100).map(|n| late(n, n as i64 + 1)).collect();
    let lateness = Lateness::of(&samples).unwrap();
    assert_eq!(
        lateness,
        Lateness {
            p50_us: 50,
            p99_us: 99,
            max_us: 100
        }
    );
    assert!(lateness.blind(Duration::from_micros(98)));
    assert!(!lateness.blind(Duration::from_micros(99)));
    let one = Lateness::of(&[late(0, 7)]).unwrap();
    assert_eq!((one.p50_us, one.p99_us, one.max_us), (7, 7, 7));
}

#[test]
fn a_sample_carries_its_units_and_comes_back() {
    let failure = Failure {
        kind: FailureKind::NoConnection,
        text: "none".to_owned(),
    };
    let failed = Sample {
        outcome: Outcome::Failure(failure),
        ..late(3, 5)
    };
    let text = serde_json::to_string(&failed).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"number":3,"due_us":60000,"start_us":60005,"end_us":60005,"#,
            r#""outcome":{"failure":{"kind":"no_connection","text":"none"}}}"#
        )
    );
    assert_eq!(serde_json::from_str::<Sample>(&text).unwrap(), failed);
}

#[test]
fn texts_are_one_short_line() {
    assert_eq!(short(" a\n  b\t"), "a b");
    assert_eq!(short(&"ä".repeat(161)), "ä".repeat(160) + "…");
    assert_eq!(short(&"ä".repeat(160)), "ä".repeat(160));
}
