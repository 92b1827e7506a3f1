//! The report as one HTML page that needs nothing else: no network, no script. Verdict and reason
//! first. What comes from instances is only ever text.

mod svg;
mod gate_bar;
mod chart;
mod time_line;
mod page;

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use super::Report;

const TEMPLATE: &str = include_str!("html/page.html.j2");
const STYLE: &str = include_str!("html/page.css");

/// The report as an HTML page.
///
/// # Errors
/// When the template can't be rendered: a bug.
pub fn render(report: &Report) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let values = context! {
        style => STYLE,
        page => Value::from(Serde(page::page(report))),
        parts => Value::from(Serde(page::parts(report))),
    };
    let rendered = environment.render_named_str("page.html", TEMPLATE, values)?;
    Ok(visible(&rendered))
}

/// Shows characters that would otherwise act unseen: control characters, and those that turn the
/// direction of what follows them. The page itself has none.
fn visible(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    for c in page.chars() {
        let acts = (c.is_control() && c != '\n' && c != '\t')
            || matches!(
                c,
                '\u{61c}'
                    | '\u{200b}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}'
                    | '\u{feff}'
                    | '\u{fff9}'..='\u{fffb}'
                    | '\u{e0000}'..='\u{e007f}'
            );
        if acts {
            out.push_str(&format!("[U+{:04X}]", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
