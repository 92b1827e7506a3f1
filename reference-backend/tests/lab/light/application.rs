//! Two servers of the application and the lab's Redis: all is shared, a lost master is followed, and without
//! Redis each goes on by itself.

use reference_backend::redis::Source;
use veza_probe::clock::{Clock, within};
use veza_probe::incus::StateChange;

use crate::support::{Answered, Lab, MINUTE, REDIS, Server, hear, role};

#[tokio::test]
#[ignore = "needs the lab"]
async fn servers_share_what_redis_holds_until_it_is_away_and_then_each_goes_on_by_itself() {
    let lab = Lab::new().await;
    let (one, two) = (Server::start("one").await, Server::start("two").await);

    // One window for both, users of the other are found, and its messages are heard.
    let client = format!("client-{}", std::process::id());
    let mut allowed = Vec::new();
    for server in [&one, &two, &one, &two] {
        let decision = server.limiter.check(&client).await;
        assert_eq!(decision.source, Source::Redis);
        allowed.push((decision.allowed, decision.remaining));
    }
    assert_eq!(allowed, [(true, 2), (true, 1), (true, 0), (false, 0)]);
    let user = format!("user-{}", std::process::id());
    assert_eq!(two.presence.find(&user).await, (None, Source::Redis));
    one.presence.announce(&user).await;
    let at_one = (Some(one.name().to_owned()), Source::Redis);
    assert_eq!(two.presence.find(&user).await, at_one);
    let mut room = two.chat.join("room");
    assert_eq!(one.chat.say("room", "hello").await, Source::Redis);
    hear(&mut room, "hello").await;
    // Each answer was a hit, "nobody" and "no more" too.
    assert_eq!(one.counts(), [(2, 0), (1, 0), (1, 0)]);
    assert_eq!(two.counts(), [(2, 0), (0, 0), (2, 0)]);

    for instance in REDIS {
        lab.set(instance, StateChange::ForceStop).await;
    }
    // What was under way may have lost its connection or not; from then on memory answers.
    one.use_all("warm-up").await;
    let before = one.counts();
    for _ in 0..10 {
        assert_eq!(one.use_all("anyone").await, Answered::by(Source::Memory));
    }
    let [limiter, chat, presence] = one.counts();
    assert_eq!(limiter, (before[0].0, before[0].1 + 10));
    assert_eq!(chat, (before[1].0, before[1].1 + 10));
    assert_eq!(presence, (before[2].0, before[2].1 + 20));
    // What memory answers is the server's own: its count, its users, its listeners.
    assert!(!one.limiter.check("anyone").await.allowed);
    let fresh = one.limiter.check("fresh").await;
    assert_eq!((fresh.allowed, fresh.remaining), (true, 2));
    let at_one = (Some(one.name().to_owned()), Source::Memory);
    assert_eq!(one.presence.find(&user).await, at_one);
    assert_eq!(two.presence.find(&user).await, (None, Source::Memory));
    let mut own = one.chat.join("room");
    assert_eq!(one.chat.say("room", "only here").await, Source::Memory);
    hear(&mut own, "only here").await;
    assert!(room.try_recv().is_err(), "it can't reach the other server");

    // And back, without a restart.
    for instance in REDIS {
        lab.set(instance, StateChange::Start).await;
    }
    one.until_served().await;
    two.until_linked().await;
    one.chat.say("room", "again").await;
    hear(&mut room, "again").await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_lost_master_is_followed_without_a_restart() {
    followed(StateChange::ForceStop, StateChange::Start).await;
}

/// A host that hangs ends no connection and takes new ones: only our own limit ends a request there.
#[tokio::test]
#[ignore = "needs the lab"]
async fn a_master_that_hangs_is_left_and_no_request_hangs_with_it() {
    followed(StateChange::Freeze, StateChange::Unfreeze).await;
}

async fn followed(away: StateChange, back: StateChange) {
    let lab = Lab::new().await;
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let mut room = two.chat.join("room");
    one.until_served().await;
    let old = one.until_linked().await;
    let lost = lab.at(&old).await;
    let [limiter, chat, presence] = one.counts();
    assert_eq!(limiter.1 + chat.1 + presence.1, 0, "no miss so far");

    let clock = Clock::start();
    lab.set(lost, away).await;
    // Requests go on meanwhile; each has its answer, by whom it may.
    one.until_served_elsewhere(&old).await;
    let (new, took) = (one.until_linked().await, clock.at());
    println!(
        "from {old} to {new} {took} after the call: {:?}",
        one.counts()
    );
    two.until_served_elsewhere(&old).await;
    assert_eq!(two.until_linked().await, new);
    one.chat.say("room", "at the new master").await;
    hear(&mut room, "at the new master").await;

    // The old one may call itself master for some seconds when it is back; nobody goes there.
    lab.set(lost, back).await;
    let rejoined = async {
        while role(&old).await != Some("slave".to_owned()) {
            one.use_all("anyone").await;
            assert_eq!(one.until_linked().await, new);
        }
    };
    let rejoined = within(MINUTE, rejoined).await;
    assert!(rejoined.is_ok(), "{lost} did not become a replica");
    assert_eq!(one.use_all("anyone").await, Answered::by(Source::Redis));
}
