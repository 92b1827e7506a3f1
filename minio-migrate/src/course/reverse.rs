//! The way back: after GO what is written to the new store is copied to the old one, so that moving back loses nothing.

use std::path::PathBuf;

use veza_probe::clock::Stop;
use veza_probe::report::{Report, Untouched};
use veza_probe::verdict::{Gate, Judgement, Measured, Outcome, Verdict};

use super::Run;
use super::cutover::freezes;
use crate::report;
use crate::targets::refused;
use crate::targets::s3::Failure;
use crate::targets::walk::{Version, Walk};
use crate::transfer::flow::{Flow, Stopped};
use crate::transfer::freeze;
use crate::transfer::journal::rows::Row;
use crate::transfer::journal::{About, Copied, Journal};
use crate::verdict::copying::{Copy, judge};

/// After how many keys what was written down is put on disk.
const SAVE_EVERY: usize = 1000;

impl Run<'_> {
    /// Copies to the source what the target has and the source has not.
    pub async fn reverse(&self, stop: &mut Stop) -> Report {
        let (args, clock) = (self.args, self.clock);
        let prepared = tokio::select! {
            prepared = self.way_back() => prepared,
            signal = stop.wait() => {
                let judgement = Judgement::new(Verdict::Interrupted(signal), "interrupted", "nothing was copied", "run it again");
                Err(judgement.into())
            }
        };
        let (journal, flow) = match prepared {
            Ok(prepared) => prepared,
            Err(untouched) => return report::untouched(&clock, args, untouched),
        };
        let began = clock.at();
        let copying = async {
            for bucket in &self.baseline.buckets {
                self.story.say(&format!("copying back {}", bucket.name));
                flow.bucket(&bucket.name, self.story).await?;
            }
            Ok::<_, Stopped>(())
        };
        let (stopped, signal) = tokio::select! {
            done = copying => (done.err(), None),
            signal = stop.wait() => (None, Some(signal)),
        };
        // Everything that was written before this pass began is on the old store when it ends.
        let lag_s = clock.at().us_since(began) as f64 / 1e6;
        let stopped = stopped.or(journal.close().map_err(Stopped::Journal).err());
        let counts = flow.counts().clone();
        let sums = journal.sums().unwrap_or_default();
        let copy = Copy {
            counts: &counts,
            stopped: stopped.as_ref(),
            signal,
            is_empty: self.is_nothing(&sums, &counts),
        };
        let gate = args.cutting.max_lag.map(|max| {
            let title = "how old a write may be that the old store has not: the time of this pass";
            Gate::at_most(
                "lag",
                title,
                max.as_secs_f64(),
                "s",
                Some(Measured::exact(lag_s)),
            )
        });
        let judgement = told(judge(&copy), lag_s, gate.as_ref());
        let seen = (self.baseline, &counts, &journal);
        let mut report = report::copying::assemble(&clock, args, &judgement, seen);
        report.gates.extend(gate);
        report
            .figures
            .push(report::figure(("lag", "the time of this pass", "s", lag_s)));
        report.notes.push(format!(
            "from {} back to {}",
            self.targets.target.names().collect::<Vec<_>>().join(", "),
            self.targets.source.names().collect::<Vec<_>>().join(", ")
        ));
        report
    }

    /// The journal of the way back, which begins with what the way there wrote, and who carries.
    async fn way_back(&self) -> Result<(Journal, Flow), Untouched> {
        let (path, about) = self.place();
        let left = freeze::left(&freezes(), &about.source);
        let left =
            left.map_err(|words| refused("freeze-unreadable", words, "look at that file"))?;
        let is_go = left.iter().any(|(_, record)| record.go_at().is_some());
        if !is_go && !self.args.cutting.accept_unfrozen {
            let words = format!(
                "no GO is on record for {}: its writers write to it, and not to the target",
                about.source
            );
            let next = "minio-migrate cutover; or --accept-unfrozen, where the writers were moved otherwise";
            return Err(refused("no-go-given", words, next));
        }
        let unusable = |words: String| {
            refused(
                "journal-unusable",
                words,
                "name the journal of the migration with --journal",
            )
        };
        let there = self.known().map_err(unusable)?;
        let there =
            there.ok_or_else(|| unusable(format!("journal {}: there is none", path.display())))?;
        let back = About {
            source: about.target,
            target: about.source,
            ..about
        };
        let mut name = path.into_os_string();
        name.push(".back");
        let name = PathBuf::from(name);
        let is_new = !name.exists();
        let journal = Journal::open(&name, &back).map_err(unusable)?;
        if is_new {
            let turned = self.turned(&there, &journal).await;
            if let Err(words) = turned {
                // Half of it would take what the way there wrote for somebody else's.
                drop(journal);
                let _ = std::fs::remove_file(&name);
                return Err(refused("way-back-unknown", words, "run it again"));
            }
        }
        let mut flow = self.flow(journal.clone());
        std::mem::swap(&mut flow.carrier.source, &mut flow.carrier.target);
        Ok((journal, flow))
    }

    /// Writes down what the way there wrote as what the way back need not write: of each version of the new store that is known, which
    /// one of the old it came from.
    async fn turned(&self, there: &Journal, back: &Journal) -> Result<(), String> {
        let args = self.args;
        for bucket in &self.baseline.buckets {
            let bucket = bucket.name.as_str();
            let mut walk = Walk::new(&self.targets.target, bucket, &args.prefix, args.versions);
            let mut count = 0;
            loop {
                let next = walk
                    .next()
                    .await
                    .map_err(|failure: Failure| format!("{bucket}: {failure}"))?;
                let Some(entry) = next else { break };
                let rows = there.of_key(bucket, &entry.key)?;
                let known = entry.history.iter().rev().filter_map(|version| {
                    let row = rows.iter().find(|row| row.target_is(version))?;
                    Some(turned(row, version))
                });
                for row in known {
                    let copied = Copied {
                        place: (bucket, &entry.key),
                        row: &row,
                    };
                    back.copied(&copied)?;
                }
                count += 1;
                if count % SAVE_EVERY == 0 {
                    back.save()?;
                }
            }
        }
        back.save()
    }
}

