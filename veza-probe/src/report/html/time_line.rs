//! The time line of a run as one drawing: the fault, what a client saw, what the system under test
//! did. Pure; it shows nothing that the tables of the page do not say in words.

mod scale;
mod callouts;
mod lanes;

use super::svg::{self, Anchor, Area, Hatch};
use crate::fault::Fault;
use crate::report::Report;
use lanes::Canvas;
use scale::{LEFT, RIGHT, Scale};

/// The width of the drawing, in its own units.
const WIDTH: f64 = 960.0;

/// The time line of a run that broke something; none of one that did not.
pub(super) fn drawing(report: &Report) -> Option<String> {
    let fault = report.fault.as_ref()?;
    let mut canvas = Canvas {
        out: String::new(),
        y: 12.0,
        scale: Scale::of(report, fault.called),
    };
    lanes::overlaps(&mut canvas, report);
    lanes::fault(&mut canvas, report, fault);
    lanes::probes(&mut canvas, report);
    lanes::outages(&mut canvas, report);
    lanes::phases(&mut canvas, report);
    lanes::events(&mut canvas, report);
    let axis = canvas.y;
    let grid = grid(&canvas.scale, axis, fault);
    let (legend, height) = legend(report, fault, axis + 48.0);
    let mut out = format!(
        "<svg class=\"time-line\" role=\"img\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         aria-labelledby=\"time-line-title time-line-desc\">\n\
         <title id=\"time-line-title\">Time line</title>\n\
         <desc id=\"time-line-desc\">{}</desc>\n",
        svg::escaped(&description(report, fault))
    );
    out += &grid;
    out += &canvas.out;
    out += &legend;
    Some(out + "</svg>")
}

/// The axis, and lines up from it: at round seconds, and a strong one at the fault.
fn grid(scale: &Scale, axis: f64, fault: &Fault) -> String {
    let mut out = String::new();
    for (x, told) in scale.ticks() {
        out += &svg::line("grid", (x, 6.0), (x, axis + 4.0));
        out += &svg::label("small", (x, axis + 17.0), Anchor::Middle, told);
    }
    out += &svg::line("rail", (LEFT, axis), (RIGHT, axis));
    let zero = scale.x(fault.called);
    out += &svg::line("zero", (zero, 6.0), (zero, axis + 4.0));
    let words = "seconds after the fault was called";
    out + &svg::label("small", (RIGHT, axis + 33.0), Anchor::End, words)
}

/// One way of filling a box, and what it means.
struct Entry {
    class: &'static str,
    hatch: Option<Hatch>,
    text: String,
}

/// What the fills mean, as far as they are used; answers with the height of the whole drawing.
fn legend(report: &Report, fault: &Fault, top: f64) -> (String, f64) {
    let (mut x, mut y) = (8.0, top);
    let mut out = String::new();
    for entry in entries(report, fault) {
        let width = 26.0 + callouts::width(&entry.text) + 18.0;
        if x + width > WIDTH && x > 8.0 {
            x = 8.0;
            y += 20.0;
        }
        let area = Area {
            x,
            y,
            width: 20.0,
            height: 12.0,
        };
        let fill = if entry.hatch.is_some() {
            "faint"
        } else {
            "solid"
        };
        let fill = if entry.text == "success" {
            "faint"
        } else {
            fill
        };
        out += &svg::rect(&format!("{fill} {}", entry.class), area, &entry.text);
        if let Some(hatch) = entry.hatch {
            out += &svg::hatch(&format!("hatch {}", entry.class), area, hatch);
        }
        out += &svg::label("small", (x + 26.0, y + 10.0), Anchor::Start, &entry.text);
        x += width;
    }
    (out, y + 20.0)
}

fn entries(report: &Report, fault: &Fault) -> Vec<Entry> {
    let entry = |class, hatch, text: &str| Entry {
        class,
        hatch,
        text: callouts::short(text),
    };
    let mut all = Vec::new();
    if fault.plan.kind.breaks() {
        all.push(entry("cause", Some(Hatch::Rising), "fault asked for"));
    }
    if fault.evidence.is_some() {
        all.push(entry("cause", None, "fault in place"));
    }
    if !report.undo.is_empty() {
        all.push(entry("cause", Some(Hatch::Falling), "healing"));
    }
    let mut seen: Vec<&str> = Vec::new();
    for run in &report.probe_runs {
        // A report has few kinds of failure; more than these would not be told apart.
        if seen.len() < 8 && !seen.contains(&run.outcome.as_str()) {
            seen.push(&run.outcome);
        }
    }
    for outcome in seen {
        let pattern = lanes::pattern(outcome);
        let class = if pattern.is_some() { "bad" } else { "good" };
        all.push(entry(class, pattern, outcome));
    }
    if !report.outages.is_empty() {
        all.push(entry("bad", None, "outage for certain"));
        all.push(entry("bad", Some(Hatch::Rising), "outage perhaps"));
    }
    if !report.phases.is_empty() {
        all.push(entry("system", None, "system, from earliest to latest"));
    }
    all
}

/// The drawing in words, for those who can't see it.
fn description(report: &Report, fault: &Fault) -> String {
    let seconds = |at: crate::clock::At| at.us_since(fault.called) as f64 / 1e6;
    let mut parts = vec![format!("Fault {} called at 0 s", fault.plan.told())];
    if let Some(evidence) = &fault.evidence {
        parts.push(format!("evidence at {:.2} s", seconds(evidence.at)));
    }
    match (report.outages.len(), report.client_outage) {
        (0, _) => parts.push("no outage seen".to_owned()),
        (_, Some(length)) => parts.push(format!("client's outage {length}")),
        (count, None) => parts.push(format!("{count} outages")),
    }
    for phase in &report.phases {
        parts.push(format!(
            "{} by {:.2} s",
            phase.name,
            seconds(phase.at.latest)
        ));
    }
    for overlap in &report.overlaps {
        let [one, other] = &overlap.nodes;
        parts.push(format!("two primaries at once: {one} and {other}"));
    }
    parts.push(format!("{} events", report.events.len()));
    parts.join("; ") + ". The tables below say all of it in words."
}
