//! Curves over the time of a run as one drawing. Pure. Curves are told apart by their dashes as well
//! as by their colours, and a gap in a curve stays a gap.

use super::svg::{self, Anchor};
use crate::report::{Chart, Curve};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 190.0;

/// How many lines a grid has at most, upright and level.
const TICKS_MAX: f64 = 12.0;
const LEVELS_MAX: f64 = 5.0;

/// How many times the usual distance of two points is a gap.
const GAP: f64 = 3.5;

/// The looks of curves, in their order; with more curves they come again.
const LOOKS: [&str; 4] = [
    "curve system",
    "curve second cause",
    "curve third bad",
    "curve fourth good",
];

/// A chart; none when it has no point that can be drawn.
pub(super) fn drawing(chart: &Chart) -> Option<String> {
    let points = || chart.curves.iter().flat_map(drawable);
    let from = points().map(|[at, _]| at).reduce(f64::min)?;
    let to = points().map(|[at, _]| at).reduce(f64::max)?.max(from + 1.0);
    let top = points().map(|[_, value]| value).fold(0.0, f64::max);
    let level = round_step(top / LEVELS_MAX);
    let top = (top / level).ceil().max(1.0) * level;
    let x = |at: f64| LEFT + (at - from) / (to - from) * (RIGHT - LEFT);
    let y = |value: f64| BOTTOM - value.max(0.0) / top * (BOTTOM - TOP);
    let height = BOTTOM + 66.0;
    let title = svg::escaped(&format!("{}, in {}", chart.title, chart.unit));
    let mut out = format!(
        "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         aria-label=\"{title}\">\n"
    );
    for value in steps(0.0, top, level) {
        out += &svg::line("grid", (LEFT, y(value)), (RIGHT, y(value)));
        let at = (LEFT - 8.0, y(value) + 4.0);
        out += &svg::label("small", at, Anchor::End, short(value));
    }
    let second = round_step((to - from) / TICKS_MAX);
    let first = (from / second).ceil() * second;
    for at in steps(first, to, second) {
        out += &svg::line("grid", (x(at), TOP), (x(at), BOTTOM + 4.0));
        let place = (x(at), BOTTOM + 18.0);
        out += &svg::label("small", place, Anchor::Middle, short(at));
    }
    out += &svg::line("rail", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    let words = "seconds after the start";
    out += &svg::label("small", (RIGHT, BOTTOM + 34.0), Anchor::End, words);
    out += &svg::label("small", (LEFT, BOTTOM + 34.0), Anchor::Start, &chart.unit);
    let mut legend = LEFT;
    for (curve, look) in chart.curves.iter().zip(LOOKS.iter().cycle()) {
        for part in parts(curve) {
            let places = part.iter().map(|[at, value]| (x(*at), y(*value)));
            out += &svg::path(look, places);
        }
        let line = [(legend, BOTTOM + 54.0), (legend + 34.0, BOTTOM + 54.0)];
        out += &svg::path(look, line.into_iter());
        let at = (legend + 40.0, BOTTOM + 58.0);
        out += &svg::label("small", at, Anchor::Start, &curve.name);
        legend += 70.0 + 7.0 * curve.name.chars().count() as f64;
    }
    Some(out + "</svg>")
}

/// The points that are numbers.
fn drawable(curve: &Curve) -> impl Iterator<Item = [f64; 2]> {
    let points = curve.points.iter().copied();
    points.filter(|[at, value]| at.is_finite() && value.is_finite())
}

/// A curve, cut where points are missing.
fn parts(curve: &Curve) -> Vec<Vec<[f64; 2]>> {
    let points: Vec<[f64; 2]> = drawable(curve).collect();
    let gaps = points.windows(2).filter_map(|pair| match pair {
        [[one, _], [other, _]] => Some(other - one),
        _ => None,
    });
    let mut gaps: Vec<f64> = gaps.collect();
    gaps.sort_by(f64::total_cmp);
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or(0.0);
    let mut parts: Vec<Vec<[f64; 2]>> = Vec::new();
    for point in points {
        let last = parts.last_mut();
        match last.filter(|part| {
            part.last()
                .is_some_and(|before| point[0] - before[0] <= usual * GAP)
        }) {
            Some(part) => part.push(point),
            None => parts.push(vec![point]),
        }
    }
    parts
}

/// The next of 1, 2, 5, 10, … times a power of ten that is not smaller.
fn round_step(least: f64) -> f64 {
    if !least.is_finite() || least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let mut steps = [1.0, 2.0, 5.0].iter().map(|m| m * power);
    let fits = steps.find(|step| *step >= least * 0.999);
    fits.unwrap_or(power * 10.0)
}

/// Multiples of a step from `first` to `last`.
fn steps(first: f64, last: f64, step: f64) -> impl Iterator<Item = f64> {
    let all = (0..100).map(move |n| first + f64::from(n) * step);
    all.take_while(move |value| *value <= last + step * 1e-6)
}

/// A number on an axis.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[[f64; 2]]) -> Chart {
        Chart {
            title: "tps & \"more\"".into(),
            unit: "/s".into(),
            curves: vec![Curve {
                name: "<tps>".into(),
                points: points.to_vec(),
            }],
        }
    }

    #[test]
    fn a_gap_cuts_the_curve_and_text_is_only_text() {
        let points = [[1.0, 5.0], [2.0, 6.0], [3.0, 5.0], [9.0, 1.0], [10.0, 2.0]];
        let drawn = drawing(&chart(&points)).unwrap();
        // Two parts, and the legend.
        assert_eq!(drawn.matches("<path class=\"curve system\"").count(), 3);
        assert!(drawn.contains("&lt;tps&gt;") && drawn.contains("tps &amp; &quot;more&quot;"));
    }

    #[test]
    fn nothing_or_no_numbers_draw_nothing_and_zeros_draw_a_line() {
        assert_eq!(drawing(&chart(&[])), None);
        assert_eq!(drawing(&chart(&[[1.0, f64::NAN]])), None);
        let level = drawing(&chart(&[[1.0, 0.0], [2.0, 0.0]])).unwrap();
        assert!(level.contains("M70.0 190.0L940.0 190.0") && !level.contains("NaN"));
    }

    #[test]
    fn steps_are_round() {
        for (least, step) in [
            (0.7, 1.0),
            (1.0, 1.0),
            (1.2, 2.0),
            (41.0, 50.0),
            (70.0, 100.0),
        ] {
            assert!((round_step(least) - step).abs() < 1e-9, "{least}");
        }
        assert_eq!([short(0.25), short(300.0)], ["0.25", "300"]);
    }
}
