//! What pgbench calls no failure, or has no word for: each made for real.

use crate::support::{Lab, POOLER, Running, gate};

#[tokio::test]
#[ignore = "needs the lab"]
async fn transactions_that_fail_and_clients_that_give_up() {
    let lab = Lab::new("errors").await;
    let load = |more: &[&'static str]| {
        let base = ["--clients", "16", "--threads", "2", "--seconds", "3"];
        base.into_iter()
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let run = |script: &str| {
        let mut args = load(&[]);
        args.extend(["--script".to_owned(), script.to_owned()]);
        lab.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    lab.run(&["--clients", "8", "--seconds", "1"])
        .came_to(0, "pass", "all-gates-held");

    // pgbench says `0 (NaN%)` failed.
    let ran = run(&lab.script("error.sql", "select 1/0;\n"));
    ran.came_to(1, "fail", "client-errors-missed");
    assert_eq!(gate(&ran, "failed"), (0.0, "held".to_owned()));
    ran.says("division by zero");

    // pgbench ends with 0 and complains of nothing.
    let serializable = "begin isolation level serializable;\nupdate pgbench_branches set bbalance = \
                        bbalance + 1;\ncommit;\n";
    let ran = run(&lab.script("serializable.sql", serializable));
    ran.came_to(1, "fail", "failed-missed");
    assert_eq!(gate(&ran, "exit-status"), (0.0, "held".to_owned()));
    ran.says("serialization failures");

    let row =
        |name: &str| format!("update pgbench_accounts set abalance = 1 where aid = :{name};\n");
    let deadlock = format!(
        "\\set a random(1, 20)\n\\set b random(1, 20)\nbegin;\n{}{}commit;\n",
        row("a"),
        row("b")
    );
    let ran = run(&lab.script("deadlock.sql", &deadlock));
    ran.came_to(1, "fail", "failed-missed");
    assert!(gate(&ran, "failed").0 >= 1.0);

    // Three backends are terminated: `0 failed`.
    let mut running = lab.start(&["--clients", "40", "--threads", "2", "--seconds", "6"]);
    running.until_said("round 1");
    let busy = "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity where \
                usename = 'veza' and state <> 'idle' limit 3) as victims";
    let all = async {
        let mut terminated: u32 = 0;
        while terminated < 3 {
            terminated += lab.sql(busy).await.parse::<u32>().unwrap();
        }
    };
    veza_probe::clock::within(crate::support::MINUTE, all)
        .await
        .expect("three are terminated");
    let ran = lab.ran(&running.ended());
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert_eq!(gate(&ran, "failed"), (0.0, "held".to_owned()));
    assert_eq!(gate(&ran, "client-errors").1, "missed");
    assert_eq!(gate(&ran, "exit-status"), (2.0, "missed".to_owned()));
    lab.nothing_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_pooler_that_throws_clients_out() {
    let lab = Lab::new("thrown-out").await;
    let load = ["--clients", "30", "--threads", "2", "--seconds", "5"];
    // Ninety of a hundred places are enough, until twenty others come: each transaction takes a new place.
    lab.console("SET max_client_conn = 100").await;
    let mut running = lab.start(&["--clients", "90", "--seconds", "5", "--reconnect"]);
    running.until_said("round 1");
    lab.others_come(20).await;
    let ran = lab.ran(&running.ended());
    ran.came_to(1, "fail", "connection-errors-missed");
    ran.says("max_client_conn");
    lab.console("SET max_client_conn = 1000").await;

    // The pool is exhausted: who waits longer than a second is thrown out.
    for setting in [
        "query_wait_timeout = 1",
        "default_pool_size = 1",
        "reserve_pool_size = 0",
    ] {
        lab.console(&format!("SET {setting}")).await;
    }
    lab.console("RECONNECT").await;
    let sleep = lab.script("sleep.sql", "select pg_sleep(0.7);\n");
    let mut args = load.to_vec();
    args.extend(["--script", &sleep]);
    let ran = lab.run(&args);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert_eq!(gate(&ran, "client-errors").1, "missed");
    ran.says("query_wait_timeout");
    for setting in [
        "query_wait_timeout = 120",
        "default_pool_size = 50",
        "reserve_pool_size = 10",
    ] {
        lab.console(&format!("SET {setting}")).await;
    }

    let mut running = lab.start(&load);
    running.until_said("round 1");
    let (code, said) = lab
        .sh(POOLER, "sleep 2; systemctl restart pgbouncer.service")
        .await;
    assert_eq!(code, 0, "{said}");
    let ran = lab.ran(&running.ended());
    assert_eq!(
        (ran.code, ran.report["verdict"].as_str()),
        (1, Some("fail"))
    );
    lab.nothing_is_left().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn outside_a_lab_others_come_first() {
    let lab = Lab::new("outside").await;
    let outside = |args: &[&str]| {
        let mut command = lab.load(args);
        command.env_remove("VEZA_LAB_CREDENTIALS");
        command
    };
    let load = ["--clients", "8", "--threads", "2", "--seconds", "60"];
    lab.sql("create table public.somebodys ()").await;
    let ran = lab.ran(&outside(&load).output().unwrap());
    ran.came_to(1, "refused", "not-its-own-database");
    lab.sql("drop table public.somebodys").await;

    // Three others share one server connection, and two of them wait for more than a second.
    for command in [
        "SET default_pool_size = 1",
        "SET reserve_pool_size = 0",
        "RECONNECT",
    ] {
        lab.console(command).await;
    }
    let mut running = Running::of(&mut outside(&load));
    running.until_said("round 1");
    lab.others_come(3).await;
    let ran = lab.ran(&running.ended());
    ran.came_to(5, "inconclusive", "others-wait");
    ran.says("clients of pgbouncer_follow in veza");
    lab.nothing_is_left().await;
}
