//! A check killed at chosen requests that it makes of Incus: everything must be undone without help.

use std::process::Command;

use crate::proxy::{Moment, Proxy};
use crate::running::Running;
use crate::subject::Subject;

/// At which changing requests of a run it is killed, each time once before the request has reached Incus and once
/// after all of its answer has left it. The words are parts of what [`Proxy::changing`] calls a request.
#[derive(Clone, Copy, Debug)]
pub enum Points<'a> {
    /// Those that hold one of these words; each word must be in one.
    With(&'a [&'a str]),
    /// All that hold none of these words.
    Without(&'a [&'a str]),
}

impl Points<'_> {
    /// The numbers of the requests that are points.
    fn of(self, requests: &[String]) -> Vec<usize> {
        let holds = |request: &String, words: &[&str]| words.iter().any(|w| request.contains(w));
        let is_point = |request: &String| match self {
            Points::With(words) => holds(request, words),
            Points::Without(words) => !holds(request, words),
        };
        if let Points::With(words) = self {
            for word in words {
                let made = requests.iter().any(|request| request.contains(word));
                assert!(made, "no request is {word}: {requests:#?}");
            }
        }
        let numbered = requests.iter().enumerate();
        let points = numbered.filter(|(_, request)| is_point(request));
        points.map(|(number, _)| number).collect()
    }
}

/// Runs a check once as a whole to see which changing requests it makes of Incus, and then once for each point and
/// moment, where it is killed. Asserts each time that it was killed there, and that everything is as it was found
/// within the time that is promised. Returns what it made, in its order.
///
/// `command` must make the same requests in each run; it is given another `INCUS_SOCKET`. After each run that can have
/// broken something, `until_whole` waits until the system is fit for the next.
pub async fn kill_points(
    subject: &Subject,
    command: impl Fn() -> Command,
    points: Points<'_>,
    until_whole: impl AsyncFn(),
) -> Vec<String> {
    let socket = subject.folder.join("incus.sock");
    let proxy = Proxy::start(&socket, subject.incus.place().socket().unwrap());
    let start = || Running::of(command().env("INCUS_SOCKET", &socket));
    let before = subject.as_it_is().await;
    let whole = subject.ran(&start().ended());
    subject.undone_without_help(&before).await;
    let requests = proxy.changing();
    println!("{requests:#?}");
    // At the least a key is set and taken away, and something is done and undone.
    assert!(requests.len() >= 4, "{requests:?}: {}", whole.stdout);
    let breaks = requests.iter().position(|request| !sets_keys(request));
    let mut may_be_broken = true;
    for number in points.of(&requests) {
        for moment in [Moment::Before, Moment::After] {
            if may_be_broken {
                until_whole().await;
            }
            let reached = (number, moment == Moment::After);
            may_be_broken = breaks.is_none_or(|first| reached > (first, false));
            let before = subject.as_it_is().await;
            proxy.clear();
            let check = start();
            proxy.kill_at(number, moment, check.id());
            let output = check.ended();
            let point = &requests[number];
            println!("killed {moment:?} {number}: {point}");
            let story = [output.stderr, output.stdout].concat();
            let story = String::from_utf8_lossy(&story);
            assert!(proxy.struck(), "{point} never came: {story}");
            let there = &proxy.changing()[number];
            assert_eq!(kind(there), kind(point), "another request: {story}");
            assert_eq!(output.status.code(), None, "killed: {story}");
            subject.undone_without_help(&before).await;
        }
    }
    requests
}

/// Whether all that a request changes is config keys of an instance: what runs there does not notice.
fn sets_keys(request: &str) -> bool {
    let (method, details) = kind(request);
    method == "PATCH" && details.starts_with("config ") && !details.contains(',')
}

/// A request without the instance that it is for: that one may be another in each run.
fn kind(request: &str) -> (&str, &str) {
    let (method, path) = request.split_once(' ').unwrap();
    (
        method,
        path.split_once(" (").map_or("", |(_, details)| details),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<String> {
        let all = [
            "PATCH /a (config key)",
            "PUT /a/state (stop)",
            "PUT /a/state (start)",
        ];
        all.map(str::to_owned).to_vec()
    }

    #[test]
    fn points_are_those_with_a_word_or_all_without() {
        assert_eq!(Points::With(&["(stop)", "(start)"]).of(&requests()), [1, 2]);
        assert_eq!(Points::Without(&["(stop)"]).of(&requests()), [0, 2]);
        assert_eq!(Points::Without(&[]).of(&requests()), [0, 1, 2]);
    }

    #[test]
    fn keys_alone_break_nothing() {
        assert!(sets_keys("PATCH /1.0/instances/a (config user.veza.fault)"));
        for request in [
            "PATCH /1.0/instances/a (devices eth0)",
            "PATCH /1.0/instances/a (config user.veza.fault, devices eth0)",
            "PUT /1.0/instances/a/state (stop)",
            "POST /1.0/instances/a/files",
            "PATCH /1.0/instances/a",
        ] {
            assert!(!sets_keys(request), "{request}");
        }
    }

    #[test]
    #[should_panic(expected = "no request is (freeze)")]
    fn a_point_that_never_comes_is_no_pass() {
        Points::With(&["(stop)", "(freeze)"]).of(&requests());
    }
}
