//! Roles: what an instance holds, as data (`role.toml`) and templates. Reading and rendering only;
//! nothing here knows Incus.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::program::{Built, GoProgramSpec, ProgramSpec};
use super::token;
use super::topology::{InstanceSpec, LAB_ENVIRONMENT, LabSpec, Topology};

/// What a secret is where its value must not be told. It opens nothing, and real environments refuse
/// it.
pub const PLACEHOLDER: &str = "changeme-DEV-ONLY";

/// How long a `create` step may take unless it says otherwise.
fn create_limit_s() -> u64 {
    180
}

/// A role as its file describes it, with the text of its templates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// One line for people.
    #[serde(rename = "description")]
    _description: String,
    /// The secrets that its templates may use.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// The Debian packages that the base image must have.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Whether its templates use a certificate.
    #[serde(default)]
    pub tls: bool,
    /// Defaults of its variables; an instance may override these and no others.
    #[serde(default)]
    pub vars: toml::Table,
    /// Its files.
    #[serde(default, rename = "file")]
    pub files: Vec<FileSpec>,
    /// Programs of this workspace.
    #[serde(default, rename = "program")]
    pub programs: Vec<ProgramSpec>,
    /// Programs that are built from their public source with Go.
    #[serde(default, rename = "go_program")]
    pub go_programs: Vec<GoProgramSpec>,
    /// Its systemd units, enabled and started in this order.
    #[serde(default, rename = "unit")]
    pub units: Vec<Unit>,
    /// What is run once, before the units are started.
    #[serde(default, rename = "create")]
    pub creates: Vec<Create>,
    /// What says that the instance is ready for use.
    #[serde(default, rename = "ready")]
    pub readies: Vec<Ready>,
    #[serde(skip)]
    templates: BTreeMap<String, String>,
}

/// What a change of a file means for an instance that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Nothing: the file is written at creation only.
    Seed,
    /// The units take it over while they run.
    Reload,
    /// The units are restarted.
    Restart,
    /// The instance is deleted and made anew.
    Recreate,
}

/// One file of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// A file of the role's folder.
    template: Option<String>,
    /// Instead: a file of the topology's folder that is taken as it is, for text with braces of its own.
    copy: Option<String>,
    path: String,
    owner: String,
    group: String,
    #[serde(deserialize_with = "octal")]
    mode: u32,
    change: Change,
}

impl FileSpec {
    /// The file that its text comes from: its name, and its path from the role's folder.
    fn source(&self) -> anyhow::Result<(&str, String)> {
        match (&self.template, &self.copy) {
            (Some(template), None) => {
                let plain = !template.contains('/');
                ensure!(plain, "template {template:?} is not in the folder");
                Ok((template, template.clone()))
            }
            (None, Some(copy)) => {
                let good = !copy.starts_with('/') && !copy.split('/').any(|p| p == "..");
                ensure!(good, "{copy:?} is no path in the topology's folder");
                Ok((copy, format!("../../{copy}")))
            }
            _ => bail!("{}: either `template` or `copy`", self.path),
        }
    }
}

fn octal<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no mode such as \"0644\"")))
}

/// One systemd unit of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its name, with its suffix.
    pub name: String,
    /// What takes changed files over; else `systemctl reload`.
    pub reload: Option<Vec<String>>,
    /// What restarts it; else `systemctl restart`.
    pub restart: Option<Vec<String>>,
}

/// A step that is run once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The command.
    pub run: Vec<String>,
    /// The path whose existence says that it was done.
    pub creates: String,
    /// Instances that must have been made before.
    #[serde(default)]
    pub after: Vec<String>,
    /// How long it may take.
    #[serde(default = "create_limit_s")]
    pub limit_s: u64,
}

/// A command that succeeds once the instance is ready; its last line says what it saw.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// The command.
    pub run: Vec<String>,
    /// How long it may take to become ready.
    pub limit_s: u64,
}

/// A certificate with its key, and the authority that signed it, as PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authority's certificate.
    pub ca: String,
    /// The node's certificate.
    pub cert: String,
    /// The node's key.
    pub key: String,
}

/// A file as an instance should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its path.
    pub path: String,
    /// The user that owns it.
    pub owner: String,
    /// The group that owns it.
    pub group: String,
    /// Its mode.
    pub mode: u32,
    /// What a change of it means.
    pub change: Change,
    /// Its content.
    pub content: Arc<Vec<u8>>,
    /// What stands for the content in the digest, where that is long and its SHA-256 known.
    pub sum: Option<String>,
}

