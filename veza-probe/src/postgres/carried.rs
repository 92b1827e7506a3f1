//! A login on its way to a process elsewhere that can't read our files: whole, with password and root
//! certificates.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::connect::Target;
use super::conninfo::{Conninfo, Host};
use super::login::Login;
use super::tls::{Tls, TlsError, root_bytes};
use crate::secret::Secret;

/// A login for one host. It holds the password: for a pipe, never for a file, a log or a command line.
#[derive(Serialize, Deserialize)]
pub struct Carried {
    /// The connection string, without what stands in the other fields.
    conninfo: String,
    password: Option<String>,
    /// The root certificates (PEM), and the file that they were read from.
    roots: Option<(PathBuf, Vec<u8>)>,
}

impl Carried {
    /// Packs what is needed to log in at one host.
    ///
    /// # Errors
    /// [`TlsError`] when the root certificates can't be read.
    pub fn pack(login: &Login, target: &Target) -> Result<Carried, TlsError> {
        let port = target.address.port();
        let conninfo = Conninfo {
            hosts: vec![Host {
                name: target.name.clone(),
                hostaddr: Some(target.address.ip()),
                port,
            }],
            user: Some(login.user.clone()),
            password: None,
            dbname: Some(login.dbname.clone()),
            passfile: None,
            sslmode: Some(login.sslmode),
            sslrootcert: None,
            ..login.conninfo.clone()
        };
        let roots = match &login.sslrootcert {
            Some(path) => Some((path.clone(), root_bytes(path, login.sslmode)?)),
            None => None,
        };
        let password = login.password(&target.name, port);
        Ok(Carried {
            conninfo: conninfo.without_password(),
            password: password.map(|password| password.expose().to_owned()),
            roots,
        })
    }

    /// The login again.
    ///
    /// # Errors
    /// A sentence; not for what [`Carried::pack`] made.
    pub fn unpack(self) -> Result<(Login, Tls), String> {
        let mut conninfo: Conninfo = self.conninfo.parse().map_err(told)?;
        conninfo.password = self.password.map(Secret::new);
        let mut login = Login::new(conninfo, |_| None).map_err(told)?;
        let (path, bytes) = self.roots.unzip();
        login.sslrootcert = path;
        let tls = Tls::with_roots(&login, bytes.as_deref()).map_err(told)?;
        Ok((login, tls))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::way::Way;

    #[test]
    fn a_login_arrives_as_it_was_sent() {
        let text = "host=a,b port=1,2 user=eva dbname=app sslmode=require connect_timeout=3 \
                    tcp_user_timeout=1500 keepalives_idle=1 options='-c work_mem=1MB' \
                    application_name=x password='s p:@/ä'";
        let login = Login::new(text.parse().unwrap(), |_| None).unwrap();
        let target = Target {
            name: "b".into(),
            address: "198.18.0.9:2".parse().unwrap(),
            way: Way::Here,
        };
        let carried = Carried::pack(&login, &target).unwrap();
        let text = serde_json::to_string(&carried).unwrap();
        let carried: Carried = serde_json::from_str(&text).unwrap();
        let (there, tls) = carried.unpack().unwrap();
        assert_eq!(there.password("b", 2), login.password("b", 2));
        assert_eq!((&there.user, &there.dbname), (&login.user, &login.dbname));
        let (ours, theirs) = (&login.conninfo, &there.conninfo);
        assert_eq!(ours.options, theirs.options);
        assert_eq!(ours.tcp_user_timeout, theirs.tcp_user_timeout);
        assert_eq!(ours.keepalives, theirs.keepalives);
        assert_eq!(ours.connect_timeout, theirs.connect_timeout);
        assert_eq!(tls.describe(), Tls::new(&login).unwrap().describe());
    }

    #[test]
    fn root_certificates_that_are_not_there_are_told_before_anything_is_sent() {
        let text = "host=a user=eva sslmode=verify-full sslrootcert=/nowhere/root.crt";
        let login = Login::new(text.parse().unwrap(), |_| None).unwrap();
        let target = Target {
            name: "a".into(),
            address: "198.18.0.9:2".parse().unwrap(),
            way: Way::Here,
        };
        let error = Carried::pack(&login, &target).err().unwrap().to_string();
        assert!(error.contains("/nowhere/root.crt"), "{error}");
    }
}
