//! Which sentinels a drill holds, and which go on. Pure.

use std::time::Duration;

use veza_probe::instance::InstanceName;

use super::sentinels::Trouble;
use crate::cli::Target;
use crate::targets::connection::Server;

/// What injecting and proving a stage may take beside the time that it is watched, in seconds.
const INJECT_S: f64 = 5.0;

/// A sentinel, and the instance that it runs in.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The instance.
    pub instance: InstanceName,
    /// Where it is reached.
    pub server: Server,
}

/// The sentinels of a group.
#[derive(Clone, Debug, Default)]
pub struct Seats {
    /// Every instance that is known to have one.
    pub instances: Vec<InstanceName>,
    /// Those that are held; none where the master is broken.
    pub held: Vec<Seat>,
    /// Those that are not.
    pub living: Vec<Server>,
}

/// How many of `all` sentinels must be away so that the rest can't decide a failover: they must be `quorum` to
/// call a master down, and more than half to elect who leads.
fn too_many(all: usize, quorum: usize) -> usize {
    let needed = quorum.max(all / 2 + 1);
    (all + 1).saturating_sub(needed)
}

/// Divides them; those beside the master are held last, so that no instance loses both where that can be.
///
/// # Errors
/// What stands in the way of holding any.
pub fn divide(
    target: Target,
    (sentinels, known): (&[Server], &[Seat]),
    master: &InstanceName,
    quorum: u32,
) -> Result<Seats, Trouble> {
    let instances = known.iter().map(|seat| seat.instance.clone()).collect();
    let all = sentinels.len();
    let wanted = match target {
        Target::Master => 0,
        Target::Sentinel => 1,
        Target::Quorum => too_many(all, quorum as usize),
    };
    if wanted > 0 && known.len() < all {
        let words = "a sentinel runs in no instance of this project, or in none that can be told";
        return Err(Trouble::new("sentinel-instance-unknown", words));
    }
    if wanted > 0 && wanted >= all {
        let words =
            format!("with {wanted} of {all} sentinels held, none would be left to tell of it");
        return Err(Trouble::new("too-few-sentinels", words));
    }
    let (beside, apart): (Vec<&Seat>, Vec<&Seat>) =
        known.iter().partition(|seat| seat.instance == *master);
    let held: Vec<Seat> = apart
        .into_iter()
        .chain(beside)
        .take(wanted)
        .cloned()
        .collect();
    let is_held = |server: &&Server| {
        held.iter()
            .any(|seat| seat.server.address == server.address)
    };
    let living = sentinels.iter().filter(|server| !is_held(server));
    Ok(Seats {
        instances,
        living: living.cloned().collect(),
        held,
    })
}

/// How long each stage of a drill on sentinels is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Course {
    /// For how long only sentinels are held, where the master is held afterwards, in seconds.
    pub first_s: f64,
    /// For how long everything is held, in seconds.
    pub last_s: f64,
}

