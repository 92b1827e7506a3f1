//! The fault of this check: whichever node is primary now is stopped; proof that it is gone, and
//! later that it is back, comes from PostgreSQL's own protocol.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use veza_probe::clock::{self, Clock, within};
use veza_probe::fault::{self, Evidence, Fault, Healed, HealedStep, Kind, Plan, Target};
use veza_probe::incus::Incus;
use veza_probe::postgres;

use crate::baseline::client::postmaster_started;
use crate::baseline::{Baseline, Member};
use crate::cli::Args;

/// How long one question may stay without an answer to count as none.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// How long evidence is looked for after the injecting call.
const EVIDENCE_LIMIT: Duration = Duration::from_secs(10);

/// How long healing may take in all: two boots of a container and some.
pub const HEAL_LIMIT: Duration = Duration::from_secs(120);

/// What will be broken; none when there is no primary.
pub fn plan(baseline: &Baseline, args: &Args) -> Option<Plan> {
    let primary = baseline.primary()?;
    let target = Target {
        instance: primary.instance.clone(),
        init_pid: primary.init_pid,
    };
    let targets = if args.fault == Kind::None {
        Vec::new()
    } else {
        vec![target]
    };
    Some(Plan {
        system: system(args),
        kind: args.fault,
        targets,
        ttl_s: (args.max_fault() + HEAL_LIMIT).as_secs(),
    })
}

/// The system's name in reports.
pub fn system(args: &Args) -> String {
    format!(
        "formation {}/{} in project {}",
        args.formation, args.group, args.project
    )
}

/// Injects the fault and looks for evidence: the target gives no protocol answer while another node
/// does.
pub async fn inject(incus: &Incus, clock: &Clock, plan: &Plan, baseline: &Baseline) -> Fault {
    let mut fault = fault::inject(incus, clock, plan).await;
    let Some(primary) = baseline.primary().filter(|_| plan.kind != Kind::None) else {
        return fault;
    };
    let deadline = clock.at().plus(EVIDENCE_LIMIT);
    while fault.evidence.is_none() && clock.at() < deadline {
        fault.evidence = look(clock, primary, baseline).await;
        clock::sleep(Duration::from_millis(50)).await;
    }
    fault
}

async fn look(clock: &Clock, primary: &Member, baseline: &Baseline) -> Option<Evidence> {
    let silent = answer(primary.at.address).await.err()?;
    let nodes = baseline
        .others()
        .map(|m| (m.node.name.as_str(), m.at.address));
    // The monitor speaks the same protocol over the same network: it still tells our own blindness
    // from the target's silence when no other node is left.
    let monitor = ("the monitor", baseline.monitor.at.address);
    for (name, address) in nodes.chain([monitor]) {
        if let Ok(word) = answer(address).await {
            let target = format!("{} gives no protocol answer ({silent})", primary.node.name);
            let control = format!("{name} answers ({word})");
            return Some(Evidence {
                at: clock.at(),
                target,
                control,
            });
        }
    }
    None
}

/// Asks a server whether it speaks PostgreSQL: the request for TLS, which a postmaster answers with
/// one byte whatever state its database is in (`S`, `N`, or `E` for an error; protocol 3.0,
/// <https://www.postgresql.org/docs/17/protocol-flow.html#PROTOCOL-FLOW-SSL>).
async fn answer(address: SocketAddr) -> Result<String, String> {
    let ask = async {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        stream
            .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
            .await
            .map_err(|e| e.to_string())?;
        let byte = stream.read_u8().await.map_err(|e| e.to_string())?;
        Ok(format!(
            "'{}' to the request for TLS",
            char::from(byte).escape_default()
        ))
    };
    within(ANSWER_LIMIT, ask).await.map_err(|e| e.to_string())?
}

/// Undoes the fault, and proves it: Incus shows what was found, and the faulted postmaster answers
/// its own protocol, with a new start where it had been gone.
pub async fn heal(incus: &Incus, clock: &Clock, plan: &Plan, baseline: &Baseline) -> Healed {
    let mut healed = fault::heal(incus, clock, &plan.undo(), HEAL_LIMIT).await;
    if plan.targets.is_empty() || !healed.undone() {
        return healed;
    }
    if let Some(primary) = baseline.primary() {
        healed.steps.push(prove(clock, primary, baseline).await);
    }
    healed
}

/// Waits until the postmaster answers; its start time is told where it lets the client in already.
async fn prove(clock: &Clock, member: &Member, baseline: &Baseline) -> HealedStep {
    let began = clock.at();
    let step = format!("{} answers its protocol", member.node.name);
    let deadline = began.plus(HEAL_LIMIT);
    loop {
        let trouble = match answer(member.at.address).await {
            Ok(word) => {
                let done = Some(clock.at());
                let words = format!("{word}; {}", start_told(member, baseline).await);
                return HealedStep {
                    step,
                    began,
                    done,
                    words,
                };
            }
            Err(trouble) => trouble,
        };
        if clock.at() >= deadline {
            return HealedStep {
                step,
                began,
                done: None,
                words: trouble,
            };
        }
        clock::sleep(Duration::from_millis(100)).await;
    }
}

async fn start_told(member: &Member, baseline: &Baseline) -> String {
    let access = &baseline.client;
    let opened = postgres::connect(&member.at, &access.login, &access.tls, ANSWER_LIMIT).await;
    let started = match opened {
        Ok(session) => postmaster_started(&session).await,
        Err(error) => Err(error),
    };
    match started {
        Ok(us) if us == member.postmaster_started_us => "the same postmaster as before".to_owned(),
        Ok(_) => "a new postmaster".to_owned(),
        Err(_) => "the postmaster lets no client in yet".to_owned(),
    }
}