impl Rendered {
    /// A short digest of all that makes the file what it is.
    pub fn digest(&self) -> String {
        let owner = format!("{}\0{}\0{:o}\0", self.owner, self.group, self.mode);
        let content = self.sum.as_ref().map_or(&**self.content, String::as_bytes);
        short_digest([owner.as_bytes(), content])
    }
}

/// The first 16 hexadecimal digits of a SHA-256.
pub fn short_digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

impl Role {
    /// Reads a role's folder.
    ///
    /// # Errors
    /// When `role.toml` or a template is missing, or says something it can't mean.
    pub fn read(roles: &Path, name: &str) -> anyhow::Result<Role> {
        let folder = roles.join(name);
        let path = folder.join("role.toml");
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let role = Role::parse(&read(&path)?, |template| read(&folder.join(template)));
        role.with_context(|| format!("in {}", path.display()))
    }

    fn parse(
        text: &str,
        template: impl Fn(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Role> {
        let mut role: Role = toml::from_str(text)?;
        let mut paths = BTreeSet::new();
        let programs = role.programs.iter().map(|program| &program.path);
        let go_programs = role.go_programs.iter().map(|program| &program.path);
        let programs = programs.chain(go_programs);
        for path in role.files.iter().map(|file| &file.path).chain(programs) {
            let good = path.starts_with('/') && !path.split('/').any(|p| p == "..");
            ensure!(good, "{path:?} is not an absolute path of an instance");
            ensure!(paths.insert(path), "{path} twice");
        }
        for file in &role.files {
            let (name, from) = file.source()?;
            role.templates.insert(name.to_owned(), template(&from)?);
        }
        let commands = role.creates.iter().map(|c| &c.run);
        let mut commands = commands.chain(role.readies.iter().map(|r| &r.run));
        ensure!(commands.all(|c| !c.is_empty()), "run = [] runs nothing");
        Ok(role)
    }

    /// The role's variables as an instance has them.
    fn vars(&self, spec: &InstanceSpec) -> anyhow::Result<toml::Table> {
        let mut vars = self.vars.clone();
        for (name, value) in &spec.vars {
            let known = vars.insert(name.clone(), value.clone()).is_some();
            ensure!(
                known,
                "{}: role {} has no variable {name}",
                spec.name,
                spec.role
            );
        }
        Ok(vars)
    }

    /// The role's files as one instance should have them.
    ///
    /// # Errors
    /// When a secret is missing, is the placeholder outside the lab, or a template uses a name that
    /// is not defined.
    pub fn render(
        &self,
        topology: &Topology,
        spec: &InstanceSpec,
        secrets: &BTreeMap<String, String>,
        tls: &Tls,
    ) -> anyhow::Result<Vec<Rendered>> {
        let secrets = self.own_secrets(spec, &topology.lab, secrets)?;
        let tls = if self.tls {
            context! { ca => tls.ca.trim_end(), cert => tls.cert.trim_end(), key => tls.key.trim_end() }
        } else {
            context! {}
        };
        let values = context! {
            instance => instance_value(topology, topology.group_of(spec), spec),
            vars => Value::from(Serde(self.vars(spec)?)),
            secrets => Value::from(Serde(secrets)),
            tls,
            ..shared_values(topology)
        };
        let templates = templates();
        let render = |file: &FileSpec| {
            let (name, _) = file.source()?;
            let text = self.templates.get(name);
            let mut text = text.cloned().unwrap_or_default();
            if file.template.is_some() {
                text = templates
                    .render_named_str(name, &text, &values)
                    .with_context(|| format!("role {} for instance {}", spec.role, spec.name))?;
            }
            Ok(Rendered {
                path: file.path.clone(),
                owner: file.owner.clone(),
                group: file.group.clone(),
                mode: file.mode,
                change: file.change,
                content: Arc::new(text.into_bytes()),
                sum: None,
            })
        };
        self.files.iter().map(render).collect()
    }

    /// The role's programs as files; `built` holds what was built, by name.
    ///
    /// # Errors
    /// When one was not built.
    pub fn program_files(&self, built: &BTreeMap<String, Built>) -> anyhow::Result<Vec<Rendered>> {
        let own = self.programs.iter();
        let own = own.map(|program| (program.binary(), &program.path, Change::Reload));
        let go = self.go_programs.iter();
        let go = go.map(|program| (program.name(), &program.path, Change::Restart));
        let file = |(name, path, change): (&str, &String, Change)| {
            let built = built.get(name);
            let built = built.with_context(|| format!("{name} was not built"))?;
            Ok(Rendered {
                path: path.clone(),
                owner: "root".to_owned(),
                group: "root".to_owned(),
                mode: 0o755,
                change,
                content: Arc::clone(&built.bytes),
                sum: built.sum.clone(),
            })
        };
        own.chain(go).map(file).collect()
    }

    /// The secrets that the role declares. Others are out of its reach.
    fn own_secrets<'a>(
        &'a self,
        spec: &InstanceSpec,
        lab: &LabSpec,
        all: &'a BTreeMap<String, String>,
    ) -> anyhow::Result<BTreeMap<&'a str, &'a str>> {
        let mut own = BTreeMap::new();
        for name in &self.secrets {
            let value = all.get(name);
            let value = value.with_context(|| format!("role {}: no secret {name}", spec.role))?;
            if lab.environment != LAB_ENVIRONMENT && value == PLACEHOLDER {
                bail!(
                    "role {}: secret {name} is the placeholder {PLACEHOLDER}, which is refused in \
                     the environment {:?}: set a real one in the credentials file",
                    spec.role,
                    lab.environment
                );
            }
            own.insert(name.as_str(), value.as_str());
        }
        Ok(own)
    }
}

/// What every template may use: `lab` and `instances`.
pub fn shared_values(topology: &Topology) -> Value {
    let lab = &topology.lab;
    let instances: Vec<Value> = topology
        .instances()
        .map(|(group, spec)| instance_value(topology, group, spec))
        .collect();
    context! {
        lab => context! {
            project => lab.project.as_str(),
            domain => lab.domain.as_str(),
            subnet => lab.subnet.to_string(),
            gateway => lab.gateway.to_string(),
            environment => lab.environment.as_str(),
        },
        instances,
    }
}

fn instance_value(topology: &Topology, group: &str, spec: &InstanceSpec) -> Value {
    context! {
        name => spec.name.as_str(),
        role => spec.role.as_str(),
        address => spec.address.to_string(),
        host => format!("{}.{}", spec.name, topology.lab.domain),
        group,
    }
}

/// Templates are strict: a name that is not defined is an error, and text is left as it is written.
pub fn templates() -> Environment<'static> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_auto_escape_callback(|_| AutoEscape::None);
    templates.add_function("metrics_token", token::of);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        templates.set_syntax(syntax);
    }
    templates
}