/// Three times as long as a sentinel waits before it calls anybody down, and as long as a failover can take
/// by the live timers: one that would come has come by then.
///
/// # Errors
/// The fault would have to stay longer than it may.
pub fn course(
    target: Target,
    (down_after_s, worst_s): (f64, f64),
    max_fault: Duration,
) -> Result<Course, Trouble> {
    let three_s = 3.0 * down_after_s;
    let (first_s, last_s, stages) = match target {
        Target::Master => return Ok(Course::default()),
        Target::Sentinel => (0.0, three_s.max(worst_s), 1.0),
        Target::Quorum => (three_s, three_s.max(worst_s), 2.0),
    };
    let needed_s = first_s + last_s + stages * INJECT_S;
    let most_s = max_fault.as_secs_f64();
    if needed_s > most_s {
        let words = format!(
            "--target {target} has to hold units for {needed_s:.0} s (3 × down-after, and as long as a failover \
             may take), and the longest that a fault may stay is {most_s:.0} s (--max-fault)"
        );
        return Err(Trouble::new("max-fault-too-short", words));
    }
    Ok(Course { first_s, last_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(target: Target, all: usize, quorum: u32) -> Result<(String, String), &'static str> {
        let server = |n: usize| Server {
            name: format!("r{n}"),
            address: ([198, 18, 0, u8::try_from(n).unwrap()], 26_379).into(),
        };
        let servers: Vec<Server> = (1..=all).map(server).collect();
        let seat = |server: &Server| Seat {
            instance: InstanceName::new(&server.name).unwrap(),
            server: server.clone(),
        };
        let seats: Vec<Seat> = servers.iter().map(seat).collect();
        let master = InstanceName::new("r2").unwrap();
        let seats = divide(target, (&servers, &seats), &master, quorum);
        let names = |all: Vec<&str>| all.join(" ");
        seats.map_err(|trouble| trouble.reason_id).map(|seats| {
            let held = seats.held.iter().map(|seat| seat.server.name.as_str());
            let living = seats.living.iter().map(|server| server.name.as_str());
            (names(held.collect()), names(living.collect()))
        })
    }

    fn told(held: &str, living: &str) -> Result<(String, String), &'static str> {
        Ok((held.to_owned(), living.to_owned()))
    }

    #[test]
    fn as_many_are_held_as_it_takes_and_the_one_beside_the_master_last() {
        assert_eq!(divided(Target::Master, 3, 2), told("", "r1 r2 r3"));
        assert_eq!(divided(Target::Sentinel, 3, 2), told("r1", "r2 r3"));
        assert_eq!(divided(Target::Quorum, 3, 2), told("r1 r3", "r2"));
        // All must agree: without one of them nothing is decided.
        assert_eq!(divided(Target::Quorum, 3, 3), told("r1", "r2 r3"));
        // One is enough to call it down, and a majority to elect.
        assert_eq!(divided(Target::Quorum, 3, 1), told("r1 r3", "r2"));
        assert_eq!(divided(Target::Quorum, 5, 3), told("r1 r3 r4", "r2 r5"));
        assert_eq!(divided(Target::Quorum, 2, 2), told("r1", "r2"));
    }

    #[test]
    fn none_is_held_where_nobody_would_be_left_or_where_it_is_not_known() {
        assert_eq!(divided(Target::Sentinel, 1, 1), Err("too-few-sentinels"));
        let server = Server {
            name: "r1".to_owned(),
            address: ([198, 18, 0, 1], 26_379).into(),
        };
        let master = InstanceName::new("r2").unwrap();
        let one = [server];
        let divided = |target| divide(target, (&one, &[]), &master, 1);
        let trouble = divided(Target::Sentinel).unwrap_err();
        assert_eq!(trouble.reason_id, "sentinel-instance-unknown");
        assert!(divided(Target::Master).is_ok());
    }

    #[test]
    fn units_are_held_for_as_long_as_a_failover_could_take_or_not_at_all() {
        let of = |target, timers, most_s| {
            let course = course(target, timers, Duration::from_secs(most_s));
            course.map_err(|trouble| trouble.reason_id)
        };
        let times = |first_s, last_s| Ok(Course { first_s, last_s });
        assert_eq!(of(Target::Master, (30.0, 90.0), 1), times(0.0, 0.0));
        assert_eq!(of(Target::Sentinel, (1.0, 7.5), 45), times(0.0, 7.5));
        assert_eq!(of(Target::Quorum, (1.0, 7.5), 45), times(3.0, 7.5));
        assert_eq!(of(Target::Quorum, (5.0, 12.0), 45), times(15.0, 15.0));
        // 15 + 15 + 2 × 5 s: at, and below.
        assert_eq!(of(Target::Quorum, (5.0, 12.0), 40), times(15.0, 15.0));
        let refused = Err("max-fault-too-short");
        assert_eq!(of(Target::Quorum, (5.0, 12.0), 39), refused);
    }
}
