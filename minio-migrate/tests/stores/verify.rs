//! What is compared.

use crate::store::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_the_same_also_through_busy_servers_and_lost_connections() {
    assert_eq!(
        verified(good(), good(), &[]).await,
        came(0, "all-gates-held")
    );
    let busy = Store {
        busy: 2.into(),
        cut: 1.into(),
        ..good()
    };
    assert_eq!(verified(busy, good(), &[]).await, came(0, "all-gates-held"));
    let cut = Store {
        cut: 2.into(),
        ..good()
    };
    assert_eq!(verified(good(), cut, &[]).await, came(0, "all-gates-held"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_never_the_same() {
    let flips = Store {
        flips: true,
        ..good()
    };
    assert_eq!(
        verified(good(), flips, &[]).await,
        came(2, "different-missed")
    );
    let other = Store::with(&[
        ("a", "one"),
        ("b", "TWO"),
        ("c", ""),
        ("d", "four"),
        ("e", "five"),
    ]);
    assert_eq!(
        verified(good(), other, &[]).await,
        came(2, "different-missed")
    );
    let fewer = Store::with(OBJECTS.get(..4).unwrap());
    assert_eq!(
        verified(good(), fewer, &[]).await,
        came(2, "missing-missed")
    );
    let fewer = Store::with(OBJECTS.get(..4).unwrap());
    assert_eq!(
        verified(fewer, good(), &[]).await,
        came(2, "unexpected-missed")
    );
    let fewer = Store::with(OBJECTS.get(..4).unwrap());
    assert_eq!(
        verified(fewer, good(), &["--allow-unexpected"]).await,
        came(0, "all-gates-held")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_denies_and_lists_is_asked_for_again_and_is_no_change() {
    let denied = |times: usize| Store {
        denied: times.into(),
        ..good()
    };
    let came_to = verified(good(), denied(2), &[]).await;
    assert_eq!(came_to, came(0, "all-gates-held"));
    let came_to = verified(good(), denied(usize::MAX), &[]).await;
    assert_eq!(came_to, came(2, "unread-missed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_each_time_is_unread() {
    let cut = Store {
        cut: usize::MAX.into(),
        ..good()
    };
    assert_eq!(
        verified(good(), cut, &["--workers=64"]).await,
        came(2, "unread-missed")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_compared_to_the_end_proves_nothing() {
    let lost = Store {
        loses_pages: true.into(),
        ..good()
    };
    assert_eq!(verified(lost, good(), &[]).await, came(5, "listing-broken"));
    let lost = Store {
        loses_pages: true.into(),
        ..good()
    };
    assert_eq!(verified(good(), lost, &[]).await, came(5, "listing-broken"));
    assert_eq!(
        verified(Store::default(), Store::default(), &[]).await,
        came(5, "nothing-compared")
    );
    let changes = Store {
        changes: true,
        ..good()
    };
    assert_eq!(
        verified(changes, good(), &[]).await,
        came(5, "changed-meanwhile")
    );
    assert_eq!(
        verified(good(), good(), &["--bucket=others"]).await,
        came(1, "no-bucket")
    );
}

#[test]
fn bad_arguments_are_usage_before_anybody_is_asked() {
    MIGRATE.usage(&["verify"], &[], "MINIO_SRC_ENDPOINT");
    let source = "--source-endpoint=http://127.0.0.1:1";
    MIGRATE.usage(&["verify", source], &[], "MINIO_DST_ENDPOINTS");
    let target = "--target-endpoint=http://127.0.0.1:2";
    MIGRATE.usage(&["moved", source, target], &[], "moved");
    for (more, word) in [
        (&["copy", "--shard=5/4"][..], "--shard"),
        (&["copy", "--memory=much"], "--memory"),
        (&["copy", "--recover"], "--recover"),
        (&["cutover"], "--writer-access-key"),
        (
            &["cutover", "--writer-access-key=app"],
            "MINIO_WRITER_SECRETS_FILE",
        ),
        (
            &["cutover", "--accept-unfrozen", "--accept-loss=all"],
            "--accept-loss",
        ),
    ] {
        MIGRATE.usage(&[&[source, target], more].concat(), &[], word);
    }
    let no_login = MIGRATE.run(&["verify", source, target], &[("MINIO_DST_SECRET_KEY", "")]);
    assert_eq!(no_login.status.code(), Some(64));
    let told = String::from_utf8(no_login.stdout).unwrap();
    assert!(
        told.contains("MINIO_DST_SECRET_KEY_FILE must be set"),
        "{told}"
    );
    let refused = MIGRATE.run(&["verify", source, target], &[]);
    assert_eq!(refused.status.code(), Some(1), "nobody answers");
}

#[test]
fn logins_may_come_from_a_file_of_variables() {
    let path = std::env::temp_dir().join(format!("minio-migrate-env-{}", std::process::id()));
    let text = "MINIO_DST_SECRET_KEY_FILE=/run/s\nMINIO_DST_ENDPOINTS=http://a:9000\n";
    std::fs::write(&path, text).unwrap();
    let flag = format!("--env-file={}", path.display());
    let mine = ("MINIO_DST_SECRET_KEY", "");
    let output = MIGRATE.run(&[&flag, "--version"], &[mine]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
