//! One session to one address under one limit, and the task that drives it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, SimpleQueryMessage, SimpleQueryRow, config,
};

use super::conninfo::{Conninfo, Host};
use super::failure::{Error, Kind, Opening, Step, sort};
use super::login::Login;
use super::options::{ChannelBinding, SslMode, Wanted};
use super::tls::Tls;
use crate::clock;
use crate::way::{Options, Stream, Way};

/// Where to connect: the address, and the name that the server's certificate must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host's name; with the port it also chooses the password from a password file.
    pub name: String,
    /// The address, found through Incus, `hostaddr` or a resolver.
    pub address: SocketAddr,
    /// From where it is reached.
    pub way: Way,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.parse() == Ok(self.address.ip()) {
            return write!(f, "{}", self.address);
        }
        write!(
            f,
            "{}:{} ({})",
            self.name,
            self.address.port(),
            self.address.ip()
        )
    }
}

impl Target {
    /// The targets of a host: its `hostaddr`, else the address that its name is, else every address
    /// that the system's resolver has for it.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] when there is none, [`Kind::Deadline`] when the resolver is slow.
    pub async fn resolve(host: &Host, limit: Duration) -> Result<Vec<Target>, Error> {
        let tried = || format!("looking up {}", host.name);
        let of = |address| Target {
            name: host.name.clone(),
            address,
            way: Way::Here,
        };
        if let Some(address) = host.hostaddr.or_else(|| host.name.parse::<IpAddr>().ok()) {
            return Ok(vec![of(SocketAddr::new(address, host.port))]);
        }
        let looked_up = tokio::net::lookup_host((host.name.as_str(), host.port));
        match clock::within(limit, looked_up).await {
            Ok(Ok(addresses)) => Ok(addresses.map(of).collect()),
            Ok(Err(source)) => Err(Error::Unreachable {
                tried: tried(),
                source,
            }),
            Err(_) => Err(Error::Deadline {
                tried: tried(),
                step: Step::Tcp,
                limit,
            }),
        }
    }
}

/// Notices and notifications of a session, in the order in which the server sent them. A notice that
/// belongs to a query is here before the query's result is. Nothing is lost while this is kept, so
/// read it or drop it.
pub type Messages = mpsc::UnboundedReceiver<AsyncMessage>;

/// An open session.
///
/// Dropping it closes the TCP connection without further words; it never sends a cancel request,
/// and a query that is under way on the server goes on there.
#[derive(Debug)]
pub struct Session {
    /// Keeps the connection going; dropping it drops the connection.
    pub driver: Driver,
    /// For queries.
    pub client: Client,
    /// Notices and notifications.
    pub messages: Messages,
    /// Whether this session is encrypted; with `sslmode=prefer` the server decides.
    pub encrypted: bool,
}

/// The task that moves a session's bytes. Dropped, it is aborted: the runtime drops the socket as
/// soon as it gets to it.
#[derive(Debug)]
pub struct Driver {
    tried: String,
    task: Option<JoinHandle<Result<(), tokio_postgres::Error>>>,
}

