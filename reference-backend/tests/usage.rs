//! redis-demo as it is started: what is wrong is usage (64) and is named, and without Redis it goes on and says so.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::panic, reason = "a test that can't go on has failed")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use lab_test::Alone;

const SENTINELS: (&str, &str) = ("REDIS_SENTINEL_ADDRS", "127.0.0.1:1,127.0.0.1:2");
const MASTER: (&str, &str) = ("REDIS_SENTINEL_MASTER_NAME", "veza");

const DEMO: Alone = Alone {
    program: env!("CARGO_BIN_EXE_redis-demo"),
    env: &[],
    complains: "usage: ",
};

fn usage(args: &[&str], env: &[(&str, &str)], word: &str) {
    let text = DEMO.usage(args, env, word);
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn garbage_is_named_and_no_secret_is_repeated() {
    usage(&[], &[], "REDIS_SENTINEL_ADDRS");
    usage(&[], &[SENTINELS], "REDIS_SENTINEL_MASTER_NAME");
    usage(&[], &[("REDIS_SENTINEL_ADDRS", "a:b"), MASTER], "a:b");
    usage(&[], &[("REDIS_URL", "http://u:hunter2@h")], "REDIS_URL");
    let missing = ("REDIS_PASSWORD_FILE", "/nowhere");
    usage(&[], &[SENTINELS, MASTER, missing], "/nowhere");
    usage(&["--metrics", "9130"], &[SENTINELS, MASTER], "--metrics");
    usage(&["--per-second", "0"], &[SENTINELS, MASTER], "--per-second");
    usage(&["--nonsense"], &[SENTINELS, MASTER], "--nonsense");
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["--help", "--version"] {
        assert_eq!(DEMO.run(&[flag], &[]).status.code(), Some(0));
    }
}

#[test]
fn an_address_that_is_taken_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = DEMO.run(&["--metrics", &address], &[SENTINELS, MASTER]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(&address), "{text}");
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn value(answer: &str, series: &str) -> u64 {
    let line = answer.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("{series}: {answer}"))
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn without_redis_it_goes_on_and_every_request_is_a_miss() {
    let args = ["--metrics", "127.0.0.1:0", "--per-second", "100"];
    let mut child = DEMO
        .command(&args, &[SENTINELS, MASTER])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut story = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = || story.next().unwrap().unwrap();
    let listens = said();
    let url = listens.split_once("http://").unwrap().1;
    let address = url.strip_suffix("/metrics").unwrap().to_owned();
    let memory = said();
    let mut answer = scrape(&address);
    while value(
        &answer,
        "veza_cache_misses_total{subsystem=\"chat_pubsub\"}",
    ) < 5
    {
        answer = scrape(&address);
    }
    let of = |counter: &str, subsystem: &str| {
        value(
            &answer,
            &format!("veza_cache_{counter}_total{{subsystem=\"{subsystem}\"}}"),
        )
    };
    let hits = ["rate_limiter", "chat_pubsub", "presence"].map(|subsystem| of("hits", subsystem));
    let misses = [of("misses", "rate_limiter"), of("misses", "presence")];
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(hits, [0, 0, 0]);
    assert!(misses.iter().all(|misses| *misses >= 5), "{misses:?}");
    assert!(
        answer.contains("200 OK") && answer.contains("# EOF"),
        "{answer}"
    );
    assert!(memory.contains("memory answers"), "{memory}");
}
