//! What pgbench prints: its result block and its standard error. Words of any other shape are not
//! guessed at.

/// The result block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// `number of clients`.
    pub clients: u64,
    /// `duration`, in seconds.
    pub duration_s: u64,
    /// `number of transactions actually processed`.
    pub processed: u64,
    /// `number of failed transactions`.
    pub failed: u64,
    /// Of these, serialization failures.
    pub serialization: u64,
    /// Of these, deadlocks.
    pub deadlocks: u64,
    /// `tps`; none when nothing was processed.
    pub tps: Option<f64>,
    /// `initial connection time`, or the average one of many.
    pub connection_ms: Option<f64>,
}

/// Reads the result block.
///
/// # Errors
/// A sentence that names what is missing.
pub fn parse(text: &str) -> Result<Summary, String> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let number = |name: &str| -> Result<u64, String> {
        let value = field(name).ok_or_else(|| format!("there is no line `{name}`"))?;
        let digits = value.trim().split([' ', '/']).next().unwrap_or_default();
        digits
            .parse()
            .map_err(|_| format!("`{name}` is no number: {value:?}"))
    };
    let float = |name: &str| {
        let value = field(name)?.trim().split(' ').next()?;
        value.parse::<f64>().ok().filter(|value| value.is_finite())
    };
    Ok(Summary {
        clients: number("number of clients:")?,
        duration_s: number("duration:")?,
        processed: number("number of transactions actually processed:")?,
        failed: number("number of failed transactions:")?,
        serialization: number("number of serialization failures:")?,
        deadlocks: number("number of deadlock failures:")?,
        tps: float("tps ="),
        connection_ms: float("initial connection time =")
            .or_else(|| float("average connection time =")),
    })
}

/// What one line of standard error is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// How it goes: for the live line.
    Progress(String),
    /// A connection that could not be made.
    Connection(String),
    /// A client that gave up, or any other error.
    Client(String),
    /// Belongs to the line before, or says nothing.
    Other,
}

/// Sorts a line of standard error. What is neither known nor a continuation is an error: nothing that
/// pgbench complains of is passed over.
pub fn line(text: &str) -> Line {
    let known = ["pgbench: ", "pgbench.exe: "];
    let words = known
        .iter()
        .find_map(|name| text.strip_prefix(name))
        .unwrap_or(text);
    if words.starts_with("progress: ") {
        return Line::Progress(words.to_owned());
    }
    let continued = [
        "\t",
        " ",
        "CONTEXT:",
        "DETAIL:",
        "HINT:",
        "LINE ",
        "STATEMENT:",
        "LOCATION:",
    ];
    let harmless = [
        "error: Run was aborted",
        "warning: ",
        "hint: ",
        "detail: ",
        "pgbench (",
        "vacuuming",
        "end.",
    ];
    if text.trim().is_empty()
        || continued.iter().any(|start| text.starts_with(start))
        || harmless.iter().any(|start| words.starts_with(start))
    {
        return Line::Other;
    }
    let connection = [
        "connection to server",
        "could not create connection",
        "aborted while establishing connection",
        "could not connect",
        "could not translate host name",
    ];
    match connection.iter().any(|part| words.contains(part)) {
        true => Line::Connection(words.to_owned()),
        false => Line::Client(words.to_owned()),
    }
}

/// The errors of a run, counted, with the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Connections that could not be made.
    pub connection: u64,
    /// Clients that gave up, and other lines of error.
    pub client: u64,
    /// The first lines.
    pub first: Vec<String>,
    /// What has no line end yet.
    rest: Vec<u8>,
}

/// How many lines of error are kept, and how much of each.
const FIRST: usize = 8;
const LONGEST: usize = 300;

impl Errors {
    /// Takes a piece of standard error; answers with the last line of progress in it.
    pub fn take(&mut self, piece: &[u8]) -> Option<String> {
        self.rest.extend_from_slice(piece);
        let whole = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let mut progress = None;
        for text in String::from_utf8_lossy(&lines).lines() {
            progress = self.count(text).or(progress);
        }
        progress
    }

