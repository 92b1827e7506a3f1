//! Labels that belong to places on a lane, in as many rows as they need so that none lies on another
//! one or is crossed by the line that leads to one. Pure.

use super::super::svg::{self, Anchor};
use super::scale::RIGHT;

/// The height of a row of labels.
pub(super) const ROW: f64 = 16.0;

/// How wide a character is at most, on average.
const CHARACTER: f64 = 7.0;

/// What is left free between two labels.
const GAP: f64 = 8.0;

/// The longest label; whatever is cut off stands in the tables.
const CHARACTERS_MAX: usize = 60;

/// A label and the place that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Callout {
    /// The place.
    pub(super) x: f64,
    /// What is said of it.
    pub(super) text: String,
}

/// A label with its row, and where it begins.
#[derive(Debug, PartialEq)]
struct Placed {
    x: f64,
    left: f64,
    row: usize,
    text: String,
}

/// How wide a text is at most.
pub(super) fn width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// A text that fits.
pub(super) fn short(text: &str) -> String {
    if text.chars().count() <= CHARACTERS_MAX {
        return text.to_owned();
    }
    let kept: String = text.chars().take(CHARACTERS_MAX - 1).collect();
    format!("{kept}…")
}

/// Draws labels below `top`, each at the foot of a line from it; answers with the height that they
/// took.
pub(super) fn drawing(callouts: &[Callout], top: f64) -> (String, f64) {
    let placed = placed(callouts);
    let rows = placed.iter().map(|label| label.row + 1).max().unwrap_or(0);
    let mut out = String::new();
    for label in &placed {
        let base = top + (label.row as f64 + 1.0) * ROW;
        out += &svg::line("leader", (label.x, top), (label.x, base));
        out += &svg::label("small", (label.left, base), Anchor::Start, &label.text);
    }
    (out, rows as f64 * ROW)
}

/// Labels stand right of their lines, but for those at the right end of the drawing: where one would
/// run over the edge, it and all after it stand left of theirs, below the others if need be.
fn placed(callouts: &[Callout]) -> Vec<Placed> {
    let mut all: Vec<(f64, f64, String)> = callouts
        .iter()
        .map(|callout| {
            let text = short(&callout.text);
            (callout.x, width(&text) + 4.0, text)
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let turn = turn(&all);
    let (right, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(x, _, _)| *x < turn);
    // Mirrored, they are in order from right to left, too.
    let mirrored: Vec<(f64, f64)> = left.iter().rev().map(|(x, wide, _)| (-x, *wide)).collect();
    let plain: Vec<(f64, f64)> = right.iter().map(|(x, wide, _)| (*x, *wide)).collect();
    let (plain_rows, mirrored_rows) = (rows(&plain), rows(&mirrored));
    let reach = plain.iter().map(|(x, wide)| x + wide + GAP);
    let begin = mirrored.iter().map(|(x, wide)| -x - wide);
    let clear = reach.fold(0.0, f64::max) <= begin.fold(f64::INFINITY, f64::min);
    let below = match clear {
        true => 0,
        false => plain_rows.iter().map(|row| row + 1).max().unwrap_or(0),
    };
    let plain = right.into_iter().zip(plain_rows);
    let plain = plain.map(|((x, _, text), row)| Placed {
        x,
        left: x + 4.0,
        row,
        text,
    });
    let mirrored = left.into_iter().rev().zip(mirrored_rows);
    let mirrored = mirrored.map(|((x, wide, text), row)| Placed {
        x,
        left: x - wide,
        row: row + below,
        text,
    });
    plain.chain(mirrored).collect()
}

/// From which place on labels stand left of their lines.
fn turn(all: &[(f64, f64, String)]) -> f64 {
    let (mut turn, mut limit) = (f64::INFINITY, RIGHT + 15.0);
    loop {
        let over = all.iter().filter(|(x, wide, _)| x + wide > limit);
        let first = over.map(|(x, _, _)| *x).fold(f64::INFINITY, f64::min);
        if first >= turn {
            return turn;
        }
        (turn, limit) = (first, first - GAP);
    }
}

/// The row of each label, given as its place and width, from right to left: a label takes the first
/// row in which it ends before the next one begins. Rows above it are closed where its line comes
/// through.
fn rows(labels: &[(f64, f64)]) -> Vec<usize> {
    // Where each row is taken from, to the right.
    let mut taken: Vec<f64> = Vec::new();
    let place = |(x, wide): &(f64, f64)| {
        let free = taken.iter().position(|from| x + wide + GAP <= *from);
        let row = free.unwrap_or(taken.len());
        if free.is_none() {
            taken.push(*x);
        }
        for from in taken.iter_mut().take(row + 1) {
            *from = from.min(*x);
        }
        row
    };
    labels.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callouts(all: &[(f64, &str)]) -> Vec<Callout> {
        let one = |(x, text): &(f64, &str)| Callout {
            x: *x,
            text: (*text).to_owned(),
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn labels_with_room_stand_in_one_row() {
        let rows: Vec<usize> = placed(&callouts(&[(100.0, "called"), (400.0, "healed")]))
            .iter()
            .map(|label| label.row)
            .collect();
        assert_eq!(rows, [0, 0]);
        assert_eq!(drawing(&[], 5.0), (String::new(), 0.0));
    }

    #[test]
    fn no_label_lies_on_another_or_on_its_line() {
        let texts = [
            "called 0.00 s",
            "evidence 1.26 s",
            "1",
            "22",
            "a long label of it",
        ];
        let mut all = Vec::new();
        for n in 0..60_u32 {
            // Places that are spread and bunched, in no order.
            let x = f64::from(120 + (n * 277) % 820);
            all.push((x, texts[n as usize % texts.len()]));
        }
        let placed = placed(&callouts(&all));
        for (n, a) in placed.iter().enumerate() {
            let (from, to) = (a.left, a.left + width(&a.text));
            for b in placed.iter().skip(n + 1) {
                let apart = b.left + width(&b.text) <= from || to <= b.left;
                assert!(a.row != b.row || apart, "{a:?} {b:?}");
            }
            for b in placed.iter().filter(|b| b.row > a.row) {
                assert!(b.x <= from || to <= b.x, "{b:?} leads through {a:?}");
            }
        }
    }

    #[test]
    fn a_label_at_the_edge_stands_left_of_its_place() {
        let all = placed(&callouts(&[(RIGHT, "redundant again")]));
        assert!(all[0].left + width(&all[0].text) < RIGHT, "{all:?}");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(short("short"), "short");
        let cut = short(&"ä".repeat(100));
        assert_eq!(cut.chars().count(), CHARACTERS_MAX);
        assert!(cut.ends_with('…'));
    }
}