#[cfg(test)]
pub mod tests {
    use super::super::topology::tests::small;
    use super::*;

    const ROLE: &str = r#"
description = "a test"
secrets = ["password"]
tls = true
vars = { port = 1 }
[[file]]
template = "t.j2"
path = "/etc/t"
owner = "root"
group = "root"
mode = "0640"
change = "reload"
"#;

    fn role(template: &str) -> Role {
        Role::parse(ROLE, |_| Ok(template.to_owned())).unwrap()
    }

    fn render(template: &str, environment: &str, password: &str) -> anyhow::Result<String> {
        let mut topology = small();
        topology.lab.environment = environment.to_owned();
        let spec = topology.instances().nth(1).unwrap().1.clone();
        let secrets = BTreeMap::from([
            ("password".to_owned(), password.to_owned()),
            ("other".to_owned(), "x".to_owned()),
        ]);
        let files = role(template).render(&topology, &spec, &secrets, &Tls::default())?;
        Ok(String::from_utf8(files[0].content.to_vec()).unwrap())
    }

    #[test]
    fn templates_see_the_lab_the_instance_its_variables_and_secrets() {
        let template = "{{ instance.host }} {{ vars.port }} {{ secrets.password }} {{ lab.subnet }} \
                        {% for i in instances if i.role == \"r\" %}{{ i.name }}{{ i.group }} {% endfor %}\n";
        let text = render(template, "lab", "<&>").unwrap();
        assert_eq!(text, "b.lxd 2 <&> 198.18.0.0/24 aone bone \n");
    }

