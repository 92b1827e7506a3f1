//! Judges what was seen, and what a person does next. Pure. pgbench's own word `0 failed` is one gate of
//! many: it is also printed when clients were thrown out.

use veza_probe::verdict::{Gate, Judgement, Measured, Outcome, Verdict, worst};

use crate::observation::{Cut, Round};
use crate::targets::UNREACHABLE;

/// What is promised.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// Clients that were asked for.
    pub clients: u32,
    /// How long was asked for.
    pub seconds: u32,
    /// Transactions that may fail.
    pub max_failed: u64,
    /// Connections that may fail to be made.
    pub max_connection_errors: u64,
    /// The longest p99, in milliseconds.
    pub p99_max_ms: Option<f64>,
    /// The fewest transactions per second.
    pub tps_min: Option<f64>,
    /// The longest wait for a connection.
    pub maxwait_max_s: Option<f64>,
    /// Transactions per second of each round of an earlier run, and by how many percent they may be
    /// fewer now.
    pub earlier: Option<(Vec<f64>, f64)>,
}

/// One round through the pooler, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// pgbench's exit code.
    pub code: Option<i32>,
    /// Clients that it ran.
    pub clients: Option<u64>,
    /// How long it meant to run, and at most how long it did.
    pub lasted_s: Option<f64>,
    /// Transactions that were done; none when its log says otherwise.
    pub processed: Option<u64>,
    /// Transactions that failed.
    pub failed: Option<u64>,
    /// Transactions per second.
    pub tps: Option<f64>,
    /// Connections that could not be made.
    pub connection_errors: u64,
    /// Clients that gave up, and other lines of error.
    pub client_errors: u64,
    /// Clients that were seen at the pooler.
    pub clients_seen: Option<u64>,
    /// Lines of error in the pooler's log.
    pub complaints: Option<u64>,
    /// 99 in 100 took no longer.
    pub p99_ms: Option<f64>,
    /// The longest wait that was seen.
    pub maxwait_s: Option<f64>,
    /// The first line of error, of whichever end.
    pub first_error: Option<String>,
    /// Why there is no result.
    pub unread: Option<String>,
}

/// A round in numbers; `before` are clients of our own pool that were there already.
pub fn seen(round: &Round, before: u64) -> Seen {
    let summary = round.summary.as_ref().ok();
    let agrees = |processed: u64| round.log.done() == processed && round.log.strange() == 0;
    let complaint = || round.complaints.as_ref()?.first().cloned();
    Seen {
        code: round.code,
        clients: summary.map(|s| s.clients),
        lasted_s: summary.map(|s| (s.duration_s as f64).min(round.took_s())),
        processed: summary.map(|s| s.processed).filter(|n| agrees(*n)),
        failed: summary.map(|s| s.failed),
        tps: summary.and_then(|s| s.tps),
        connection_errors: round.errors.connection,
        client_errors: round.errors.client,
        clients_seen: round.pool.most_clients().map(|n| n.saturating_sub(before)),
        complaints: round.complaints.as_ref().map(|lines| lines.len() as u64),
        p99_ms: round.log.latency().map(|latency| latency.p99_ms),
        maxwait_s: round.pool.maxwait_s(),
        first_error: round.errors.first.first().cloned().or_else(complaint),
        unread: round.summary.as_ref().err().cloned(),
    }
}

/// How many of the clients have to be seen at the pooler: one that comes and goes between two looks is
/// not.
fn nearly_all(clients: u32) -> u64 {
    (u64::from(clients) * 95).div_ceil(100)
}

/// Every gate, those first that say best what went wrong.
pub fn gates(promises: &Promises, rounds: &[Seen]) -> Vec<Gate> {
    let mut gates = errors(promises, rounds);
    gates.extend(proofs(promises, rounds));
    gates.extend(limits(promises, rounds));
    gates
}

/// Nothing may have gone wrong on either end.
fn errors(promises: &Promises, rounds: &[Seen]) -> Vec<Gate> {
    let sum = |of: fn(&Seen) -> Option<u64>| {
        let all: Option<Vec<u64>> = rounds.iter().map(of).collect();
        let all = all.filter(|all| !all.is_empty());
        all.map(|all| Measured::exact(all.iter().sum::<u64>() as f64))
    };
    let count =
        |id, title, limit: u64, unit, of| Gate::at_most(id, title, limit as f64, unit, sum(of));
    let (failed, refused) = (promises.max_failed, promises.max_connection_errors);
    let title = "transactions that failed";
    let mut gates = vec![count("failed", title, failed, "transactions", |s| s.failed)];
    let title = "connections that could not be made";
    gates.push(count(
        "connection-errors",
        title,
        refused,
        "connections",
        |s| Some(s.connection_errors),
    ));
    let title = "clients that gave up, and other errors of pgbench";
    gates.push(count("client-errors", title, 0, "errors", |s| {
        Some(s.client_errors)
    }));
    if rounds.iter().all(|round| round.complaints.is_some()) {
        let title = "errors in the pooler's log";
        gates.push(count("pooler-errors", title, 0, "lines", |s| s.complaints));
    }
    gates
}

