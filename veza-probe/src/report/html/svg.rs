//! The few shapes that drawings are made of, as SVG inside HTML. Every text goes through
//! [`escaped`]; colours are classes of the page's style sheet. There is no namespace, as HTML needs
//! none, so that a report names no address at all. Hatches are drawn line by line: a pattern would
//! need a `url`.

use std::fmt::{Display, Write};

/// How far the lines of a hatch are apart.
const HATCH_STEP: f64 = 6.0;

/// A part of a drawing, in its own units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Lines that fill an area, so that it is told from others without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hatch {
    Rising,
    Falling,
    Crossed,
    Level,
    Upright,
}

/// On which side of its place a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text that is nothing but text, in content and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            _ => out.push(c),
        }
    }
    out
}

/// A filled box, with words that a pointer over it shows.
pub(super) fn rect(class: &str, area: Area, title: &str) -> String {
    let Area {
        x,
        y,
        width,
        height,
    } = area;
    let title = escaped(title);
    format!(
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
         height=\"{height:.1}\"><title>{title}</title></rect>\n"
    )
}

/// A line from one place to another.
pub(super) fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!(
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
    )
}

/// A line through places, in their order.
pub(super) fn path(class: &str, places: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (index, (x, y)) in places.enumerate() {
        let letter = if index == 0 { 'M' } else { 'L' };
        // Writing to a String can't fail.
        let _ = write!(path, "{letter}{x:.1} {y:.1}");
    }
    format!("<path class=\"{class}\" d=\"{path}\"/>\n")
}

/// A text at a place.
pub(super) fn label(class: &str, at: (f64, f64), anchor: Anchor, text: impl Display) -> String {
    let (x, y) = at;
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let text = escaped(&text.to_string());
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
    )
}

/// The lines of a hatch, inside an area.
pub(super) fn hatch(class: &str, area: Area, hatch: Hatch) -> String {
    let Area {
        x,
        y,
        width,
        height,
    } = area;
    let mut lines: Vec<[f64; 4]> = Vec::new();
    if matches!(hatch, Hatch::Rising | Hatch::Crossed) {
        lines.extend(slanted(width, height));
    }
    if matches!(hatch, Hatch::Falling | Hatch::Crossed) {
        let mirrored = slanted(width, height);
        lines.extend(mirrored.map(|[x1, y1, x2, y2]| [x1, height - y1, x2, height - y2]));
    }
    if hatch == Hatch::Level {
        lines.extend(steps(height).map(|v| [0.0, v, width, v]));
    }
    if hatch == Hatch::Upright {
        lines.extend(steps(width).map(|u| [u, 0.0, u, height]));
    }
    let mut path = String::new();
    for [x1, y1, x2, y2] in lines {
        let (x1, y1, x2, y2) = (x + x1, y + y1, x + x2, y + y2);
        // Writing to a String can't fail.
        let _ = write!(path, "M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}");
    }
    format!("<path class=\"{class}\" d=\"{path}\"/>\n")
}

/// Multiples of the step inside a length.
fn steps(length: f64) -> impl Iterator<Item = f64> {
    let places = (0..2000).map(|n| (f64::from(n) + 0.5) * HATCH_STEP);
    places.take_while(move |place| *place < length)
}

/// Lines that rise to the right, clipped to a box at the origin.
fn slanted(width: f64, height: f64) -> impl Iterator<Item = [f64; 4]> {
    steps(width + height).map(move |c| {
        let (from, to) = ((c - height).max(0.0), c.min(width));
        [from, c - from, to, c - to]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Area = Area {
        x: 10.0,
        y: 20.0,
        width: 30.0,
        height: 14.0,
    };

    #[test]
    fn hostile_text_is_only_text() {
        let hostile = "</text><script>alert('a')</script>\"&";
        let inert = "&lt;/text&gt;&lt;script&gt;alert(&#x27;a&#x27;)&lt;/script&gt;&quot;&amp;";
        assert_eq!(escaped(hostile), inert);
        assert!(rect("a", BOX, hostile).contains(inert));
        assert!(label("a", (0.0, 0.0), Anchor::End, hostile).contains(inert));
    }

    #[test]
    fn a_hatch_stays_inside_its_box() {
        for kind in [
            Hatch::Rising,
            Hatch::Falling,
            Hatch::Crossed,
            Hatch::Level,
            Hatch::Upright,
        ] {
            let drawn = hatch("a", BOX, kind);
            let path = drawn.split('"').nth(3).unwrap();
            let ends: Vec<&str> = path.split(['M', 'L']).filter(|p| !p.is_empty()).collect();
            assert!(ends.len() >= 4, "{kind:?}: {path}");
            for end in ends {
                let (x, y) = end.split_once(' ').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((10.0..=40.0).contains(&x), "{kind:?}: {x}");
                assert!((20.0..=34.0).contains(&y), "{kind:?}: {y}");
            }
        }
    }

    #[test]
    fn a_box_of_any_size_has_a_bounded_hatch() {
        let wide = Area {
            width: f64::INFINITY,
            ..BOX
        };
        assert!(hatch("a", wide, Hatch::Upright).len() < 100_000);
    }
}
