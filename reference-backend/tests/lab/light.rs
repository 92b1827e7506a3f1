//! The application while the master is lost, while all of Redis is away, its numbers in Prometheus,
//! and the alerts there.

#[path = "light/alerts.rs"]
mod alerts;
#[path = "light/application.rs"]
mod application;
#[path = "light/monitoring.rs"]
mod monitoring;
