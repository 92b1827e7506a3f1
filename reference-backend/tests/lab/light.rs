//! The application while the master is lost, while all of Redis is away, and its numbers in Prometheus.

#[path = "light/application.rs"]
mod application;
#[path = "light/monitoring.rs"]
mod monitoring;
