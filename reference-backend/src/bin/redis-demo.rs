//! redis-demo: uses the lab's Redis as the servers of the application do, all the time and modestly, and tells
//! Prometheus how it went.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Parser;
use prometheus_client::registry::Registry;
use reference_backend::redis::chat::Chat;
use reference_backend::redis::metrics::{self, CONTENT_TYPE};
use reference_backend::redis::presence::Presence;
use reference_backend::redis::rate_limiter::{Limit, RateLimiter};
use reference_backend::redis::{CacheMetrics, Config, Link};
use tokio::net::TcpListener;
use veza_probe::arguments::Said;
use veza_probe::clock::{Stop, sleep};
use veza_probe::story::Story;
use veza_probe::verdict::Verdict;

/// How many users and rooms there are; few, so that keys are used again.
const USERS: u64 = 20;

/// Uses Redis as the servers of the application do, and answers GET /metrics.
///
/// Redis is found by REDIS_SENTINEL_ADDRS (HOST:PORT,…) and REDIS_SENTINEL_MASTER_NAME, or else by REDIS_URL. Logins:
/// REDIS_USERNAME, REDIS_PASSWORD, REDIS_SENTINEL_USERNAME, REDIS_SENTINEL_PASSWORD; a password, and the URL, may also be
/// in a file that NAME_FILE names. While Redis is away memory answers, and the story says why.
#[derive(Debug, Parser)]
#[command(name = "redis-demo", version, verbatim_doc_comment)]
struct Args {
    /// Answers HTTP with metrics for Prometheus here.
    #[arg(
        long,
        env = "REDIS_DEMO_METRICS",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9130"
    )]
    metrics: SocketAddr,

    /// Rounds in a second. A round is a request to limit, a user to announce and one to find, and a message.
    #[arg(
        long,
        env = "REDIS_DEMO_PER_SECOND",
        value_name = "NUMBER",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    per_second: u32,

    /// The name of this server among all that use the same Redis.
    #[arg(
        long,
        env = "REDIS_DEMO_NAME",
        value_name = "NAME",
        default_value = "redis-demo"
    )]
    name: String,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => match Said::from(&error) {
            Said::Asked(text) => {
                let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
                return ExitCode::SUCCESS;
            }
            Said::Wrong(words) => return ended(Verdict::Usage, &words),
        },
    };
    let config = match Config::from_env(|name| std::env::var_os(name)) {
        Ok(config) => config,
        Err(error) => return ended(Verdict::Usage, &error.to_string()),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let words = format!("starting the runtime failed: {error}");
            return ended(Verdict::MissingTool, &words);
        }
    };
    let code = runtime.block_on(run(args, config));
    runtime.shutdown_background();
    code
}

async fn run(args: Args, config: Config) -> ExitCode {
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            let words = format!("installing signal handlers failed: {error}");
            return ended(Verdict::MissingTool, &words);
        }
    };
    let listener = TcpListener::bind(args.metrics).await;
    let listener = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = match listener {
        Ok(listens) => listens,
        Err(error) => {
            let words = format!("listening on {} for metrics: {error}", args.metrics);
            return ended(Verdict::MissingTool, &words);
        }
    };
    let story = Story::new(false);
    story.end();
    story.say(&format!("metrics are at http://{address}/metrics"));
    let mut registry = Registry::default();
    let link = Link::start(config, CacheMetrics::register(&mut registry));
    let app = Router::new()
        .route("/metrics", get(told))
        .with_state(Arc::new(registry));
    tokio::select! {
        served = async { axum::serve(listener, app).await } => {
            ended(Verdict::Internal, &format!("the endpoint of metrics ended: {served:?}"))
        }
        () = drive(&args, &link) => ended(Verdict::Internal, "the load ended"),
        () = say(&link, &story) => ended(Verdict::Internal, "the link to Redis ended"),
        signal = stop.wait() => ExitCode::from(Verdict::Interrupted(signal).code()),
    }
}

async fn told(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    match metrics::text(&registry) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT_TYPE)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

/// Rounds without an end. What comes of one is counted, nothing else.
async fn drive(args: &Args, link: &Link) {
    let limit = Limit {
        requests: 20,
        window: Duration::from_secs(10),
    };
    let limiter = RateLimiter::new(link.clone(), limit);
    let presence = Presence::new(link.clone(), &args.name, Duration::from_secs(30));
    let chat = Chat::start(link.clone(), &args.name);
    let pause = Duration::from_secs(1) / args.per_second;
    for round in 0_u64.. {
        let user = format!("user-{}", round % USERS);
        limiter.check(&user).await;
        presence.announce(&user).await;
        // Every second one is a user that nobody has ever announced.
        presence
            .find(&format!("user-{}", round % (2 * USERS)))
            .await;
        chat.say(&format!("room-{}", round % USERS), "hello").await;
        sleep(pause).await;
    }
}

/// Says where requests go, whenever that changes.
async fn say(link: &Link, story: &Story) {
    let mut master = link.master();
    loop {
        let at = master.borrow_and_update().as_ref().map(|m| m.address());
        story.say(&match at {
            Some(at) => format!("requests go to {at}"),
            None => {
                let problem = link.problem();
                let problem = problem.unwrap_or_else(|| "the connection was lost".to_owned());
                format!("memory answers: {problem}")
            }
        });
        if master.changed().await.is_err() {
            return;
        }
    }
}

fn ended(verdict: Verdict, words: &str) -> ExitCode {
    let story = Story::new(false);
    story.end();
    story.say(&format!("{verdict}: {words}"));
    ExitCode::from(verdict.code())
}
