//! The lanes of the time line, one function each; all draw below what is there already. Pure.

use std::collections::BTreeMap;

use super::super::svg::{self, Anchor, Area, Hatch};
use super::callouts::{self, Callout, ROW};
use super::scale::{LEFT, RIGHT, Scale};
use crate::clock::At;
use crate::fault::Fault;
use crate::outage::{OpenSide, Outage};
use crate::report::{ProbeRun, Report};

/// The height of what a lane shows.
const BAR: f64 = 20.0;

/// The distance of two lanes.
const SPACE: f64 = 14.0;

/// Events whose ticks are closer than this share one number.
const TOGETHER: f64 = 7.0;

/// A run of failures narrower than this is drawn without its hatch.
const HATCHED_MIN: f64 = 4.0;

/// How many outages have their length written beside them; the longest.
const LENGTHS_MAX: usize = 6;

/// A drawing that grows downwards.
pub(super) struct Canvas {
    pub(super) out: String,
    pub(super) y: f64,
    pub(super) scale: Scale,
}

impl Canvas {
    fn name(&mut self, class: &str, name: &str) {
        let at = (8.0, self.y + BAR * 0.7);
        self.out += &svg::label(class, at, Anchor::Start, name);
    }

    /// A box between two moments, not so narrow that it can't be seen.
    fn area(&self, from: At, to: At) -> Area {
        let (from, to) = (self.scale.x(from), self.scale.x(to));
        Area {
            x: from.min(RIGHT - 2.0),
            y: self.y,
            width: (to - from).max(2.0),
            height: BAR,
        }
    }

    fn callouts(&mut self, callouts: &[Callout]) {
        let (drawn, height) = callouts::drawing(callouts, self.y + BAR);
        self.out += &drawn;
        self.y += BAR + height + SPACE;
    }

    fn told(&self, at: At) -> String {
        format!("{:.2} s", self.scale.seconds(at))
    }

    fn callout(&self, at: At, what: &str) -> Callout {
        Callout {
            x: self.scale.x(at),
            text: format!("{what} {}", self.told(at)),
        }
    }
}

/// Two nodes that took writes at once: loud, and above everything else.
pub(super) fn overlaps(canvas: &mut Canvas, report: &Report) {
    if report.overlaps.is_empty() {
        return;
    }
    canvas.name("name alarm", "TWO PRIMARIES");
    let mut labels = Vec::new();
    for overlap in &report.overlaps {
        let [one, other] = &overlap.nodes;
        let words = format!("{one} and {other}: {} writes", overlap.writes);
        let mut area = canvas.area(overlap.earliest, overlap.latest);
        area.width = area.width.max(6.0);
        canvas.out += &svg::rect("solid bad loud", area, &words);
        labels.push(Callout {
            x: canvas.scale.x(overlap.earliest),
            text: words,
        });
    }
    canvas.callouts(&labels);
}

/// The fault: asked for, in place, being healed.
pub(super) fn fault(canvas: &mut Canvas, report: &Report, fault: &Fault) {
    canvas.name("name", "Fault");
    if !fault.plan.kind.breaks() {
        let control = Callout {
            x: canvas.scale.x(fault.called),
            text: "nothing was broken: a control".to_owned(),
        };
        canvas.callouts(&[control]);
        return;
    }
    let took_hold = fault.evidence.as_ref().map(|evidence| evidence.at);
    let began = report.undo.first().map(|step| step.began);
    let healed = healed(report);
    let end = At(i64::MAX);
    let until = began.or(healed).unwrap_or(end);
    let proven = took_hold.unwrap_or(until).min(until);
    let mut labels = vec![canvas.callout(fault.called, "called")];
    let doubtful = canvas.area(fault.called, proven);
    canvas.out += &svg::rect("faint cause", doubtful, "asked for, not yet proven");
    canvas.out += &svg::hatch("hatch cause", doubtful, Hatch::Rising);
    if let Some(took_hold) = took_hold {
        let area = canvas.area(took_hold, until);
        canvas.out += &svg::rect("solid cause", area, "in place, with proof");
        labels.push(canvas.callout(took_hold, "evidence"));
    }
    if let Some(began) = began {
        let area = canvas.area(began, healed.unwrap_or(end));
        canvas.out += &svg::rect("faint cause", area, "being healed");
        canvas.out += &svg::hatch("hatch cause", area, Hatch::Falling);
        labels.push(canvas.callout(began, "heal began"));
        labels.push(match healed {
            Some(healed) => canvas.callout(healed, "healed"),
            None => Callout {
                x: RIGHT,
                text: "NOT HEALED".to_owned(),
            },
        });
    }
    canvas.callouts(&labels);
}

