//! `cargo xtask lab`: the real servers that the checks break, in Incus containers on this host.
//!
//! The modules stand in the order in which data flows: what is wanted (topology, roles, secrets), what
//! the host must have, what Incus must have, the instances, and what is told about them.

mod tale;
mod topology;
mod program;
mod token;
mod role;
mod programs;
mod verifier;
mod keep;
mod certificates;
mod packages;
mod host;
mod objects;
mod image;
mod golang;
mod plan;
mod site;
mod files;
mod ready;
mod provision;
mod snapshot;
mod status;
mod surroundings;
mod leavings;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use veza_probe::incus::{self, Incus};
use veza_probe::story::Story;

use certificates::Authority;
use image::Image;
pub use image::cache;
use keep::{Credentials, Keep};
pub use leavings::{Traits, traits, whole};
use packages::Missing;
use plan::Wanted;
use program::{GoProgramSpec, ProgramSpec};
use role::{PLACEHOLDER, Role, Tls};
use site::Site;
pub use status::Health;
use tale::Tale;
use topology::{Topology, Usage};

/// Arguments of `cargo xtask lab`.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 done (status: all healthy), 1 failed (status: not all healthy), \
                        3 a program, package or privilege is missing, 64 bad arguments."
)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
    /// Install nothing: stop with the list of what is missing (exit code 3).
    #[arg(long, global = true)]
    no_install: bool,
    /// Tell nothing but errors.
    #[arg(long, global = true)]
    quiet: bool,
    /// Another topology; its roles are in the folder `roles` beside it.
    #[arg(long, global = true, value_name = "FILE", env = "VEZA_LAB_TOPOLOGY")]
    topology: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Brings the lab up, and whatever differs from its description back to it. Needs root.
    Up {
        /// Only these groups, and those that they need.
        groups: Vec<String>,
    },
    /// Removes all of the lab, but neither packages nor the cache. Needs root.
    Down {
        /// Remove the cache, too.
        #[arg(long)]
        cache: bool,
    },
    /// Takes the lab back to the moment when it was healthy for the first time. Needs root.
    Reset {
        /// Only these groups.
        groups: Vec<String>,
    },
    /// Shows each instance with its health.
    Status {
        /// Only these groups.
        groups: Vec<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes the roles' files to a folder, to read or to use elsewhere.
    Render {
        /// Only these groups.
        groups: Vec<String>,
        /// The folder; each instance has its own in it.
        #[arg(long, value_name = "DIR", default_value = "rendered")]
        out: PathBuf,
        /// With the lab's real secrets instead of placeholders.
        #[arg(long)]
        with_secrets: bool,
    },
    /// Prints what a single check needs to be run by hand: eval "$(cargo xtask lab env)".
    Env,
}

/// Runs the command and tells an error by itself, so that the exit code can be its own.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let story = Story::new(args.quiet);
    let done = run_task(&args, &story).await;
    story.end();
    Ok(match done {
        Ok(code) => code,
        Err(error) => {
            // Errors are told also when quiet.
            Story::new(false).say(&format!("error: {error:#}"));
            ExitCode::from(exit_code(&error))
        }
    })
}

/// The exit code that belongs to an error of the lab.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let missing = |e: &(dyn std::error::Error + 'static)| {
        let denied = |e: &std::io::Error| e.kind() == std::io::ErrorKind::PermissionDenied;
        e.is::<Missing>()
            || e.downcast_ref().is_some_and(incus::Error::is_missing_tool)
            || e.downcast_ref().is_some_and(denied)
    };
    if error.chain().any(|e| e.is::<Usage>()) {
        64
    } else if error.chain().any(missing) {
        3
    } else {
        1
    }
}

