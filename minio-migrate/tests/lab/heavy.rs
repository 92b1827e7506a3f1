//! A copy that mc mirror made from the single node to the cluster, judged.

mod copying;
mod cutting;

use super::support::Lab;

/// What is on the source: small, empty, in parts, with all that belongs to an object, overwritten and deleted.
const MAKE: &str = r#"
mkdir -p /tmp/made/sub; cd /tmp/made
for i in $(seq 40); do head -c $((i * 1000)) /dev/urandom > track$i; done
: > empty; head -c 12000000 /dev/urandom > large; echo x > 'sub/a b+c%é.txt'
minio-client --quiet mirror /tmp/made "$AT" >/dev/null
for i in 1 2 3; do echo $i > v; minio-client --quiet cp v "$AT/versions" >/dev/null; done
minio-client --quiet rm "$AT/track7" >/dev/null
minio-client --quiet cp --attr 'Cache-Control=max-age=9;X-Amz-Meta-Artist=me' --tags 'a=1&b=2' v "$AT/tagged" >/dev/null
"#;

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_copy_that_somebody_else_made_is_judged_by_its_bytes_and_all_that_belongs_to_them() {
    let lab = Lab::new("judged").await;
    lab.mc("minio-old", MAKE).await;
    lab.mc(
        "minio-1",
        "again minio-client --quiet mirror $FROM $AT >/dev/null",
    )
    .await;
    // The copy has lost the tags.
    let ran = lab.verify(&["--versions", "latest"]);
    ran.came_to(2, "fail", "different-missed");
    ran.says("tag a: \"1\" on the source, none on the target");
    assert_eq!(ran.measured("different"), (1.0, 1.0));
    lab.mc(
        "minio-1",
        "again minio-client --quiet tag set $AT/tagged 'a=1&b=2'",
    )
    .await;
    let ran = lab.verify(&["--versions", "latest"]);
    ran.came_to(0, "pass", "all-gates-held");
    assert_eq!(
        ran.figure("versions"),
        44.0,
        "all that was made and not deleted"
    );
    // The older versions and the deleted key were never copied.
    let ran = lab.verify(&[]);
    ran.came_to(2, "fail", "missing-missed");
    assert_eq!(
        ran.measured("missing"),
        (3.0, 3.0),
        "two versions and a deleted key"
    );
    // As many bytes as before, and others.
    lab.mc("minio-2", "head -c 5000 /dev/urandom | put $AT/track5")
        .await;
    let findings = lab.0.folder.join("findings.ndjson");
    let ran = lab.verify(&[
        "--versions",
        "latest",
        "--findings",
        findings.to_str().unwrap(),
    ]);
    ran.came_to(2, "fail", "different-missed");
    let text = std::fs::read_to_string(findings).unwrap();
    let found: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(found.get("key").unwrap(), "migrated/track5");
    assert_eq!(found.get("kind").unwrap(), "different");
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_store_that_is_away_or_refuses_is_a_refusal() {
    let lab = Lab::new("refused").await;
    let mut command = lab.0.command();
    command.env_remove("MINIO_DST_SECRET_KEY_FILE");
    command
        .env("MINIO_DST_SECRET_KEY", "hunter2hunter2")
        .arg("verify");
    let ran = lab.0.ran(&command.output().unwrap());
    ran.came_to(1, "refused", "credentials-refused");
    assert!(!format!("{}{}{}", ran.stdout, ran.stderr, ran.report).contains("hunter2"));
    lab.inside("minio-3", "systemctl stop minio").await;
    let ran = lab.verify(&[]);
    ran.came_to(1, "refused", "store-unreachable");
}
