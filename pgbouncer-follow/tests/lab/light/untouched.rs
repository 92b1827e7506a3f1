//! What docs/pgbouncer.md says that transaction mode forbids, shown; nothing is broken for it. Each client alone gets the same, idle
//! server connection; a second one is only used while the first is in a transaction.

use crate::support::{Lab, ask};

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_set_is_for_whoever_comes_next() {
    let lab = Lab::new().await;
    let (one, two) = (lab.through().await.unwrap(), lab.through().await.unwrap());
    ask(&one.client, "set work_mem = '77MB'").await.unwrap();
    let seen = ask(&two.client, "show work_mem").await.unwrap();
    assert_eq!(seen, ["77MB"], "set by one, found by the other");
    ask(&one.client, "reset work_mem").await.unwrap();
    let local = "begin; set local work_mem = '78MB'; commit";
    ask(&one.client, local).await.unwrap();
    let seen = ask(&two.client, "show work_mem").await.unwrap();
    assert_ne!(seen, ["78MB"], "set local ends with its transaction");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_session_lock_excludes_nobody() {
    let lab = Lab::new().await;
    let (one, two) = (lab.through().await.unwrap(), lab.through().await.unwrap());
    ask(&one.client, "select pg_advisory_lock(6432)")
        .await
        .unwrap();
    let both = ask(&two.client, "select pg_try_advisory_lock(6432)")
        .await
        .unwrap();
    assert_eq!(both, ["t"], "both have it");
    ask(&two.client, "select pg_advisory_unlock_all()")
        .await
        .unwrap();
    // One for the transaction does.
    ask(&one.client, "begin; select pg_advisory_xact_lock(6432)")
        .await
        .unwrap();
    let other = ask(&two.client, "select pg_try_advisory_xact_lock(6432)")
        .await
        .unwrap();
    assert_eq!(other, ["f"]);
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_is_listened_to_is_not_heard() {
    let lab = Lab::new().await;
    let (mut one, two) = (lab.through().await.unwrap(), lab.through().await.unwrap());
    ask(&one.client, "listen news").await.unwrap();
    // While the first one's server connection is another's, what it hears is another's, too.
    ask(&two.client, "begin; notify news; commit")
        .await
        .unwrap();
    ask(&one.client, "select 1").await.unwrap();
    let heard = one.messages.try_recv();
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn statements_prepared_by_the_protocol_follow_their_client_and_those_of_sql_do_not() {
    let lab = Lab::new().await;
    let (one, two) = (lab.through().await.unwrap(), lab.through().await.unwrap());
    let prepared = one.client.prepare("select 6000 + $1::int").await.unwrap();
    ask(&one.client, "prepare by_sql as select 1")
        .await
        .unwrap();
    // The other client takes that server connection away.
    ask(&two.client, "begin").await.unwrap();
    let row = one.client.query_one(&prepared, &[&432]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 6432);
    let error = ask(&one.client, "execute by_sql").await.unwrap_err();
    assert!(error.contains("does not exist"), "{error}");
}
