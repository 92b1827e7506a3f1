//! How often Redis answered and how often memory had to, for Prometheus.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who asks Redis: the only values that the label `subsystem` can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subsystem {
    /// The rate limiter.
    RateLimiter,
    /// Chat messages between servers.
    ChatPubsub,
    /// Who is online.
    Presence,
}

impl Subsystem {
    /// Every one.
    pub const ALL: [Subsystem; 3] = [
        Subsystem::RateLimiter,
        Subsystem::ChatPubsub,
        Subsystem::Presence,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Subsystem::RateLimiter => "rate_limiter",
            Subsystem::ChatPubsub => "chat_pubsub",
            Subsystem::Presence => "presence",
        }
    }
}

impl EncodeLabelValue for Subsystem {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    subsystem: Subsystem,
}

/// The counters `veza_cache_hits_total` and `veza_cache_misses_total`, each by `subsystem`; all six series
/// are there from the start.
///
/// An answer of Redis is a hit, an empty one too; an error, after which memory answers, is a miss.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    hits: Family<Labels, Counter>,
    misses: Family<Labels, Counter>,
}

impl CacheMetrics {
    /// The counters, told by this registry from now on.
    pub fn register(registry: &mut Registry) -> CacheMetrics {
        let metrics = CacheMetrics::default();
        for subsystem in Subsystem::ALL {
            let labels = Labels { subsystem };
            drop(metrics.hits.get_or_create(&labels));
            drop(metrics.misses.get_or_create(&labels));
        }
        registry.register(
            "veza_cache_hits",
            "Requests that Redis answered, an empty answer too",
            metrics.hits.clone(),
        );
        registry.register(
            "veza_cache_misses",
            "Requests that Redis did not answer, so that memory had to",
            metrics.misses.clone(),
        );
        metrics
    }

    /// Redis answered.
    pub(super) fn hit(&self, subsystem: Subsystem) {
        self.hits.get_or_create(&Labels { subsystem }).inc();
    }

    /// Redis did not answer.
    pub(super) fn miss(&self, subsystem: Subsystem) {
        self.misses.get_or_create(&Labels { subsystem }).inc();
    }

    /// Hits and misses of one subsystem since the start.
    pub fn of(&self, subsystem: Subsystem) -> (u64, u64) {
        let labels = Labels { subsystem };
        let hits = self.hits.get_or_create(&labels).get();
        (hits, self.misses.get_or_create(&labels).get())
    }
}

/// All that a registry holds, as [`CONTENT_TYPE`].
///
/// # Errors
/// When something in the registry can't be written.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_counts_by_itself() {
        let mut registry = Registry::default();
        let metrics = CacheMetrics::register(&mut registry);
        metrics.hit(Subsystem::Presence);
        metrics.hit(Subsystem::Presence);
        metrics.miss(Subsystem::ChatPubsub);
        let text = text(&registry).unwrap();
        let mut series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        series.sort_unstable();
        assert_eq!(
            series,
            [
                "veza_cache_hits_total{subsystem=\"chat_pubsub\"} 0",
                "veza_cache_hits_total{subsystem=\"presence\"} 2",
                "veza_cache_hits_total{subsystem=\"rate_limiter\"} 0",
                "veza_cache_misses_total{subsystem=\"chat_pubsub\"} 1",
                "veza_cache_misses_total{subsystem=\"presence\"} 0",
                "veza_cache_misses_total{subsystem=\"rate_limiter\"} 0",
            ]
        );
        assert_eq!(metrics.of(Subsystem::Presence), (2, 0));
        assert_eq!(metrics.of(Subsystem::ChatPubsub), (0, 1));
    }
}