impl Driver {
    /// Waits until the connection is over; may be dropped and called again. A panic in the task is
    /// resumed here.
    ///
    /// # Errors
    /// Why it ended, when it wasn't this side that ended it by dropping the client.
    pub async fn ended(&mut self) -> Result<(), Error> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let joined = task.await;
        self.task = None;
        match joined {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::query(&self.tried, &error)),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Opens a session: TCP, TLS, authentication, all under `limit` (or `connect_timeout`, if that is
/// shorter). One attempt, one TCP connection; nothing is retried.
///
/// # Errors
/// [`Error`], sorted by [`Error::kind`]; each says where, as whom, and how far it came.
pub async fn connect(
    target: &Target,
    login: &Login,
    tls: &Tls,
    limit: Duration,
) -> Result<Session, Error> {
    let limit = login
        .conninfo
        .connect_timeout
        .map_or(limit, |own| own.min(limit));
    let progress = Progress::default();
    let tried = format!(
        "connecting to {target}, database {}, user {}",
        login.dbname, login.user
    );
    let attempt = open(target, login, tls, &progress, &tried);
    match clock::within(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Deadline {
            tried,
            step: progress.step(),
            limit,
        }),
    }
}

/// Opens a session to the first target that gives one of the kind that `target_session_attrs` asks
/// for. With `load_balance_hosts=random` the order is random. `limit` is for each target. As in
/// libpq, refused credentials end the search.
///
/// # Errors
/// [`Error::Several`] with what each target answered, or the refusal of credentials.
pub async fn connect_first(
    targets: &[Target],
    login: &Login,
    tls: &Tls,
    limit: Duration,
) -> Result<Session, Error> {
    let mut order: Vec<&Target> = targets.iter().collect();
    if login.conninfo.load_balance_hosts {
        order.sort_by_cached_key(|target| RandomState::new().hash_one(target.address));
    }
    let passes: &[Wanted] = match login.conninfo.target_session_attrs {
        Wanted::PreferStandby => &[Wanted::Standby, Wanted::Any],
        ref wanted => std::slice::from_ref(wanted),
    };
    let mut errors = Vec::new();
    for wanted in passes {
        errors.clear();
        for target in &order {
            match connect_wanted(target, login, tls, limit, *wanted).await {
                Ok(session) => return Ok(session),
                Err(error) if error.kind() == Kind::Credentials => return Err(error),
                Err(error) => errors.push(error),
            }
        }
    }
    Err(Error::Several(errors))
}

async fn connect_wanted(
    target: &Target,
    login: &Login,
    tls: &Tls,
    limit: Duration,
    wanted: Wanted,
) -> Result<Session, Error> {
    let session = connect(target, login, tls, limit).await?;
    let tried = || session.driver.tried.clone();
    match clock::within(limit, suits(&session.client, wanted)).await {
        Ok(Ok(true)) => Ok(session),
        Ok(Ok(false)) => Err(Error::NotWanted {
            tried: tried(),
            wanted,
        }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Deadline {
            tried: tried(),
            step: Step::Query,
            limit,
        }),
    }
}

/// Whether a session takes writes: `transaction_read_only` is off. Being out of recovery proves
/// nothing: a node that is being promoted may be held read-only by `default_transaction_read_only`.
///
/// # Errors
/// [`Error`] when the query fails.
pub async fn writable(client: &Client) -> Result<bool, Error> {
    Ok(one_row(client, "show transaction_read_only")
        .await?
        .first()
        .is_some_and(|v| v == "off"))
}

/// Whether a session is of the wanted kind, now. [`Wanted::PreferStandby`] takes any.
///
/// # Errors
/// [`Error`] when a query fails.
pub async fn suits(client: &Client, wanted: Wanted) -> Result<bool, Error> {
    let in_recovery = async {
        let row = one_row(client, "select pg_catalog.pg_is_in_recovery()").await?;
        Ok(row.first().is_some_and(|v| v == "t"))
    };
    match wanted {
        Wanted::Any | Wanted::PreferStandby => Ok(true),
        Wanted::ReadWrite => writable(client).await,
        Wanted::ReadOnly => writable(client).await.map(|writable| !writable),
        Wanted::Standby => in_recovery.await,
        Wanted::Primary => in_recovery.await.map(|standby: bool| !standby),
    }
}

/// The rows that a query gives, over the simple protocol, which every pooler passes on and its console
/// speaks alone.
///
/// # Errors
/// [`Error`] when the query fails, or takes longer than `limit`.
pub async fn rows(
    client: &Client,
    query: &str,
    limit: Duration,
) -> Result<Vec<SimpleQueryRow>, Error> {
    let Ok(answer) = clock::within(limit, client.simple_query(query)).await else {
        return Err(Error::Deadline {
            tried: query.to_owned(),
            step: Step::Query,
            limit,
        });
    };
    let answer = answer.map_err(|error| Error::query(query, &error))?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

/// The values of a query's first row as text, over the simple protocol, which every pooler passes on.
async fn one_row(client: &Client, query: &str) -> Result<Vec<String>, Error> {
    let answer = client
        .simple_query(query)
        .await
        .map_err(|error| Error::query(query, &error))?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else {
        let reason = "no row came back".to_owned();
        return Err(Error::Protocol {
            tried: query.to_owned(),
            reason,
        });
    };
    Ok((0..row.len())
        .map(|i| row.get(i).unwrap_or_default().to_owned())
        .collect())
}

/// How far a connection has come; shared with the TLS connector.
#[derive(Clone, Default)]
struct Progress(Arc<AtomicU8>);

impl Progress {
    const STEPS: [Step; 4] = [
        Step::Tcp,
        Step::Negotiation,
        Step::TlsHandshake,
        Step::Startup,
    ];

    fn reach(&self, step: Step) {
        let index = Progress::STEPS.iter().position(|s| *s == step).unwrap_or(0);
        self.0
            .store(u8::try_from(index).unwrap_or(0), Ordering::Relaxed);
    }

    fn step(&self) -> Step {
        let index = usize::from(self.0.load(Ordering::Relaxed));
        Progress::STEPS.get(index).copied().unwrap_or(Step::Startup)
    }
}

/// All of [`connect`] but the limit.
async fn open(
    target: &Target,
    login: &Login,
    tls: &Tls,
    progress: &Progress,
    tried: &str,
) -> Result<Session, Error> {
    let options = socket_options(&login.conninfo);
    let dialled = target.way.dial(target.address, &options).await;
    let stream = dialled.map_err(|source| Error::Unreachable {
        tried: tried.to_owned(),
        source,
    })?;
    let (host, port) = (target.name.as_str(), target.address.port());
    let config = startup(login, tls.mode(), host, port);
    let failed = |error: &tokio_postgres::Error| {
        let password = login.password_source(host, port);
        let opening = Opening {
            mode: tls.mode(),
            password,
        };
        sort(tried.to_owned(), progress.step(), error, Some(opening))
    };
    match tls.connector() {
        None => {
            progress.reach(Step::Startup);
            let opened = config.connect_raw(stream, NoTls).await;
            let (client, connection) = opened.map_err(|error| failed(&error))?;
            Ok(session(client, connection, tried, false))
        }
        Some(mut connector) => {
            progress.reach(Step::Negotiation);
            let domain = match ServerName::try_from(host) {
                Err(_) if !tls.checks_name() => target.address.ip().to_string(),
                _ => host.to_owned(),
            };
            let made = MakeTlsConnect::<Stream>::make_tls_connect(&mut connector, &domain);
            let inner = match made {
                Ok(inner) => inner,
                Err(never) => match never {},
            };
            let noted = Noted {
                inner,
                progress: progress.clone(),
            };
            let opened = config.connect_raw(stream, noted).await;
            let (client, connection) = opened.map_err(|error| failed(&error))?;
            let encrypted = progress.step() == Step::Startup;
            Ok(session(client, connection, tried, encrypted))
        }
    }
}

/// The socket options that libpq sets, before the handshake as libpq does.
fn socket_options(conninfo: &Conninfo) -> Options {
    let keepalives = &conninfo.keepalives;
    Options {
        nodelay: true,
        keepalive: keepalives.on,
        keepalive_idle: keepalives.idle,
        keepalive_interval: keepalives.interval,
        keepalive_count: keepalives.count,
        user_timeout: conninfo.tcp_user_timeout,
    }
}

/// What tokio-postgres must know for the startup; it never sees host or port.
fn startup(login: &Login, mode: SslMode, host: &str, port: u16) -> Config {
    let mut config = Config::new();
    config.user(&login.user).dbname(&login.dbname);
    if let Some(password) = login.password(host, port) {
        config.password(password.expose());
    }
    if let Some(options) = &login.conninfo.options {
        config.options(options);
    }
    if let Some(name) = &login.conninfo.application_name {
        config.application_name(name);
    }
    config.ssl_mode(match mode {
        SslMode::Disable => config::SslMode::Disable,
        SslMode::Allow | SslMode::Prefer => config::SslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => config::SslMode::Require,
    });
    config.channel_binding(match login.conninfo.channel_binding {
        ChannelBinding::Disable => config::ChannelBinding::Disable,
        ChannelBinding::Prefer => config::ChannelBinding::Prefer,
        ChannelBinding::Require => config::ChannelBinding::Require,
    });
    config
}

fn session<S, T>(
    client: Client,
    connection: Connection<S, T>,
    tried: &str,
    encrypted: bool,
) -> Session
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, messages) = mpsc::unbounded_channel();
    let task = Some(tokio::spawn(drive(connection, sender)));
    let driver = Driver {
        tried: tried.replacen("connecting", "connected", 1),
        task,
    };
    Session {
        driver,
        client,
        messages,
        encrypted,
    }
}

/// Moves bytes until the connection ends, and passes on what the server sends unasked.
async fn drive<S, T>(
    mut connection: Connection<S, T>,
    messages: mpsc::UnboundedSender<AsyncMessage>,
) -> Result<(), tokio_postgres::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        // Nobody listening is fine.
        let _ = messages.send(message?);
    }
    Ok(())
}

/// A TLS connector that notes when the handshake starts, which happens only once the server has
/// agreed to TLS, and when it is done.
struct Noted<T> {
    inner: T,
    progress: Progress,
}

impl<S, T> TlsConnect<S> for Noted<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = T::Stream;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<T::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let Noted { inner, progress } = self;
        progress.reach(Step::TlsHandshake);
        let handshake = inner.connect(stream);
        Box::pin(async move {
            let stream = handshake.await?;
            progress.reach(Step::Startup);
            Ok(stream)
        })
    }
}

#[cfg(test)]
mod tests;
