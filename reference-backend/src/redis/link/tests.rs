//! The link against servers whose word is the test's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use veza_probe::secret::Secret;

use super::super::config::{Address, Login};
use super::super::fake::{self, Fake, bulk};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn sentinels(addresses: &[&Address]) -> Config {
    Config {
        place: Place::Sentinels {
            addresses: addresses.iter().map(|a| (*a).clone()).collect(),
            master_name: "veza".to_owned(),
            login: Login::default(),
        },
        login: Login::default(),
    }
}

fn single(address: &Address) -> Config {
    let url = format!("redis://{address}").into_connection_info().unwrap();
    Config {
        place: Place::Single(Box::new(url)),
        login: Login::default(),
    }
}

/// A link that never finds anything: its one sentinel refuses.
pub(in crate::redis) fn without_redis() -> (Link, CacheMetrics) {
    let metrics = CacheMetrics::default();
    let nowhere = Address {
        host: "127.0.0.1".to_owned(),
        port: 1,
    };
    let link = Link::start(sentinels(&[&nowhere]), metrics.clone());
    (link, metrics)
}

/// A link to one server that has found it.
pub(in crate::redis) async fn linked(server: &Fake) -> (Link, CacheMetrics) {
    let metrics = CacheMetrics::default();
    let link = Link::start(single(&server.address), metrics.clone());
    until_at(&link, &server.address).await;
    (link, metrics)
}

async fn until_at(link: &Link, address: &Address) {
    let mut master = link.master();
    let there = |master: &Option<Master>| {
        let found = master.as_ref().map(Master::address);
        found == Some(address.to_string())
    };
    let found = within(MINUTE, master.wait_for(there)).await;
    assert!(found.is_ok(), "{address}: {:?}", link.problem());
}

async fn set(link: &Link) -> Result<(), Failure> {
    let mut command = cmd("SET");
    command.arg("k").arg("v");
    link.ask(Subsystem::Presence, &command).await
}

/// A sentinel whose word a test changes: port and epoch.
async fn changing_sentinel(port: u16) -> (Fake, Arc<(AtomicU64, AtomicU64)>) {
    let word = Arc::new((AtomicU64::new(port.into()), AtomicU64::new(1)));
    let own = word.clone();
    let fake = Fake::start(move |words: &[String]| {
        let port = u16::try_from(own.0.load(Ordering::SeqCst)).unwrap();
        fake::sentinel(port, own.1.load(Ordering::SeqCst))(words)
    })
    .await;
    (fake, word)
}

#[tokio::test]
async fn a_lost_master_is_left_for_the_one_that_the_sentinels_name() {
    let (first, second) = (
        Fake::start(fake::master()).await,
        Fake::start(fake::master()).await,
    );
    let (sentinel, word) = changing_sentinel(first.address.port).await;
    let metrics = CacheMetrics::default();
    let link = Link::start(sentinels(&[&sentinel.address]), metrics.clone());
    until_at(&link, &first.address).await;
    set(&link).await.unwrap();
    first.stop().await;
    assert!(set(&link).await.is_err());
    word.0.store(second.address.port.into(), Ordering::SeqCst);
    word.1.store(2, Ordering::SeqCst);
    until_at(&link, &second.address).await;
    set(&link).await.unwrap();
    assert_eq!(metrics.of(Subsystem::Presence), (2, 1));
}

/// The old master is alive and says READONLY: it was demoted.
#[tokio::test]
async fn a_master_that_became_read_only_is_left() {
    let demoted = Arc::new(AtomicBool::new(false));
    let own = demoted.clone();
    let first = Fake::start(move |words: &[String]| match own.load(Ordering::SeqCst) {
        true if words[0] == "ROLE" => Some(format!("*1\r\n{}", bulk("slave"))),
        true => Some(fake::READONLY.to_owned()),
        false => fake::master()(words),
    })
    .await;
    let second = Fake::start(fake::master()).await;
    let (sentinel, word) = changing_sentinel(first.address.port).await;
    let link = Link::start(sentinels(&[&sentinel.address]), CacheMetrics::default());
    until_at(&link, &first.address).await;
    demoted.store(true, Ordering::SeqCst);
    let error = set(&link).await.unwrap_err().to_string();
    // The task's own look may have been first.
    assert!(
        error.contains("read only replica") || error.contains("no master"),
        "{error}"
    );
    let mut master = link.master();
    within(MINUTE, master.wait_for(Option::is_none))
        .await
        .unwrap()
        .unwrap();
    // As long as the sentinels name a node that says that it is none, there is no master.
    let problem = async {
        while !link
            .problem()
            .is_some_and(|problem| problem.contains("\"slave\""))
        {
            tokio::task::yield_now().await;
        }
    };
    within(MINUTE, problem).await.unwrap();
    word.0.store(second.address.port.into(), Ordering::SeqCst);
    until_at(&link, &second.address).await;
    set(&link).await.unwrap();
}

