//! What was seen of healing, in a report: each look, each heal that was asked for, and what drives lacked.

use veza_probe::clock::At;
use veza_probe::report::{Report, Table};

use crate::observation::healing::Record;
use crate::observation::healing::acts::Played;
use crate::observation::healing::look::by_drive;

/// Adds it; `zero` is when healing of the fault began.
pub fn tell(played: &Played, zero: At, report: &mut Report) {
    if let Some(meanwhile) = &played.meanwhile {
        report
            .notes
            .push(format!("while a node was away {}", meanwhile.told()));
        report.notes.extend(meanwhile.failed.iter().cloned());
    }
    if let Some(files) = played.emptied {
        report
            .notes
            .push(format!("the drive that was emptied had {files} files"));
    }
    if let Some(record) = &played.record {
        report.notes.extend(record.told(zero));
        report.tables.extend(looks(record, zero));
    }
    if let Some(rot) = &played.rot {
        report.notes.extend(rot.told(zero));
        report.tables.extend(looks(&rot.record, zero));
    }
    report
        .notes
        .extend(played.kept.as_ref().map(|kept| kept.told()));
    report.notes.extend(played.troubles.iter().cloned());
}

/// Every look: how many versions were whole, and what the drives lacked.
fn looks(record: &Record, zero: At) -> Option<Table> {
    let seconds = |at: At| format!("{:.1}", at.us_since(zero) as f64 / 1e6);
    let row = |(number, look): (usize, &crate::observation::healing::look::Look)| {
        let asks = record
            .asks
            .iter()
            .filter(|ask| ask.done <= look.asked)
            .count();
        let by = match number < record.alone {
            true => "itself".to_owned(),
            false => format!("asked heal {asks}"),
        };
        vec![
            seconds(look.answered),
            by,
            look.whole.to_string(),
            (look.expected - look.whole.min(look.expected)).to_string(),
            by_drive(&look.drives),
        ]
    };
    (!record.looks.is_empty()).then(|| Table {
        title: "Versions that are whole".to_owned(),
        columns: ["after s", "by", "whole", "lacking", "drives"]
            .map(str::to_owned)
            .to_vec(),
        rows: record.looks.iter().enumerate().map(row).collect(),
    })
}