    /// Nothing more will come.
    pub fn end(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        let _ = self.count(String::from_utf8_lossy(&rest).trim_end_matches('\n'));
    }

    fn count(&mut self, text: &str) -> Option<String> {
        let words = match line(text) {
            Line::Progress(words) => return Some(words),
            Line::Other => return None,
            Line::Connection(words) => {
                self.connection += 1;
                words
            }
            Line::Client(words) => {
                self.client += 1;
                words
            }
        };
        if self.first.len() < FIRST {
            self.first.push(words.chars().take(LONGEST).collect());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NORMAL: &str = "pgbench (17.12 (Debian 17.12-0+deb13u1))
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 1
query mode: simple
number of clients: 4
number of threads: 2
maximum number of tries: 1
duration: 2 s
number of transactions actually processed: 680
number of failed transactions: 0 (0.000%)
number of serialization failures: 0 (0.000%)
number of deadlock failures: 0 (0.000%)
latency average = 11.711 ms
latency stddev = 8.835 ms
initial connection time = 21.193 ms
tps = 340.354650 (without initial connection time)
";

    #[test]
    fn a_result_block_is_read() {
        let summary = parse(NORMAL).unwrap();
        assert_eq!((summary.clients, summary.duration_s), (4, 2));
        assert_eq!((summary.processed, summary.failed), (680, 0));
        assert_eq!(summary.tps, Some(340.354_65));
        assert_eq!(summary.connection_ms, Some(21.193));
        let nothing = "number of clients: 4\nduration: 2 s\nnumber of transactions actually processed: 0\n\
                       number of failed transactions: 0 (NaN%)\nnumber of serialization failures: 0 (NaN%)\n\
                       number of deadlock failures: 0 (NaN%)\n";
        assert_eq!(parse(nothing).unwrap().tps, None);
        let again = NORMAL.replace(
            "initial connection time = 21.193",
            "average connection time = 3.985",
        );
        assert_eq!(parse(&again).unwrap().connection_ms, Some(3.985));
    }

    #[test]
    fn other_words_are_not_guessed_at() {
        for gone in [
            "number of failed",
            "number of clients",
            "duration",
            "actually processed",
        ] {
            let text: Vec<&str> = NORMAL.lines().filter(|line| !line.contains(gone)).collect();
            assert!(
                parse(&text.join("\n")).unwrap_err().contains(gone),
                "{gone}"
            );
        }
        // As version 13 has it.
        let old = "transaction type: <builtin: TPC-B (sort of)>\nnumber of clients: 4\nduration: 2 s\n\
                   number of transactions actually processed: 680\n\
                   tps = 340.3 (including connections establishing)\n";
        assert!(parse(old).unwrap_err().contains("failed transactions"));
        assert!(parse("moo").is_err());
        assert!(parse(&NORMAL.replace("680", "many")).is_err());
    }

    #[test]
    fn every_complaint_counts_once_and_in_its_place() {
        let mut errors = Errors::default();
        let text = "progress: 1.0 s, 402.0 tps, lat 19.042 ms stddev 13.667, 0 failed
pgbench: error: client 4 script 0 aborted in command 7 query 0: FATAL:  terminating connection due to administrator command
CONTEXT:  while rechecking updated tuple (6,12) in relation \"pgbench_tellers\"
pgbench: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused
\tIs the server running on that host and accepting TCP/IP connections?
pgbench: error: client 9 aborted while establishing connection
progress: 2.0 s, 361.0 tps, lat 17.097 ms stddev 16.178, 0 failed
pgbench: error: Run was aborted; the above results are incomplete.
";
        let (one, other) = text.split_at(200);
        assert!(
            errors
                .take(one.as_bytes())
                .unwrap()
                .starts_with("progress: 1.0 s")
        );
        assert!(
            errors
                .take(other.as_bytes())
                .unwrap()
                .starts_with("progress: 2.0 s")
        );
        assert_eq!((errors.connection, errors.client), (2, 1));
        assert!(errors.first[0].contains("administrator command"));
        assert_eq!(errors.take(b"Segmentation fault"), None);
        errors.end();
        assert_eq!((errors.connection, errors.client), (2, 2));
    }
}
