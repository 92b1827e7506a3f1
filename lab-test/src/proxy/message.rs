//! HTTP messages as they pass, and what a changing request to Incus changes.

use std::io::{self, BufRead, Read, Write};

use serde_json::Value;

/// First line and headers of a message, with the empty line after them.
pub struct Head {
    /// As it came.
    pub raw: Vec<u8>,
    text: String,
}

impl Head {
    /// Reads the next head; an error when there is none.
    pub fn read(from: &mut dyn BufRead) -> io::Result<Head> {
        let mut raw = Vec::new();
        while !pass_line(from, &mut raw)?.is_empty() {}
        let text = String::from_utf8_lossy(&raw).into_owned();
        Ok(Head { raw, text })
    }

    /// A word of the first line, from 0.
    pub fn word(&self, number: usize) -> &str {
        let first = self.text.lines().next().unwrap_or_default();
        first.split(' ').nth(number).unwrap_or_default()
    }

    /// A request's path without its query.
    pub fn path(&self) -> &str {
        self.word(1).split('?').next().unwrap_or_default()
    }

    /// Whether a request changes something that matters.
    pub fn is_changing(&self) -> bool {
        match self.word(0) {
            "POST" | "PUT" | "PATCH" => true,
            // Recorded output of a command is removed when it was read.
            "DELETE" => !self.path().contains("/logs/"),
            _ => false,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.text.lines().filter_map(|line| line.split_once(':'));
        headers
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// How the end of its body is told, if it is.
    pub fn framing(&self) -> Option<Framing> {
        if self.header("transfer-encoding").is_some() {
            return Some(Framing::Chunked);
        }
        let length = self.header("content-length")?;
        length.parse().ok().map(Framing::Length)
    }

    /// What a changing request changes, in a few words; empty when its body doesn't tell.
    pub fn details(&self, body: &[u8]) -> String {
        // An uploaded file may be JSON, too.
        if self.path().ends_with("/files") {
            return String::new();
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(action) = body["action"].as_str() {
            action.to_owned()
        } else if self.path().ends_with("/exec") {
            first_words(&body["command"])
        } else if let (Some(keys), "PATCH") = (body.as_object(), self.word(0)) {
            let changed = keys.iter().map(|(key, value)| {
                let inner = value.as_object().into_iter().flat_map(|inner| inner.keys());
                let words: Vec<&str> = [key].into_iter().chain(inner).map(String::as_str).collect();
                words.join(" ")
            });
            changed.collect::<Vec<_>>().join(", ")
        } else {
            String::new()
        }
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy)]
pub enum Framing {
    /// By a count of its bytes.
    Length(u64),
    /// By a chunk of size 0.
    Chunked,
    /// By the end of the connection.
    ToEnd,
}

impl Framing {
    /// Passes a body on as it comes.
    pub fn pass(self, from: &mut dyn BufRead, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Framing::Length(length) => pass_bytes(from, length, to),
            Framing::ToEnd => io::copy(from, to).map(drop),
            Framing::Chunked => {
                loop {
                    let size = chunk_size(&pass_line(from, to)?)?;
                    if size == 0 {
                        break;
                    }
                    pass_bytes(from, size, to)?;
                    pass_line(from, to)?;
                }
                while !pass_line(from, to)?.is_empty() {}
                Ok(())
            }
        }
    }

    /// A body that was passed, without its chunks' sizes.
    pub fn plain(self, body: &[u8]) -> Vec<u8> {
        let (mut rest, mut plain) = (body, Vec::new());
        if !matches!(self, Framing::Chunked) {
            return body.to_vec();
        }
        loop {
            let line = pass_line(&mut rest, &mut io::sink());
            match line.and_then(|line| chunk_size(&line)) {
                Ok(size) if size > 0 => pass_bytes(&mut rest, size, &mut plain).unwrap(),
                _ => return plain,
            }
            pass_line(&mut rest, &mut io::sink()).unwrap();
        }
    }
}

fn chunk_size(line: &str) -> io::Result<u64> {
    let digits = line.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(io::Error::other)
}

/// Passes a line on, and returns it without its end.
fn pass_line(from: &mut dyn BufRead, to: &mut dyn Write) -> io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(&line)?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn pass_bytes(from: &mut dyn BufRead, length: u64, to: &mut dyn Write) -> io::Result<()> {
    if io::copy(&mut from.take(length), to)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn first_words(command: &Value) -> String {
    let argv = command.as_array().into_iter().flatten();
    let text: Vec<&str> = argv.filter_map(Value::as_str).collect();
    let text = text.join(" ");
    let mut words = text.split_whitespace().peekable();
    // `Incus::exec` puts a limit around each command, which may differ from run to run.
    if words.next_if_eq(&"timeout").is_some() {
        while words.next_if(|word| word.starts_with('-')).is_some() {}
        words.next();
    }
    words.take(6).collect::<Vec<_>>().join(" ")
}