/// Nobody told us, and the old master still answers as one: a switchover is followed all the same.
#[tokio::test]
async fn a_switchover_is_followed_without_any_error() {
    let (first, second) = (
        Fake::start(fake::master()).await,
        Fake::start(fake::master()).await,
    );
    let (sentinel, word) = changing_sentinel(first.address.port).await;
    let link = Link::start(sentinels(&[&sentinel.address]), CacheMetrics::default());
    until_at(&link, &first.address).await;
    word.0.store(second.address.port.into(), Ordering::SeqCst);
    until_at(&link, &second.address).await;
}

/// Nor does that one stay unwatched: it may be demoted while they are away.
#[tokio::test]
async fn sentinels_that_are_all_away_take_no_master_that_answers() {
    let demoted = Arc::new(AtomicBool::new(false));
    let own = demoted.clone();
    let first = Fake::start(move |words: &[String]| match words[0].as_str() {
        "ROLE" if own.load(Ordering::SeqCst) => Some(format!("*1\r\n{}", bulk("slave"))),
        _ => fake::master()(words),
    })
    .await;
    let (sentinel, _) = changing_sentinel(first.address.port).await;
    let link = Link::start(sentinels(&[&sentinel.address]), CacheMetrics::default());
    until_at(&link, &first.address).await;
    sentinel.stop().await;
    let problem = async {
        while link.problem().is_none() {
            tokio::task::yield_now().await;
        }
    };
    within(MINUTE, problem).await.unwrap();
    set(&link).await.unwrap();
    demoted.store(true, Ordering::SeqCst);
    let mut master = link.master();
    let left = within(MINUTE, master.wait_for(Option::is_none)).await;
    left.unwrap().unwrap();
}

#[tokio::test]
async fn while_all_is_well_one_connection_is_enough() {
    let looks = Arc::new(AtomicU64::new(0));
    let own = looks.clone();
    let server = Fake::start(move |words: &[String]| {
        if words[0] == "ROLE" {
            own.fetch_add(1, Ordering::SeqCst);
        }
        fake::master()(words)
    })
    .await;
    let (sentinel, _) = changing_sentinel(server.address.port).await;
    let link = Link::start(sentinels(&[&sentinel.address]), CacheMetrics::default());
    let looked = async {
        while looks.load(Ordering::SeqCst) < 3 {
            sleep(PAUSE).await;
        }
    };
    within(MINUTE, looked).await.unwrap();
    assert_eq!(
        link.master().borrow().as_ref().map(|master| master.number),
        Some(1)
    );
}

/// A host that hangs: the first request waits for its limit, those after it do not wait at all.
#[tokio::test]
async fn only_the_first_request_waits_for_a_master_that_hangs() {
    let hangs = Arc::new(AtomicBool::new(false));
    let own = hangs.clone();
    let server = Fake::start(move |words: &[String]| match own.load(Ordering::SeqCst) {
        true => None,
        false => fake::master()(words),
    })
    .await;
    let (link, metrics) = linked(&server).await;
    hangs.store(true, Ordering::SeqCst);
    let error = within(MINUTE, set(&link))
        .await
        .expect("it hangs")
        .unwrap_err();
    // It waited for its limit, unless the task's own look was first.
    match &error {
        Failure::Silent { elapsed, .. } => assert_eq!(elapsed.0, REQUEST_LIMIT),
        other => assert!(matches!(other, Failure::NoMaster(_)), "{other}"),
    }
    let error = set(&link).await.unwrap_err();
    assert!(matches!(error, Failure::NoMaster(_)), "{error}");
    assert!(link.master().borrow().is_none());
    hangs.store(false, Ordering::SeqCst);
    until_at(&link, &server.address).await;
    set(&link).await.unwrap();
    assert_eq!(metrics.of(Subsystem::Presence), (1, 2));
}

/// The word of a node that may not be asked for its role is that of the sentinels.
#[tokio::test]
async fn a_user_that_may_not_ask_for_the_role_is_served() {
    let server = Fake::start(|words: &[String]| match words[0].as_str() {
        "ROLE" => {
            Some("-NOPERM User app has no permissions to run the 'role' command\r\n".to_owned())
        }
        _ => fake::master()(words),
    })
    .await;
    let (sentinel, _) = changing_sentinel(server.address.port).await;
    let link = Link::start(sentinels(&[&sentinel.address]), CacheMetrics::default());
    until_at(&link, &server.address).await;
    set(&link).await.unwrap();
}

/// Refused credentials are said, without the credentials.
#[tokio::test]
async fn a_refused_login_is_said_without_the_password() {
    let server = Fake::start(|words: &[String]| match words[0].as_str() {
        "AUTH" | "HELLO" => Some("-WRONGPASS invalid username-password pair\r\n".to_owned()),
        _ => fake::master()(words),
    })
    .await;
    let (sentinel, _) = changing_sentinel(server.address.port).await;
    let mut config = sentinels(&[&sentinel.address]);
    config.login.password = Some(Secret::new("hunter2"));
    let link = Link::start(config, CacheMetrics::default());
    let problem = async {
        loop {
            match link.problem() {
                Some(problem) if problem.contains(&server.address.to_string()) => return problem,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let problem = within(MINUTE, problem).await.unwrap();
    assert!(!problem.contains("hunter2"), "{problem}");
    let error = set(&link).await.unwrap_err().to_string();
    assert!(error.contains(&problem), "{error}");
}