/// What was asked for was done, as far as both ends can show it.
fn proofs(promises: &Promises, rounds: &[Seen]) -> Vec<Gate> {
    let least = |id, title, limit, unit, of| {
        let measured = extreme(rounds, of, f64::min).map(Measured::exact);
        Gate::at_least(id, title, limit, unit, measured)
    };
    let status = extreme(rounds, |s| s.code.map(f64::from), f64::max).map(Measured::exact);
    let (clients, seconds) = (f64::from(promises.clients), f64::from(promises.seconds));
    let nearly = nearly_all(promises.clients) as f64;
    let processed = "transactions that pgbench counts and that are in its log";
    vec![
        Gate::at_most("exit-status", "pgbench's exit code", 0.0, "code", status),
        least("processed", processed, 1.0, "transactions", |s| {
            s.processed.map(|n| n as f64)
        }),
        least("clients", "clients of pgbench", clients, "clients", |s| {
            s.clients.map(|n| n as f64)
        }),
        least(
            "clients-seen",
            "clients seen at the pooler at once",
            nearly,
            "clients",
            |s| s.clients_seen.map(|n| n as f64),
        ),
        least("duration", "length of the load", seconds, "s", |s| {
            s.lasted_s
        }),
    ]
}

/// What the user asked for beyond that.
fn limits(promises: &Promises, rounds: &[Seen]) -> Vec<Gate> {
    let most = |of| extreme(rounds, of, f64::max).map(Measured::exact);
    let least = |of| extreme(rounds, of, f64::min).map(Measured::exact);
    let p99 = promises.p99_max_ms.map(|limit| {
        let title = "99 in 100 transactions took at most";
        Gate::at_most("p99", title, limit, "ms", most(|s| s.p99_ms))
    });
    let tps = promises.tps_min.map(|limit| {
        Gate::at_least(
            "tps",
            "transactions per second",
            limit,
            "/s",
            least(|s| s.tps),
        )
    });
    let maxwait = promises.maxwait_max_s.map(|limit| {
        let title = "longest wait for a server connection that was seen";
        Gate::at_most("maxwait", title, limit, "s", most(|s| s.maxwait_s))
    });
    let slower = promises.earlier.as_ref().map(|(earlier, limit)| {
        let title = "fewer transactions per second than in the earlier run";
        let measured = regression(earlier, rounds);
        Gate::at_most("tps-regression", title, *limit, "%", measured)
    });
    [p99, tps, maxwait, slower].into_iter().flatten().collect()
}

/// The smallest or largest of all rounds; none when one of them has none.
fn extreme(
    rounds: &[Seen],
    of: fn(&Seen) -> Option<f64>,
    choose: fn(f64, f64) -> f64,
) -> Option<f64> {
    let all: Option<Vec<f64>> = rounds.iter().map(of).collect();
    all?.into_iter().reduce(choose)
}

/// By how many percent the transactions per second became fewer: from the best round now against the
/// worst one then, to the worst one now against the best one then.
fn regression(earlier: &[f64], rounds: &[Seen]) -> Option<Measured> {
    let now: Option<Vec<f64>> = rounds.iter().map(|s| s.tps).collect();
    let ends = |all: &[f64]| {
        let low = all.iter().copied().reduce(f64::min)?;
        let high = all.iter().copied().reduce(f64::max)?;
        (low > 0.0).then_some((low, high))
    };
    let ((then_low, then_high), (low, high)) = (ends(earlier)?, ends(&now?)?);
    let percent = |now: f64, then: f64| 100.0 * (1.0 - now / then);
    Some(Measured {
        lower: percent(high, then_low),
        upper: Some(percent(low, then_high)),
    })
}

