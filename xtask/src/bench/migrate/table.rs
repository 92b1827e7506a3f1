//! What was measured, and which promises hold.

use std::io::Write;

use serde::Serialize;

use super::Shape;
use super::measured::Took;
use super::tools::Tool;

/// What is promised: of the limit's speed on small objects, of mc's processor time, of the best peer's time when there is nothing to do; memory in
/// MiB beside what is under way, and how much more of it very many objects may take.
const OF_LIMIT: f64 = 0.9;
const OF_MC_CPU: f64 = 0.5;
const OF_NOTHING: f64 = 0.5;
const MEMORY_MIB: f64 = 64.0;
const GROWTH_MIB: f64 = 8.0;

/// The most that minio-migrate lets be under way, its `--memory`: of large objects a few parts each, never the objects.
const UNDER_WAY_MIB: f64 = 256.0;

/// One tool at one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was copied.
    pub shape: Shape,
    /// By what.
    pub tool: Tool,
    /// How many objects.
    pub count: u32,
    /// Of how many bytes each.
    pub size: u64,
    /// How many minio-migrate had under way at once in its last run.
    pub at_once: f64,
    /// Each run.
    pub runs: Vec<Took>,
}

impl Row {
    /// The median of its runs.
    fn median(&self, of: fn(&Took) -> f64) -> f64 {
        let mut all: Vec<f64> = self.runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let at = |rank: usize| all.get(rank).copied().unwrap_or(f64::NAN);
        f64::midpoint(at(all.len().saturating_sub(1) / 2), at(all.len() / 2))
    }

    fn most(&self, of: fn(&Took) -> f64) -> f64 {
        self.runs.iter().map(of).fold(f64::NAN, f64::max)
    }

    fn least(&self, of: fn(&Took) -> f64) -> f64 {
        self.runs.iter().map(of).fold(f64::NAN, f64::min)
    }
}

/// A promise and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Promise {
    /// What is promised.
    pub what: String,
    /// What was measured.
    pub measured: f64,
    /// The most that it may be.
    pub limit: f64,
    /// Whether it was kept.
    pub kept: bool,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// How many runs of each.
    rounds: u32,
    /// Of the objects of each shape.
    percent: u32,
    /// What was not measured.
    absent: Vec<String>,
    /// Each tool at each shape.
    pub rows: Vec<Row>,
    /// Copies of few and of very many objects between stores that keep nothing.
    pub many: Vec<(u32, Took)>,
    promises: Vec<Promise>,
}

impl Summary {
    /// Nothing yet.
    pub fn new(rounds: u32, percent: u32, absent: Vec<String>) -> Summary {
        Summary {
            rounds,
            percent,
            absent,
            rows: Vec::new(),
            many: Vec::new(),
            promises: Vec::new(),
        }
    }

    /// Whether every promise was kept.
    pub fn kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    fn row(&self, shape: Shape, tool: Tool) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| (row.shape, row.tool) == (shape, tool))
    }

    fn best(&self, shape: Shape, of: fn(&Took) -> f64) -> Option<f64> {
        let rows = self.rows.iter();
        let peers = rows.filter(|row| row.shape == shape && row.tool.is_peer());
        peers.map(|row| row.median(of)).min_by(f64::total_cmp)
    }

    fn promise(&mut self, what: String, measured: f64, limit: Option<f64>) {
        if let Some(limit) = limit {
            let kept = measured <= limit;
            self.promises.push(Promise {
                what,
                measured,
                limit,
                kept,
            });
        }
    }

    /// Holds what was measured against what is promised.
    pub fn judge(&mut self) {
        let wall = |took: &Took| took.wall_s;
        let cpu = |took: &Took| took.cpu_s;
        for shape in [Shape::Small, Shape::Medium, Shape::Large, Shape::Again] {
            let Some(ours) = self.row(shape, Tool::Ours).cloned() else {
                continue;
            };
            let best = self.best(shape, wall);
            let (name, time) = (format!("{shape:?}").to_lowercase(), ours.median(wall));
            if shape == Shape::Again {
                let half = best.map(|best| OF_NOTHING * best);
                self.promise(
                    format!("{name}: seconds, half of the best peer's"),
                    time,
                    half,
                );
            } else {
                self.promise(format!("{name}: seconds, the best peer's"), time, best);
            }
            if let (Shape::Small, Some(limit)) = (shape, self.row(shape, Tool::Limit)) {
                let limit = limit.median(wall) / OF_LIMIT;
                self.promise(
                    format!("{name}: seconds, at 90 % of the limit"),
                    time,
                    Some(limit),
                );
            }
            let work = ours.median(cpu);
            let mc = self
                .row(shape, Tool::Mc)
                .map(|mc| OF_MC_CPU * mc.median(cpu));
            self.promise(format!("{name}: CPU seconds, half of mc's"), work, mc);
            let best = self.best(shape, cpu);
            self.promise(format!("{name}: CPU seconds, the best peer's"), work, best);
            let objects = ours.at_once * ours.size as f64 / f64::from(1 << 20);
            let under_way = objects.min(UNDER_WAY_MIB);
            let peak = ours.most(|took| took.peak_mib);
            let what = format!("{name}: MiB, {MEMORY_MIB} and what is under way");
            self.promise(what, peak, Some(MEMORY_MIB + under_way));
        }
        if let [(_, few), (count, many)] = self.many[..] {
            let limit = few.peak_mib + GROWTH_MIB;
            self.promise(
                format!("{count} objects: MiB, flat"),
                many.peak_mib,
                Some(limit),
            );
        }
    }
}