    #[test]
    fn undefined_names_and_undeclared_secrets_are_errors_that_name_the_template() {
        for template in ["{{ nope }}", "{{ vars.nope }}", "{{ secrets.other }}"] {
            let error = format!("{:#}", render(template, "lab", "p").unwrap_err());
            assert!(
                error.contains("t.j2") && error.contains("role r"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_placeholder_is_refused_by_name_outside_the_lab() {
        assert!(render("{{ secrets.password }}", "lab", PLACEHOLDER).is_ok());
        assert!(render("{{ secrets.password }}", "staging", "real").is_ok());
        // It is refused even where no template uses it.
        let error = render("", "staging", PLACEHOLDER).unwrap_err().to_string();
        assert!(
            error.contains("password") && error.contains("staging"),
            "{error}"
        );
    }

    #[test]
    fn an_instance_overrides_only_what_the_role_has() {
        let mut topology = small();
        let (_, spec) = topology.instances().next().unwrap();
        let mut spec = spec.clone();
        spec.vars.insert("prot".to_owned(), 3.into());
        let error = role("").render(&topology, &spec, &BTreeMap::new(), &Tls::default());
        assert!(error.is_err());
        let secrets = BTreeMap::from([("password".to_owned(), String::new())]);
        let error = role("")
            .render(&topology, &spec, &secrets, &Tls::default())
            .unwrap_err();
        assert!(error.to_string().contains("no variable prot"), "{error}");
        topology.groups.clear();
    }

    #[test]
    fn a_role_that_means_nothing_is_refused() {
        let refused = |from: &str, to: &str| {
            assert!(ROLE.contains(from));
            let text = ROLE.replace(from, to);
            let error = Role::parse(&text, |_| Ok(String::new())).unwrap_err();
            format!("{error:#}")
        };
        assert!(refused("0640", "640x").contains("no mode"));
        assert!(refused("0640", "17777").contains("no mode"));
        assert!(refused("\"/etc/t\"", "\"etc/t\"").contains("absolute"));
        assert!(refused("\"/etc/t\"", "\"/etc/../t\"").contains("absolute"));
        assert!(refused("\"t.j2\"", "\"../t.j2\"").contains("not in the folder"));
        assert!(refused("\"reload\"", "\"rebuild\"").contains("rebuild"));
        assert!(refused("tls = true", "tsl = true").contains("tsl"));
        assert!(refused("[[file]]", "[[ready]]\nrun = []\nlimit_s = 1\n[[file]]").contains("run"));
    }

    #[test]
    fn a_program_is_a_file_that_was_built() {
        let text = format!("{ROLE}[[program]]\ncrate = \"p\"\npath = \"/usr/local/bin/p\"\n");
        let role = Role::parse(&text, |_| Ok(String::new())).unwrap();
        let program = Built {
            bytes: Arc::new(vec![0xff]),
            sum: None,
        };
        let built = BTreeMap::from([("p".to_owned(), program)]);
        let files = role.program_files(&built).unwrap();
        assert_eq!((files[0].mode, &**files[0].content), (0o755, &[0xff][..]));
        assert!(role.program_files(&BTreeMap::new()).is_err());
        let other = text.replace("crate = \"p\"", "crate = \"c\"\nbinary = \"p\"");
        let other = Role::parse(&other, |_| Ok(String::new())).unwrap();
        assert_eq!(other.program_files(&built).unwrap(), files);
        let twice = text.replace("/usr/local/bin/p", "/etc/t");
        assert!(Role::parse(&twice, |_| Ok(String::new())).is_err());
    }

    #[test]
    fn the_digest_covers_text_mode_and_owner() {
        let file = Rendered {
            path: "/t".to_owned(),
            owner: "root".to_owned(),
            group: "root".to_owned(),
            mode: 0o644,
            change: Change::Seed,
            content: Arc::new(b"x".to_vec()),
            sum: None,
        };
        let others = [
            Rendered {
                content: Arc::new(b"y".to_vec()),
                ..file.clone()
            },
            Rendered {
                mode: 0o600,
                ..file.clone()
            },
            Rendered {
                owner: "app".to_owned(),
                ..file.clone()
            },
            Rendered {
                group: "app".to_owned(),
                ..file.clone()
            },
        ];
        assert!(others.iter().all(|o| o.digest() != file.digest()));
        assert_eq!(file.clone().digest(), file.digest());
    }
}