async fn run_task(args: &Args, story: &Story) -> anyhow::Result<ExitCode> {
    let tale = Tale::new(story);
    let plan = Description::read(args.topology.as_deref())?;
    match &args.task {
        Task::Up { groups } => {
            up(&plan, groups, &tale, !args.no_install).await?;
        }
        Task::Down { cache } => down(&plan, *cache, &tale).await?,
        Task::Reset { groups } => reset_groups(&plan, groups, &tale).await?,
        Task::Status { groups, json } => return show_status(&plan, groups, *json).await,
        Task::Render {
            groups,
            out,
            with_secrets,
        } => render(&plan, groups, out, *with_secrets, &tale)?,
        Task::Env => {
            let lab = Lab::of(&plan)?;
            print(&surroundings::export_lines(&lab.env())?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A command's result, on stdout.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .context("writing to stdout")?;
    stdout.flush().context("writing to stdout")
}

/// What the lab should be, as the files in the tree describe it.
struct Description {
    topology: Topology,
    roles: BTreeMap<String, Role>,
    keep: Keep,
}

impl Description {
    fn read(topology: Option<&Path>) -> anyhow::Result<Description> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/topology.toml");
        let path = topology.unwrap_or(&own);
        let topology = Topology::read(path)?;
        let folder = path.parent().unwrap_or(Path::new(".")).join("roles");
        let mut roles = BTreeMap::new();
        for (_, spec) in topology.instances() {
            if !roles.contains_key(&spec.role) {
                roles.insert(spec.role.clone(), Role::read(&folder, &spec.role)?);
            }
        }
        check_order(&topology, &roles)?;
        let keep = Keep::new(topology.lab.project.as_str(), |name| std::env::var_os(name));
        Ok(Description {
            topology,
            roles,
            keep,
        })
    }

    fn role(&self, name: &str) -> anyhow::Result<&Role> {
        self.roles
            .get(name)
            .with_context(|| format!("no role {name}"))
    }

    fn secret_names(&self) -> impl Iterator<Item = &String> {
        self.roles.values().flat_map(|r| &r.secrets)
    }

    fn image(&self) -> Image {
        let packages = self.roles.values().flat_map(|r| r.packages.iter().cloned());
        Image::new(&self.topology.lab, packages.collect())
    }

    /// The instances of these groups with their files; group by group, in order.
    fn wanted(
        &self,
        groups: &[String],
        secrets: &BTreeMap<String, String>,
        tls: impl Fn(&topology::InstanceSpec) -> anyhow::Result<Tls>,
    ) -> anyhow::Result<Vec<Vec<Wanted<'_>>>> {
        let mut all = Vec::new();
        for group in self.topology.selected(groups)? {
            let mut wanted = Vec::new();
            for spec in &group.instances {
                let role = self.role(&spec.role)?;
                let tls = if role.tls { tls(spec)? } else { Tls::default() };
                wanted.push(Wanted {
                    spec,
                    group: &group.name,
                    role,
                    files: role.render(&self.topology, spec, secrets, &tls)?,
                });
            }
            all.push(wanted);
        }
        Ok(all)
    }
}

/// A step that waits for an instance which is made later would wait for ever.
fn check_order(topology: &Topology, roles: &BTreeMap<String, Role>) -> anyhow::Result<()> {
    let mut before = BTreeSet::new();
    for (_, spec) in topology.instances() {
        let creates = roles.get(&spec.role).map(|r| r.creates.as_slice());
        for after in creates.unwrap_or_default().iter().flat_map(|c| &c.after) {
            if after != spec.name.as_str() && !before.contains(after.as_str()) {
                bail!(
                    "{}: role {} waits for {after}, which is not before it in the topology",
                    spec.name,
                    spec.role
                );
            }
        }
        before.insert(spec.name.as_str());
    }
    Ok(())
}

fn ensure_root(what: &str) -> anyhow::Result<()> {
    if packages::is_root() {
        return Ok(());
    }
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("cargo xtask"));
    bail!(Missing(format!(
        "`lab {what}` changes this host (packages, the Incus daemon, a route, a kernel limit) and needs \
         root: sudo --preserve-env=XDG_CACHE_HOME,VEZA_STATE_DIR {} lab {what}",
        own.display()
    )))
}

/// A lab that was made, for what runs against it.
pub struct Lab {
    env: Vec<(String, String)>,
}

impl Lab {
    fn of(plan: &Description) -> anyhow::Result<Lab> {
        let credentials = plan.keep.credentials()?;
        credentials.with_context(|| {
            format!(
                "there is no lab in {}: run `cargo xtask lab up`",
                plan.keep.folder().display()
            )
        })?;
        let env =
            surroundings::variables(&plan.topology, &plan.keep, |name| std::env::var_os(name))?;
        Ok(Lab { env })
    }

    /// The variables that a check needs to find the lab; without secrets, which are in files that
    /// they name.
    pub fn env(&self) -> Vec<(String, String)> {
        self.env.clone()
    }
}

/// Brings groups up (all of them when none is named), whatever state they are in.
///
/// # Errors
/// With what was tried, on what, and what came back; [`exit_code`] tells which code belongs to it.
pub async fn ensure_up(groups: &[String], story: &Story, install: bool) -> anyhow::Result<Lab> {
    up(
        &Description::read(None)?,
        groups,
        &Tale::new(story),
        install,
    )
    .await
}

/// Takes groups back to their healthy snapshot (all of them when none is named).
///
/// # Errors
/// As [`ensure_up`].
pub async fn reset(groups: &[String], story: &Story) -> anyhow::Result<()> {
    reset_groups(&Description::read(None)?, groups, &Tale::new(story)).await
}

