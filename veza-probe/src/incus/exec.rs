//! Running a command in an instance, with its output and exit code.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Error, Incus, Request};
use crate::instance::InstanceName;

/// What a command in an instance left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code; 124 or 137 when the limit ended it.
    pub code: i64,
    /// Its standard output; invalid UTF-8 replaced.
    pub stdout: String,
    /// Its standard error; invalid UTF-8 replaced.
    pub stderr: String,
}

impl Incus {
    /// Runs a command in an instance as root and waits for it. Its output is recorded by Incus in
    /// files, read, and removed again. Never for a frozen instance: it would hang.
    ///
    /// The limit is kept inside the instance by coreutils' `timeout`, because dropping a request
    /// does not end the command.
    ///
    /// # Errors
    /// As every change. A command that ends with another code than 0 is no error.
    pub async fn exec(
        &self,
        name: &InstanceName,
        argv: &[&str],
        limit: Duration,
    ) -> Result<ExecOutput, Error> {
        let limit_s = format!("{:.1}", limit.as_secs_f64());
        let mut command = vec!["timeout", "--kill-after=1", &limit_s];
        command.extend_from_slice(argv);
        let body = json!({
            "command": command,
            "record-output": true,
            "wait-for-websocket": false,
            "interactive": false,
            "environment": { "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
        });
        let path = format!("/1.0/instances/{name}/exec");
        let request = Request::new(Method::POST, path).body(&body);
        let done = self
            .change(request, limit + Duration::from_secs(10))
            .await?;
        let code = done.get("return").and_then(Value::as_i64).unwrap_or(-1);
        let stdout = self.take_output(&done, "1").await?;
        let stderr = self.take_output(&done, "2").await?;
        Ok(ExecOutput {
            code,
            stdout,
            stderr,
        })
    }

    async fn take_output(&self, done: &Value, stream: &str) -> Result<String, Error> {
        let Some(path) = done
            .get("output")
            .and_then(|o| o.get(stream))
            .and_then(Value::as_str)
        else {
            return Ok(String::new());
        };
        let response = self.raw(&Request::new(Method::GET, path), None).await?;
        let bytes = response
            .bytes()
            .await
            .map_err(|e| Error::protocol(path, &e))?;
        // Best effort: a file left behind costs a few bytes until the instance is deleted.
        let _ = self.raw(&Request::new(Method::DELETE, path), None).await;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