/// The verdict on a run that came to its end, or was cut off.
pub fn judge(promises: &Promises, rounds: &[Seen], gates: &[Gate], cut: Option<&Cut>) -> Judgement {
    let runbook = "docs/runbooks/pgbouncer-load.md";
    if let Some(cut) = cut {
        return of_cut(cut);
    }
    // Whatever else was seen of it: a load that ended well by its own word, in words that are not known, was
    // perhaps none.
    let mut ended_well = rounds.iter().filter(|s| s.code == Some(0));
    if let Some(words) = ended_well.find_map(|s| s.unread.as_ref()) {
        let reason =
            format!("what pgbench printed is of another shape than is known here: {words}");
        return Judgement::new(Verdict::Inconclusive, "result-unreadable", reason, runbook);
    }
    match worst(gates) {
        Outcome::Held => {
            let done: u64 = rounds.iter().filter_map(|s| s.processed).sum();
            let clients = promises.clients;
            let reason = format!(
                "{clients} clients did {done} transactions through the pooler, none was thrown out, and \
                 none failed{}",
                allowed(promises)
            );
            Judgement::new(Verdict::Pass, "all-gates-held", reason, "nothing to do")
        }
        Outcome::Missed => {
            let missed = gates.iter().filter(|gate| gate.outcome == Outcome::Missed);
            let told: Vec<String> = missed.clone().map(told).collect();
            let first = missed.clone().next().map_or("gate", |gate| &gate.id);
            let error = rounds.iter().find_map(|s| s.first_error.clone());
            let error = error
                .map(|line| format!("; first error: {line}"))
                .unwrap_or_default();
            let reason = format!("{}{error}", told.join("; "));
            Judgement::new(Verdict::Fail, &format!("{first}-missed"), reason, runbook)
        }
        Outcome::Unclear => {
            let unclear = gates.iter().filter(|gate| gate.outcome == Outcome::Unclear);
            let told: Vec<String> = unclear.map(told).collect();
            let reason = told.join("; ");
            Judgement::new(Verdict::Inconclusive, "gate-unclear", reason, runbook)
        }
    }
}

/// What a gate that is not zero lets pass.
fn allowed(promises: &Promises) -> String {
    match (promises.max_failed, promises.max_connection_errors) {
        (0, 0) => String::new(),
        (failed, refused) => {
            format!(" beyond the {failed} transactions and {refused} connections that may")
        }
    }
}

/// What a run comes to that was cut off.
pub fn of_cut(cut: &Cut) -> Judgement {
    let runbook = "docs/runbooks/pgbouncer-load.md";
    match cut {
        Cut::Stopped(signal) => {
            let reason = format!("{signal} came; pgbench was ended and its files were removed");
            Judgement::new(
                Verdict::Interrupted(*signal),
                "signal",
                reason,
                "run it again",
            )
        }
        Cut::OthersWait(who) => {
            let reason =
                format!("the load was ended because others had to wait for the pooler: {who}");
            let next = "run it when the pooler has room, or give the load a pool of its own";
            Judgement::new(Verdict::Inconclusive, "others-wait", reason, next)
        }
        Cut::Halted(words) => {
            let reason = format!("the load was ended because somebody forbade all drills: {words}");
            let next = "ask whoever set user.veza.halt";
            Judgement::new(Verdict::Inconclusive, "halted", reason, next)
        }
        Cut::TooLong(seconds) => {
            let reason = format!("pgbench had not ended after {seconds} s and was killed");
            Judgement::new(Verdict::Fail, "not-ended", reason, runbook)
        }
        Cut::Lost(words) => {
            let reason = format!("pgbench could not be run to its end: {words}");
            Judgement::new(Verdict::Inconclusive, "pgbench-lost", reason, runbook)
        }
        Cut::Left(words) => {
            let next = "look there now: ps -C pgbench; kill it and remove the folder";
            Judgement::new(Verdict::NotUndone, "pgbench-may-run", words.clone(), next)
        }
    }
}

/// A gate in a sentence.
fn told(gate: &Gate) -> String {
    let value = match gate.measured {
        None => "not measured".to_owned(),
        Some(Measured {
            lower,
            upper: Some(upper),
        }) if lower == upper => plain(lower),
        Some(Measured {
            lower,
            upper: Some(upper),
        }) => format!("{} to {}", plain(lower), plain(upper)),
        Some(Measured { lower, upper: None }) => format!("at least {}", plain(lower)),
    };
    let bound = match gate.bound {
        veza_probe::verdict::Bound::AtMost => "at most",
        veza_probe::verdict::Bound::AtLeast => "at least",
    };
    format!(
        "{} ({}): {value}, promised {bound} {} {}",
        gate.title,
        gate.id,
        plain(gate.limit),
        gate.unit
    )
    .trim_end()
    .to_owned()
}

fn plain(value: f64) -> String {
    match value.fract() == 0.0 {
        true => format!("{value:.0}"),
        false => format!("{value:.2}"),
    }
}

/// The exit code: the script that this check replaces had its own, and cron lines rely on them.
pub fn exit_code(judgement: &Judgement) -> u8 {
    match judgement.verdict {
        Verdict::Refused => match judgement.reason_id.as_str() {
            UNREACHABLE | "credentials-refused" => 2,
            _ => 1,
        },
        Verdict::Fail => 1,
        other => other.code(),
    }
}

#[cfg(test)]
mod tests;