/// How each instance of these groups is (of all groups when none is named).
///
/// # Errors
/// When Incus does not answer or has no lab.
pub async fn healthy(groups: &[String]) -> anyhow::Result<Vec<Health>> {
    health_of(&Description::read(None)?, groups).await
}

async fn up(
    plan: &Description,
    groups: &[String],
    tale: &Tale,
    install: bool,
) -> anyhow::Result<Lab> {
    plan.topology.selected(groups)?;
    let groups = &plan.topology.with_needs(groups);
    ensure_root("up")?;
    let topology = &plan.topology;
    packages::ensure(tale, install).await?;
    let _lock = plan.keep.lock("lab up")?;
    let credentials = plan.keep.credentials_with(plan.secret_names())?;
    let authority = Authority::of(&plan.keep, tale.unix_seconds())?;
    let mut wanted = plan.wanted(groups, &credentials.secrets, |s| {
        authority.node(topology, s)
    })?;
    add_programs(&mut wanted, tale).await?;
    host::raise_inotify(&plan.keep, tale)?;
    host::add_route(&plan.keep, topology.lab.subnet, tale).await?;
    let incus = host::incus(&plan.keep, &topology.lab, tale).await?;
    objects::ensure(&incus, &topology.lab, &credentials.lab_id, tale).await?;
    let image = plan.image();
    // First, because an import that was cut off leaves the image without its name.
    image::remove_others(&incus, &image, tale).await?;
    image.ensure(&incus, tale).await?;
    let alias = image.alias();
    let site = Site {
        incus: &incus,
        lab: &topology.lab,
        tale,
        image: &alias,
    };
    let all: Vec<Wanted> = wanted.iter().flatten().cloned().collect();
    let instances = all.len();
    tale.say(&format!(
        "project {}: {instances} instances wanted",
        topology.lab.project
    ));
    site.converge(&all).await?;
    ready::wait_all(&site, &all).await?;
    ensure_snapshots(&site, &wanted).await?;
    surroundings::write_files(topology, &plan.keep, &credentials)?;
    tale.say(&format!(
        "the lab is up: {instances} instances healthy, {:.1} s",
        tale.seconds()
    ));
    Lab::of(plan)
}

/// Builds the programs that roles ask for, all at once, and adds them to their instances' files.
async fn add_programs(wanted: &mut [Vec<Wanted<'_>>], tale: &Tale) -> anyhow::Result<()> {
    let roles = || wanted.iter().flatten().map(|wanted| wanted.role);
    let binaries: BTreeSet<&str> = roles()
        .flat_map(|role| role.programs.iter().map(ProgramSpec::binary))
        .collect();
    let mut built = programs::build(&binaries, tale).await?;
    let from_source: BTreeSet<&GoProgramSpec> = roles().flat_map(|r| &r.go_programs).collect();
    for spec in from_source {
        let program = golang::ensure(spec, tale).await?;
        built.insert(spec.name().to_owned(), program);
    }
    for wanted in wanted.iter_mut().flatten() {
        wanted.files.extend(wanted.role.program_files(&built)?);
    }
    Ok(())
}

async fn ensure_snapshots(site: &Site<'_>, groups: &[Vec<Wanted<'_>>]) -> anyhow::Result<()> {
    let found = provision::found(site.incus).await?;
    for group in groups {
        let Some(first) = group
            .first()
            .filter(|_| !snapshot::is_current(&found, group))
        else {
            continue;
        };
        let what = format!("healthy snapshot of group {}, for `lab reset`", first.group);
        let step = async {
            snapshot::take(site, group).await?;
            ready::wait_all(site, group).await
        };
        site.tale.during(&what, step).await?;
    }
    Ok(())
}

/// Incus and the files that its instances should have, for commands that change neither.
async fn connect(plan: &Description) -> anyhow::Result<Incus> {
    let socket = incus::socket_path(|name| std::env::var_os(name));
    let (incus, _) = Incus::connect(&socket, plan.topology.lab.project.as_str()).await?;
    Ok(incus)
}

/// The instances of these groups without their files' text: enough to ask, start and restore them.
fn bare<'a>(plan: &'a Description, groups: &[String]) -> anyhow::Result<Vec<Vec<Wanted<'a>>>> {
    let mut all = Vec::new();
    for group in plan.topology.selected(groups)? {
        let mut wanted = Vec::new();
        for spec in &group.instances {
            wanted.push(Wanted {
                spec,
                group: &group.name,
                role: plan.role(&spec.role)?,
                files: Vec::new(),
            });
        }
        all.push(wanted);
    }
    Ok(all)
}

