//! `partition`: the instance's network devices are masked, all of them.
//!
//! In real life: a cable is pulled, a switch port dies. It is a link that vanishes, not a silent
//! loss of packets: inside, the interface is gone and the kernel says so at once, while outside
//! nobody is told. The node goes on running and must find out by itself that it is alone; whether it
//! then stops taking writes is what keeps two primaries apart. It comes back without a boot, with
//! everything that it did meanwhile.

use super::{Progress, Target, Tried, Undo, UndoStep, Unfit};
use crate::incus::{Device, Error, Incus, Instance};

/// What a device is while it is masked (Incus' own documentation, devices of type `none`).
fn mask() -> Device {
    Device::from([("type".to_owned(), "none".to_owned())])
}

pub(super) fn steps(
    project: &str,
    target: &Target,
    found: &Instance,
) -> Result<Vec<UndoStep>, Unfit> {
    let nic = |device: &Device| device.get("type").is_some_and(|t| t == "nic");
    let all = found.expanded_devices.iter().filter(|(_, d)| nic(d));
    let mut steps = Vec::new();
    for (name, device) in all {
        let own = found.devices.get(name);
        let pinned = own.is_some_and(|own| {
            ["hwaddr", "ipv4.address"]
                .iter()
                .all(|key| own.get(*key).is_some_and(|value| !value.is_empty()))
        });
        let Some(own) = own.filter(|_| pinned) else {
            return Err(Unfit::UnpinnedDevice {
                instance: target.instance.clone(),
                device: name.clone(),
                command: pin_command(project, found, name, device, own.is_some()),
            });
        };
        steps.push(UndoStep::SetDevice {
            target: target.clone(),
            device: name.clone(),
            found: own.clone(),
        });
    }
    if steps.is_empty() {
        return Err(Unfit::NoDevice {
            instance: target.instance.clone(),
        });
    }
    Ok(steps)
}

/// The command that pins a device to the MAC and address that it has now.
fn pin_command(project: &str, found: &Instance, name: &str, device: &Device, own: bool) -> String {
    let verb = if own { "set" } else { "override" };
    let hwaddr = found.config.get(&format!("volatile.{name}.hwaddr"));
    let hwaddr = device.get("hwaddr").or(hwaddr);
    let hwaddr = hwaddr.map_or("MAC", String::as_str);
    let inside = device.get("name").map_or(name, String::as_str);
    let nic = found.nics.iter().find(|nic| nic.name == inside);
    let address = nic.and_then(|nic| nic.ipv4.first());
    let address = address.map_or_else(|| "ADDRESS".to_owned(), ToString::to_string);
    format!(
        "incus --project {project} config device {verb} {} {name} hwaddr={hwaddr} \
         ipv4.address={address}",
        found.name
    )
}

pub(super) async fn inject(incus: &Incus, target: &Target, undo: &Undo) -> Result<(), Error> {
    for step in &undo.steps {
        if let UndoStep::SetDevice {
            target: of,
            device,
            found,
        } = step
            && of == target
        {
            incus
                .set_device(&target.instance, device, found, &mask())
                .await?;
        }
    }
    Ok(())
}

pub(super) async fn seen(incus: &Incus, target: &Target) -> Option<String> {
    let found = incus.instance(&target.instance).await.ok()?;
    (found.init_pid == target.init_pid && found.nics.is_empty()).then(|| {
        format!(
            "{} runs with the same init process and without a network interface",
            target.instance
        )
    })
}

/// The device as it was found. One that is neither that nor masked was changed by somebody else
/// meanwhile, and stays.
pub(super) async fn undo(incus: &Incus, target: &Target, device: &str, found: &Device) -> Tried {
    let name = &target.instance;
    let instance = incus.instance(name).await?;
    let now = instance.devices.get(device);
    if now == Some(found) {
        // A mask that was asked for and is not there yet would come after us.
        return Ok(if incus.is_busy(name).await? {
            Progress::NotYet(format!("an operation on {name} is still under way"))
        } else {
            Progress::Done(format!("{device} is as it was found"))
        });
    }
    if now != Some(&mask()) {
        return Ok(Progress::NotYet(format!(
            "{device} of {name} is {now:?}, which somebody else has set: found was {found:?}"
        )));
    }
    incus.set_device(name, device, &mask(), found).await?;
    Ok(Progress::NotYet(format!("{device} was given back")))
}
