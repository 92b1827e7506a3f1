//! A small bar that shows what a gate measured against its limit. Pure.

use super::svg::{self, Area, Hatch};
use crate::verdict::{Gate, Outcome};

const WIDTH: f64 = 160.0;
const HEIGHT: f64 = 20.0;

/// Left free at both ends.
const MARGIN: f64 = 4.0;

/// The bar of a gate: the limit as an upright line, what was measured as a box from its lower to its
/// upper bound; hatched to the end where nothing bounds it.
pub(super) fn drawing(gate: &Gate, words: &str) -> String {
    let known = |value: f64| value.is_finite().then_some(value.max(0.0));
    let limit = known(gate.limit).unwrap_or(0.0);
    let measured = gate.measured.map(|m| (known(m.lower), m.upper.map(known)));
    let (lower, upper) = match measured {
        Some((lower, upper)) => (lower, upper.flatten()),
        None => (None, None),
    };
    let largest = limit.max(lower.unwrap_or(0.0)).max(upper.unwrap_or(0.0));
    let end = if largest > 0.0 { largest * 1.25 } else { 1.0 };
    let x = |value: f64| MARGIN + (value / end).clamp(0.0, 1.0) * (WIDTH - 2.0 * MARGIN);
    let class = match gate.outcome {
        Outcome::Held => "good",
        Outcome::Missed => "bad",
        Outcome::Unclear => "warn",
    };
    let middle = HEIGHT / 2.0;
    let mut out = format!(
        "<svg class=\"bar\" role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" aria-label=\"{}\">\n",
        svg::escaped(words)
    );
    out += &svg::line("rail", (MARGIN, middle), (WIDTH - MARGIN, middle));
    if let Some(lower) = lower {
        let from = x(lower);
        let to = upper.map_or(WIDTH - MARGIN, x).max(from + 3.0);
        let area = Area {
            x: from,
            y: middle - 5.0,
            width: to - from,
            height: 10.0,
        };
        if upper.is_some() {
            out += &svg::rect(&format!("solid {class}"), area, words);
        } else {
            out += &svg::rect(&format!("faint {class}"), area, words);
            out += &svg::hatch(&format!("hatch {class}"), area, Hatch::Rising);
        }
    }
    let at = x(limit);
    out += &svg::line("limit", (at, 1.0), (at, HEIGHT - 1.0));
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Measured;

    fn bar(limit: f64, measured: Option<(f64, Option<f64>)>) -> String {
        let measured = measured.map(|(lower, upper)| Measured { lower, upper });
        drawing(
            &Gate::at_most("rto", "RTO", limit, "s", measured),
            "a & \"b\"",
        )
    }

    #[test]
    fn an_interval_is_solid_and_one_without_an_end_is_hatched() {
        let bounded = bar(60.0, Some((9.0, Some(10.0))));
        assert!(bounded.contains("solid good") && !bounded.contains("hatch"));
        let open = bar(60.0, Some((61.0, None)));
        assert!(open.contains("hatch bad"), "{open}");
        assert!(!bar(60.0, None).contains("<rect"));
    }

    #[test]
    fn values_that_are_no_numbers_draw_no_box() {
        for value in [f64::NAN, f64::INFINITY] {
            let drawn = bar(60.0, Some((value, Some(value))));
            assert!(!drawn.contains("<rect"), "{drawn}");
            let drawn = bar(value, Some((1.0, Some(2.0))));
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }

    #[test]
    fn a_limit_of_zero_shows_what_is_above_it() {
        assert!(bar(0.0, Some((0.0, Some(0.0)))).contains("x1=\"4.0\" y1=\"1.0\""));
        assert!(bar(0.0, Some((3.0, Some(3.0)))).contains("solid bad"));
    }

    #[test]
    fn its_words_are_only_words() {
        assert!(bar(0.0, None).contains("aria-label=\"a &amp; &quot;b&quot;\""));
    }
}