async fn reset_groups(plan: &Description, groups: &[String], tale: &Tale) -> anyhow::Result<()> {
    let wanted = bare(plan, groups)?;
    ensure_root("reset")?;
    let _lock = plan.keep.lock("lab reset")?;
    let incus = connect(plan).await?;
    let site = Site {
        incus: &incus,
        lab: &plan.topology.lab,
        tale,
        image: "",
    };
    let all: Vec<Wanted> = wanted.into_iter().flatten().collect();
    let restore = snapshot::restore(&site, &all);
    tale.during(&format!("restoring {} instances", all.len()), restore)
        .await?;
    ready::wait_all(&site, &all).await?;
    tale.say(&format!(
        "the lab is as it was when it was healthy, {:.1} s",
        tale.seconds()
    ));
    Ok(())
}

async fn health_of(plan: &Description, groups: &[String]) -> anyhow::Result<Vec<Health>> {
    let all: Vec<Wanted> = bare(plan, groups)?.into_iter().flatten().collect();
    match connect(plan).await {
        Ok(incus) => status::of(&incus, &all).await,
        Err(error) => match error.downcast_ref() {
            Some(incus::Error::NoProject { .. }) => Ok(status::absent(&all)),
            _ => Err(error),
        },
    }
}

async fn show_status(
    plan: &Description,
    groups: &[String],
    json: bool,
) -> anyhow::Result<ExitCode> {
    let all = health_of(plan, groups).await?;
    if json {
        print(&(serde_json::to_string_pretty(&all)? + "\n"))?;
    } else {
        print(&status::table(&all))?;
    }
    let healthy = !all.is_empty() && all.iter().all(|h| h.healthy);
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render(
    plan: &Description,
    groups: &[String],
    out: &Path,
    with_secrets: bool,
    tale: &Tale,
) -> anyhow::Result<()> {
    let placeholders = || {
        let names = plan.secret_names().cloned();
        names.map(|name| (name, PLACEHOLDER.to_owned())).collect()
    };
    let wanted = if with_secrets {
        ensure_root("render --with-secrets")?;
        let credentials: Credentials = plan
            .keep
            .credentials()?
            .with_context(|| format!("{} holds no credentials", plan.keep.folder().display()))?;
        let authority = Authority::of(&plan.keep, tale.unix_seconds())?;
        plan.wanted(groups, &credentials.secrets, |s| {
            authority.node(&plan.topology, s)
        })?
    } else {
        let tls = |what: &str| format!("({what}: see --with-secrets)");
        let tls = Tls {
            ca: tls("the authority's certificate"),
            cert: tls("the instance's certificate"),
            key: tls("the instance's key"),
        };
        plan.wanted(groups, &placeholders(), |_| Ok(tls.clone()))?
    };
    let mut count = 0;
    for wanted in wanted.iter().flatten() {
        for file in &wanted.files {
            let path = out
                .join(wanted.spec.name.as_str())
                .join(file.path.trim_start_matches('/'));
            keep::write_whole(&path, &file.content, file.mode)
                .with_context(|| format!("writing {}", path.display()))?;
            count += 1;
        }
    }
    tale.say(&format!("wrote {count} files to {}", out.display()));
    Ok(())
}

async fn down(plan: &Description, cache: bool, tale: &Tale) -> anyhow::Result<()> {
    ensure_root("down")?;
    let lab = &plan.topology.lab;
    let was_made = plan.keep.folder().exists();
    let _lock = plan.keep.lock("lab down")?;
    let incus = if was_made && packages::incusd().is_some() {
        Some(host::incus(&plan.keep, lab, tale).await?)
    } else {
        // Without notes of a lab the daemon is not started just to ask; if it runs, it is asked.
        connect(plan).await.ok()
    };
    if let Some(incus) = &incus {
        objects::remove(incus, lab, tale).await?;
        host::stop_incus(&plan.keep, incus, tale).await?;
    }
    let notes = plan.keep.notes()?;
    host::remove_route(&notes, tale).await?;
    host::restore_inotify(&notes, tale)?;
    let folder = plan.keep.folder();
    std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    if was_made {
        tale.say(&format!("removed the state folder {}", folder.display()));
    } else if incus.is_none() {
        tale.say("there is no lab here: nothing to remove");
    }
    if cache {
        return image::remove_cache(tale);
    }
    let cache = image::cache(|name| std::env::var_os(name))?;
    if cache.exists() {
        tale.say(&format!(
            "kept the cache {} for the next `lab up` (`lab down --cache` removes it), and all packages",
            cache.display()
        ));
    }
    Ok(())
}
