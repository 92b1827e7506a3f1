//! The way to a remote Incus ends in mid-drill, and does not come back: the timer on the Incus host undoes
//! the fault, and the check does not claim what it can't see.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use veza_probe::clock;

use super::kill;
use super::remote::{Found, command, run, trust, with_remote};
use crate::support::{Lab, MINUTE, Running};

/// A way to a port of this host that can be cut.
#[derive(Clone)]
struct Way(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    to: u16,
    cut: bool,
    open: Vec<TcpStream>,
}

impl Way {
    /// Begins at the port that is returned, until the test ends.
    fn begin() -> (Way, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let way = Way(Arc::default());
        let leads = way.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that is not let through sees its connection end.
                let _ = leads.lead(client);
            }
        });
        (way, own)
    }

    fn lead(&self, client: TcpStream) -> io::Result<()> {
        let mut ends = self.0.lock().unwrap();
        if ends.cut {
            return Ok(());
        }
        let server = TcpStream::connect(("127.0.0.1", ends.to))?;
        ends.open.extend([client.try_clone()?, server.try_clone()?]);
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            thread::spawn(move || {
                let _ = io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        Ok(())
    }

    fn cut(&self) {
        let mut ends = self.0.lock().unwrap();
        ends.cut = true;
        for end in ends.open.drain(..) {
            // It may have ended by itself.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.0.lock().unwrap().cut = false;
    }
}

/// The same command, on a host that has another boot: what its processes do can't be seen from the Incus
/// host.
fn on_another_host(lab: &Lab, command: &Command) -> Command {
    let boot = lab.folder.join("boot_id");
    std::fs::write(&boot, "00000000-0000-4000-8000-000000000000\n").unwrap();
    let script = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec \"$@\"";
    let mut there = Command::new("unshare");
    there.args(["--mount", "sh", "-c", script, "sh"]);
    there.arg(boot).arg(command.get_program());
    there.args(command.get_args());
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    there.envs(set);
    there
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn when_the_way_to_a_remote_is_cut_its_timer_heals_and_the_check_claims_nothing() {
    let lab = Lab::new("cut").await;
    let (way, port) = Way::begin();
    let to = |incus| {
        way.0.lock().unwrap().to = incus;
        port
    };
    let tested = async |folder: &Path, name: &str, _: &Found| {
        trust(folder, name);
        cut_and_healed(&lab, folder, &way).await;
    };
    with_remote(&lab, to, tested).await;
}

async fn cut_and_healed(lab: &Lab, folder: &Path, way: &Way) {
    let timer = || {
        let ran = lab.run(&["--recover", "--expired"]);
        ran.came_to(0, "clean", "nothing-left");
        ran
    };
    timer();
    let (primary, _) = lab.roles().await;
    let before = lab.as_it_is().await;
    // Its records and reports are its own, too.
    let runner = lab.with_folder(lab.folder.join("runner"));
    let args = ["--fault", "partition", "--max-fault", "5"];
    let mut check = on_another_host(lab, &command(&runner, folder, &args));
    let mut check = Running::of(check.stdin(Stdio::null()));
    let parted = async {
        while lab.instance(&primary).await.devices["eth0"]["type"] != "none" {
            assert!(check.runs(), "it ended before the fault");
            clock::sleep(Duration::from_millis(50)).await;
        }
    };
    clock::within(MINUTE, parted)
        .await
        .expect("the fault is in");
    way.cut();
    let key = lab.instance(&primary).await.config["user.veza.fault"].clone();
    let key: Value = serde_json::from_str(&key).unwrap();
    timer().says("has time until");
    let healed = async {
        while lab.as_it_is().await != before {
            clock::sleep(Duration::from_millis(500)).await;
            timer();
        }
    };
    clock::within(MINUTE, healed)
        .await
        .expect("the timer heals");
    assert!(check.runs(), "it goes on trying");
    // Its watchdog would go on for ten minutes more.
    kill(&[key["watchdog"]["pid"].to_string()]);
    let ran = runner.ran(&check.ended());
    ran.came_to(4, "not-undone", "fault-may-remain");
    ran.says("look now: pg-failover-check --remote lab --project veza-lab --recover");
    ran.says("`incus --project veza-lab list lab:`");
    assert_eq!(lab.as_it_is().await, before);
    // When the way is there again, the record is seen to have nothing left.
    let next = run(&runner, folder, &[]);
    next.came_to(3, "missing-tool", "incus-not-usable");
    way.mend();
    let next = run(&runner, folder, &[]);
    next.came_to(1, "refused", "fault-on-record");
    run(&runner, folder, &["--recover"]).came_to(0, "clean", "nothing-left");
    assert!(runner.records().is_empty());
    lab.until_whole().await;
}