/// A run, for the story.
pub fn line(what: &str, tool: Tool, took: Took) -> String {
    let Took {
        wall_s,
        cpu_s,
        peak_mib,
    } = took;
    let name = tool.name();
    format!("{what}: {name}: {wall_s:.2} s, {cpu_s:.2} s of CPU, {peak_mib:.0} MiB")
}

/// Prints everything.
///
/// # Errors
/// When nobody reads it.
pub fn tell(summary: &Summary) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let Summary {
        rounds, percent, ..
    } = summary;
    writeln!(
        out,
        "{rounds} rounds, {percent} % of the objects; medians, least to most in brackets"
    )?;
    writeln!(
        out,
        "shape   tool                        wall s                  CPU s   peak MiB  objects/s"
    )?;
    for row in &summary.rows {
        let wall = row.median(|took| took.wall_s);
        let range = format!(
            "{wall:.2} ({:.2} to {:.2})",
            row.least(|took| took.wall_s),
            row.most(|took| took.wall_s)
        );
        writeln!(
            out,
            "{:<7} {:<27} {range:<22} {:>6.2} {:>10.0} {:>10.0}",
            format!("{:?}", row.shape).to_lowercase(),
            row.tool.name(),
            row.median(|took| took.cpu_s),
            row.most(|took| took.peak_mib),
            f64::from(row.count) / wall
        )?;
    }
    for (count, took) in &summary.many {
        writeln!(
            out,
            "{}",
            line(&format!("{count} objects, loopback"), Tool::Ours, *took)
        )?;
    }
    for promise in &summary.promises {
        let Promise {
            what,
            measured,
            limit,
            kept,
        } = promise;
        let word = if *kept { "kept" } else { "MISSED" };
        writeln!(out, "{word:<7} {what}: {measured:.2}, at most {limit:.2}")?;
    }
    for absent in &summary.absent {
        writeln!(out, "not measured: {absent}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shape: Shape, tool: Tool, wall_s: f64, cpu_s: f64, peak_mib: f64) -> Row {
        let took = |wall_s| Took {
            wall_s,
            cpu_s,
            peak_mib,
        };
        let runs = vec![took(wall_s), took(wall_s + 9.0), took(wall_s - 1.0)];
        Row {
            shape,
            tool,
            count: 10,
            size: 1 << 20,
            at_once: 4.0,
            runs,
        }
    }

    fn missed(change: impl FnOnce(&mut Vec<Row>)) -> Vec<String> {
        let mut summary = Summary::new(3, 100, Vec::new());
        summary.rows = vec![
            row(Shape::Small, Tool::Ours, 10.0, 1.0, 68.0),
            row(Shape::Small, Tool::Mc, 10.0, 2.0, 500.0),
            row(Shape::Small, Tool::Rclone, 11.0, 1.0, 500.0),
            row(Shape::Small, Tool::Limit, 9.0, 0.5, 10.0),
            row(Shape::Again, Tool::Ours, 5.0, 1.0, 68.0),
            row(Shape::Again, Tool::Mc, 10.0, 2.0, 68.0),
        ];
        let took = |peak_mib| Took {
            peak_mib,
            ..Took::default()
        };
        summary.many = vec![(1, took(30.0)), (100, took(38.0))];
        change(&mut summary.rows);
        summary.judge();
        let missed = summary.promises.iter().filter(|promise| !promise.kept);
        let missed: Vec<String> = missed.map(|promise| promise.what.clone()).collect();
        assert_eq!(summary.kept(), missed.is_empty());
        missed
    }

    #[test]
    fn each_promise_can_be_broken() {
        assert_eq!(missed(|_| {}), Vec::<String>::new());
        let broken = |at: usize, row: Row| missed(|rows| rows[at] = row);
        let slow = broken(0, row(Shape::Small, Tool::Ours, 10.1, 1.0, 68.0));
        assert_eq!(
            slow,
            [
                "small: seconds, the best peer's",
                "small: seconds, at 90 % of the limit"
            ]
        );
        let busy = broken(0, row(Shape::Small, Tool::Ours, 10.0, 1.1, 68.1));
        let expected = [
            "small: CPU seconds, half of mc's",
            "small: CPU seconds, the best peer's",
            "small: MiB, 64 and what is under way",
        ];
        assert_eq!(busy, expected);
        // 4 at once of 1,024 MiB each would be more than `--memory` lets pass.
        let large = row(Shape::Large, Tool::Ours, 10.0, 1.0, 320.1);
        let large = Row {
            size: 1 << 30,
            ..large
        };
        assert_eq!(broken(0, large), ["large: MiB, 64 and what is under way"]);
        let again = broken(4, row(Shape::Again, Tool::Ours, 5.1, 1.0, 68.0));
        assert_eq!(again, ["again: seconds, half of the best peer's"]);
    }

    #[test]
    fn very_many_objects_may_not_take_more() {
        let mut summary = Summary::new(1, 100, Vec::new());
        let took = |peak_mib| Took {
            peak_mib,
            ..Took::default()
        };
        summary.many = vec![(1, took(30.0)), (100, took(38.1))];
        summary.judge();
        assert!(!summary.kept());
    }
}