/// A row of the way there as one of the way back.
fn turned(row: &Row, version: &Version) -> Row {
    Row {
        number: row.number,
        source_id: version.id.clone().unwrap_or_default(),
        is_mark: row.is_mark,
        size_bytes: row.size_bytes,
        etag: version.etag.clone(),
        modified_ms: version.modified_ms,
        sha256: row.sha256,
        target_id: Some(row.source_id.clone()).filter(|id| !id.is_empty()),
        target_etag: row.etag.clone(),
        node: None,
        copied_ms: row.copied_ms,
        verified_ms: row.verified_ms,
        ..Row::default()
    }
}

/// The verdict of a pass, with its lag.
fn told(judgement: Judgement, lag_s: f64, gate: Option<&Gate>) -> Judgement {
    if judgement.verdict != Verdict::Pass {
        return judgement;
    }
    if let Some(gate) = gate.filter(|gate| gate.outcome != Outcome::Held) {
        let next = "run it more often, or give it more --workers";
        return Judgement::new(Verdict::Fail, "lag-missed", gate.told(), next);
    }
    let reason = format!(
        "everything that was written until {lag_s:.1} s ago is on the old store: {}",
        judgement.reason
    );
    Judgement::new(
        Verdict::Pass,
        "in-step",
        reason,
        "run it again, regularly, until nobody needs the old store",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_a_gate_only_where_one_was_asked_for() {
        let pass = || Judgement::new(Verdict::Pass, "copied", "all", "");
        let gate = |max_s| Gate::at_most("lag", "lag", max_s, "s", Some(Measured::exact(5.0)));
        assert_eq!(told(pass(), 5.0, None).reason_id, "in-step");
        assert_eq!(told(pass(), 5.0, Some(&gate(5.0))).reason_id, "in-step");
        assert_eq!(told(pass(), 5.0, Some(&gate(4.9))).reason_id, "lag-missed");
        let broken = Judgement::new(Verdict::Inconclusive, "keys-left", "one", "");
        assert_eq!(told(broken, 5.0, Some(&gate(1.0))).reason_id, "keys-left");
    }

    #[test]
    fn a_row_is_turned_round() {
        let row = Row {
            number: 3,
            source_id: "old".to_owned(),
            etag: "e".to_owned(),
            target_id: Some("new".to_owned()),
            target_etag: "f".to_owned(),
            ..Row::default()
        };
        let version = Version::of(Some("new".to_owned()), "f", false);
        assert!(row.target_is(&version));
        let back = turned(&row, &version);
        assert_eq!(
            (
                back.number,
                back.source_id.as_str(),
                back.target_id.as_deref()
            ),
            (3, "new", Some("old"))
        );
        assert_eq!((back.etag.as_str(), back.target_etag.as_str()), ("f", "e"));
    }
}
