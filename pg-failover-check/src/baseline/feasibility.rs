//! Whether the monitor's live timers can meet the promise at all: a best and a worst case, with the
//! sum, before anything is broken.
//!
//! The path of a two-node formation whose primary is gone, as pg_auto_failover 2.2 takes it
//! (`src/monitor/node_metadata.c` `IsUnhealthy`, `group_state_machine.c`): the monitor calls a node
//! unhealthy when it has not reported for `node_considered_unhealthy_timeout` *and* its health check
//! is bad; it looks when another node reports, once a second. The standby then waits
//! `primary_demote_timeout` in `stop_replication`, because a primary that is gone can't say that it
//! stepped down.

use std::time::Duration;

use veza_probe::feasible::Feasible;

/// How often a keeper reports to the monitor (`PG_AUTOCTL_KEEPER_SLEEP_TIME`, 1 s).
const REPORT_S: f64 = 1.0;

/// How many reports the standby needs from detection to promotion: draining, prepare_promotion,
/// stop_replication, wait_primary.
const WORST_STEPS: f64 = 3.0;

/// The timers of the monitor that decide how long a failover takes, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timers {
    /// `pgautofailover.health_check_period`
    pub check_period_s: f64,
    /// `pgautofailover.health_check_timeout`
    pub check_timeout_s: f64,
    /// `pgautofailover.health_check_max_retries`
    pub check_retries: f64,
    /// `pgautofailover.health_check_retry_delay`
    pub retry_delay_s: f64,
    /// `pgautofailover.node_considered_unhealthy_timeout`
    pub unhealthy_s: f64,
    /// `pgautofailover.primary_demote_timeout`
    pub demote_s: f64,
}

/// The settings that [`Timers::read`] needs, in milliseconds but for the retries.
pub const SETTINGS: [&str; 6] = [
    "pgautofailover.health_check_period",
    "pgautofailover.health_check_timeout",
    "pgautofailover.health_check_max_retries",
    "pgautofailover.health_check_retry_delay",
    "pgautofailover.node_considered_unhealthy_timeout",
    "pgautofailover.primary_demote_timeout",
];

impl Timers {
    /// From the values of [`SETTINGS`], in its order, as the monitor shows them: milliseconds.
    pub fn read(values: [f64; 6]) -> Timers {
        let [period, timeout, check_retries, delay, unhealthy, demote] = values;
        Timers {
            check_period_s: period / 1e3,
            check_timeout_s: timeout / 1e3,
            check_retries,
            retry_delay_s: delay / 1e3,
            unhealthy_s: unhealthy / 1e3,
            demote_s: demote / 1e3,
        }
    }
}

/// Compares the timers with the promise.
pub fn judge(timers: &Timers, target: Duration) -> Feasible {
    let target_s = target.as_secs_f64();
    let Timers {
        check_period_s,
        check_timeout_s,
        check_retries,
        retry_delay_s,
        ..
    } = *timers;
    let Timers {
        unhealthy_s,
        demote_s,
        ..
    } = *timers;
    // A check that fails at once still waits between its retries; one that hears nothing also
    // waits out each try, and the first may begin a whole period after the fault.
    let health_best_s = check_retries * retry_delay_s;
    let health_worst_s =
        check_period_s + check_retries * retry_delay_s + (check_retries + 1.0) * check_timeout_s;
    // The timeout counts from the last report, which was up to one report before the fault.
    let detected_best_s = (unhealthy_s - REPORT_S).max(health_best_s);
    let detected_worst_s = unhealthy_s.max(health_worst_s) + REPORT_S;
    let best_s = detected_best_s + demote_s;
    let worst_s = detected_worst_s + demote_s + WORST_STEPS * REPORT_S;
    let sums = vec![
        format!(
            "best case {best_s:.1} s = detected {detected_best_s:.1} s (the larger of \
             node_considered_unhealthy_timeout {unhealthy_s:.1} s less one report, and health checks \
             {health_best_s:.1} s) + primary_demote_timeout {demote_s:.1} s"
        ),
        format!(
            "worst case {worst_s:.1} s = detected {detected_worst_s:.1} s (the larger of \
             node_considered_unhealthy_timeout {unhealthy_s:.1} s and health checks \
             {health_worst_s:.1} s, and one report) + primary_demote_timeout {demote_s:.1} s + \
             {WORST_STEPS:.0} reports of the standby"
        ),
        format!("target {target_s:.1} s"),
    ];
    Feasible {
        best_s,
        worst_s,
        target_s,
        sums,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNED: [f64; 6] = [500.0, 500.0, 1.0, 200.0, 3000.0, 5000.0];
    const DEFAULTS: [f64; 6] = [5000.0, 5000.0, 2.0, 2000.0, 20_000.0, 30_000.0];

    fn bounds(values: [f64; 6]) -> (f64, f64) {
        let feasible = judge(&Timers::read(values), Duration::from_secs(60));
        (feasible.best_s, feasible.worst_s)
    }

    #[test]
    fn what_was_measured_lies_inside() {
        // Stop of the primary under these settings took 8.7 to 10.6 s in nine runs.
        let (best, worst) = bounds(TUNED);
        assert!(best <= 8.7 && worst >= 10.6, "{best} {worst}");
        // Under the defaults: 50.4 s and 53.6 s.
        let (best, worst) = bounds(DEFAULTS);
        assert!(best <= 50.4 && worst >= 53.6, "{best} {worst}");
    }

    #[test]
    fn slow_health_checks_count_where_they_are_the_slower() {
        let slow = [30_000.0, 5000.0, 2.0, 2000.0, 3000.0, 5000.0];
        let (best, worst) = bounds(slow);
        assert!((best - 9.0).abs() < 1e-9, "{best}");
        assert!(
            (worst - (30.0 + 4.0 + 15.0 + 1.0 + 5.0 + 3.0)).abs() < 1e-9,
            "{worst}"
        );
    }

    #[test]
    fn the_sum_names_every_timer_with_its_value() {
        let sums = judge(&Timers::read(DEFAULTS), Duration::from_secs(60))
            .sums
            .join(" ");
        for word in [
            "20.0 s",
            "30.0 s",
            "primary_demote_timeout",
            "target 60.0 s",
        ] {
            assert!(sums.contains(word), "{word}: {sums}");
        }
    }
}