/// When the last step of healing was done; none when one was not, or nothing was healed.
fn healed(report: &Report) -> Option<At> {
    let steps: Option<Vec<At>> = report.undo.iter().map(|step| step.done).collect();
    steps?.into_iter().max()
}

/// What a client's probes came to.
pub(super) fn probes(canvas: &mut Canvas, report: &Report) {
    if report.probe_runs.is_empty() {
        return;
    }
    canvas.name("name", "Client's probes");
    let mut drawn: BTreeMap<&str, f64> = BTreeMap::new();
    for (n, run) in report.probe_runs.iter().enumerate() {
        let next = report.probe_runs.get(n + 1);
        let until = next.map_or(run.ended_us, |next| next.first_due_us);
        let area = canvas.area(At(run.first_due_us), At(until));
        // Of thousands of short runs no more is drawn than can be seen.
        let place = area.x.round();
        let before = drawn.insert(&run.outcome, place);
        if area.width <= 2.0 && before == Some(place) {
            continue;
        }
        canvas.out += &probe_run(canvas, run, area);
    }
    canvas.y += BAR + SPACE;
}

fn probe_run(canvas: &Canvas, run: &ProbeRun, area: Area) -> String {
    let (first, last) = (
        canvas.told(At(run.first_due_us)),
        canvas.told(At(run.last_due_us)),
    );
    let words = format!("{} × {}, due {first} to {last}", run.count, run.outcome);
    match pattern(&run.outcome) {
        None => {
            let low = Area {
                y: area.y + BAR * 0.5,
                height: BAR * 0.5,
                ..area
            };
            svg::rect("faint good", low, &words)
        }
        Some(_) if area.width < HATCHED_MIN => svg::rect("solid bad", area, &words),
        Some(hatch) => svg::rect("faint bad", area, &words) + &svg::hatch("hatch bad", area, hatch),
    }
}

/// How a kind of failure is hatched; none for successes.
pub(super) fn pattern(outcome: &str) -> Option<Hatch> {
    match outcome {
        "success" => None,
        "no connection" => Some(Hatch::Rising),
        "no answer in time" => Some(Hatch::Level),
        "refused" => Some(Hatch::Crossed),
        "answered in doubt" => Some(Hatch::Upright),
        _ => Some(Hatch::Falling),
    }
}

/// Outages: solid where it is certain that the service was away, hatched where it may have been.
pub(super) fn outages(canvas: &mut Canvas, report: &Report) {
    if report.outages.is_empty() {
        return;
    }
    canvas.name("name", "Outage");
    let mut longest: Vec<&Outage> = report.outages.iter().collect();
    longest.sort_by_key(|outage| std::cmp::Reverse(outage.length.lower_us));
    longest.truncate(LENGTHS_MAX);
    for outage in &report.outages {
        let drawn = outage_bar(canvas, outage);
        canvas.out += &drawn;
    }
    let labels: Vec<Callout> = longest
        .into_iter()
        .map(|outage| {
            let open = outage.open_side().map(|side| format!(", {side}"));
            Callout {
                x: canvas.scale.x(outage.started_by),
                text: format!("{}{}", outage.length, open.unwrap_or_default()),
            }
        })
        .collect();
    canvas.callouts(&labels);
}

