//! How probes are made: rhythm, deadlines, standing connections; checked once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How probes are made: their rhythm, their deadlines and their standing connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    spacing: Duration,
    limit: Duration,
    connect_limit: Duration,
    connections: usize,
    reconnect_every: Duration,
}

/// A value with which no probe could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Shorter than the timer's resolution.
    #[error("{name} is {given:?}: it must be at least 1 ms, the resolution of the timer")]
    TooShort {
        /// What was set.
        name: &'static str,
        /// To what.
        given: Duration,
    },
    /// Longer than a run can be.
    #[error("{name} is {given:?}: it must be at most one hour")]
    TooLong {
        /// What was set.
        name: &'static str,
        /// To what.
        given: Duration,
    },
    /// Without a connection every sample would fail.
    #[error("probes need at least one connection")]
    NoConnections,
}

impl Default for Shape {
    /// A probe every 20 ms with 1 s to succeed, on 16 connections, each made within 2 s; one that
    /// is missing is asked for every 100 ms. A service that holds every answer back for less than
    /// 16 × 20 ms is slow, not away: on a busy disk commits were seen to wait for 0.1 to 0.3 s, and with
    /// 4 connections the probes that were due meanwhile found none free.
    fn default() -> Shape {
        Shape {
            spacing: Duration::from_millis(20),
            limit: Duration::from_secs(1),
            connect_limit: Duration::from_secs(2),
            connections: 16,
            reconnect_every: Duration::from_millis(100),
        }
    }
}

impl Shape {
    /// Sets the time from one due instant to the next.
    ///
    /// # Errors
    /// [`ShapeError`] when it is shorter than 1 ms or longer than an hour.
    pub fn with_spacing(self, spacing: Duration) -> Result<Shape, ShapeError> {
        Ok(Shape {
            spacing: checked("the spacing of probes", spacing)?,
            ..self
        })
    }

    /// Sets the deadline of one probe, counted from when it is sent.
    ///
    /// # Errors
    /// [`ShapeError`] when it is shorter than 1 ms or longer than an hour.
    pub fn with_limit(self, limit: Duration) -> Result<Shape, ShapeError> {
        Ok(Shape {
            limit: checked("the limit of a probe", limit)?,
            ..self
        })
    }

    /// Sets the deadline of one attempt to connect.
    ///
    /// # Errors
    /// [`ShapeError`] when it is shorter than 1 ms or longer than an hour.
    pub fn with_connect_limit(self, connect_limit: Duration) -> Result<Shape, ShapeError> {
        Ok(Shape {
            connect_limit: checked("the limit of connecting", connect_limit)?,
            ..self
        })
    }

    /// Sets how many standing connections there are, to all hosts together.
    ///
    /// # Errors
    /// [`ShapeError::NoConnections`] when it is zero.
    pub fn with_connections(self, connections: usize) -> Result<Shape, ShapeError> {
        if connections == 0 {
            return Err(ShapeError::NoConnections);
        }
        Ok(Shape {
            connections,
            ..self
        })
    }

    /// Sets the time from one attempt of a host's connector to its next.
    ///
    /// # Errors
    /// [`ShapeError`] when it is shorter than 1 ms or longer than an hour.
    pub fn with_reconnect_every(self, reconnect_every: Duration) -> Result<Shape, ShapeError> {
        Ok(Shape {
            reconnect_every: checked("the pause of reconnecting", reconnect_every)?,
            ..self
        })
    }

    /// The time from one due instant to the next.
    pub fn spacing(&self) -> Duration {
        self.spacing
    }

    /// The deadline of one probe.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The deadline of one attempt to connect.
    pub fn connect_limit(&self) -> Duration {
        self.connect_limit
    }

    /// How many standing connections there are.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// The time from one attempt of a host's connector to its next.
    pub fn reconnect_every(&self) -> Duration {
        self.reconnect_every
    }
}

fn checked(name: &'static str, given: Duration) -> Result<Duration, ShapeError> {
    if given < Duration::from_millis(1) {
        Err(ShapeError::TooShort { name, given })
    } else if given > Duration::from_secs(3600) {
        Err(ShapeError::TooLong { name, given })
    } else {
        Ok(given)
    }
}