fn outage_bar(canvas: &Canvas, outage: &Outage) -> String {
    let words = format!("{}: {} probes failed", outage.length, outage.failed);
    let (from, to) = (outage.started_after, outage.ended_by);
    let whole = canvas.area(from.unwrap_or(At(i64::MIN)), to.unwrap_or(At(i64::MAX)));
    let mut out =
        svg::rect("faint bad", whole, &words) + &svg::hatch("hatch bad", whole, Hatch::Rising);
    if outage.started_by < outage.ended_after {
        let certain = canvas.area(outage.started_by, outage.ended_after);
        out += &svg::rect("solid bad", certain, &words);
    }
    let middle = canvas.y + BAR / 2.0;
    let arrow = |x: f64, point: f64| {
        svg::line("pointer", (x, middle - 6.0), (point, middle))
            + &svg::line("pointer", (point, middle), (x, middle + 6.0))
    };
    let side = outage.open_side();
    if matches!(side, Some(OpenSide::End | OpenSide::Both)) {
        out += &arrow(RIGHT + 2.0, RIGHT + 9.0);
    }
    if matches!(side, Some(OpenSide::Start | OpenSide::Both)) {
        out += &arrow(LEFT - 2.0, LEFT - 9.0);
    }
    out
}

/// What the system under test did, a row each: from the earliest to the latest moment.
pub(super) fn phases(canvas: &mut Canvas, report: &Report) {
    if report.phases.is_empty() {
        return;
    }
    canvas.name("name", "System");
    for phase in &report.phases {
        let mut area = canvas.area(phase.at.earliest, phase.at.latest);
        area.y += 4.0;
        area.height = 12.0;
        area.width = area.width.max(4.0);
        let (from, to) = (phase.at.earliest, phase.at.latest);
        let span = match (canvas.told(from), canvas.told(to)) {
            (from, to) if from == to => to,
            _ => format!("{:.2} to {}", canvas.scale.seconds(from), canvas.told(to)),
        };
        let text = callouts::short(&format!("{} {span}", phase.name));
        canvas.out += &svg::rect("solid system", area, &text);
        let end = area.x + area.width + 6.0;
        let (x, anchor) = match end + callouts::width(&text) <= RIGHT + 15.0 {
            true => (end, Anchor::Start),
            false => (area.x - 6.0, Anchor::End),
        };
        canvas.out += &svg::label("small", (x, area.y + 10.0), anchor, &text);
        canvas.y += ROW + 2.0;
    }
    canvas.y += SPACE;
}

/// A tick for each event, with its number in the list.
pub(super) fn events(canvas: &mut Canvas, report: &Report) {
    if report.events.is_empty() {
        return;
    }
    canvas.name("name", "Event numbers");
    let rail = canvas.y + BAR / 2.0;
    canvas.out += &svg::line("rail", (LEFT, rail), (RIGHT, rail));
    // The place, and the first and last number of those that share it.
    let mut groups: Vec<(f64, usize, usize)> = Vec::new();
    for (n, event) in report.events.iter().enumerate() {
        let x = canvas.scale.x(event.at);
        canvas.out += &svg::line("event", (x, canvas.y + 2.0), (x, canvas.y + BAR));
        match groups.last_mut() {
            Some((place, _, last)) if (x - *place).abs() < TOGETHER => *last = n + 1,
            _ => groups.push((x, n + 1, n + 1)),
        }
    }
    let label = |(x, first, last): (f64, usize, usize)| Callout {
        x,
        text: match first == last {
            true => first.to_string(),
            false => format!("{first}–{last}"),
        },
    };
    let labels: Vec<Callout> = groups.into_iter().map(label).collect();
    canvas.callouts(&labels);
}
