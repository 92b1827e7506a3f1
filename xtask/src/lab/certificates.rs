//! The lab's certificate authority and a certificate for each instance that uses TLS. Made once,
//! kept in the state folder, and renewed before they expire or when an instance's names change.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

use super::keep::Keep;
use super::role::{Tls, short_digest};
use super::topology::{InstanceSpec, Topology};

const DAY_S: i64 = 24 * 60 * 60;
const CA_DAYS: i64 = 3650;
const NODE_DAYS: i64 = 365;
/// A certificate with fewer days left is made anew.
const RENEW_DAYS: i64 = 30;

/// The authority, ready to sign.
pub struct Authority<'a> {
    keep: &'a Keep,
    now_s: i64,
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with what decides whether it is still good.
#[derive(Serialize, Deserialize)]
struct Kept {
    names: Vec<String>,
    expires_s: i64,
    issuer: String,
    cert: String,
    key: String,
}

/// Where the authority's certificate lies; everyone may read it.
pub fn ca_file(keep: &Keep) -> PathBuf {
    keep.path("ca.crt")
}

impl<'a> Authority<'a> {
    /// The lab's authority; made now when there is none.
    ///
    /// # Errors
    /// When its files can't be read or written.
    pub fn of(keep: &'a Keep, now_s: i64) -> anyhow::Result<Authority<'a>> {
        let kept: Option<Kept> = keep.read("ca.toml")?;
        let kept = match kept.filter(|k| k.expires_s > now_s + NODE_DAYS * DAY_S) {
            Some(kept) => kept,
            None => {
                let made = make_ca(now_s)?;
                keep.write("ca.toml", &toml::to_string(&made)?, 0o600)?;
                made
            }
        };
        // Always compared, so that the readable copy can't stay behind after an unclean end.
        if std::fs::read_to_string(ca_file(keep)).ok().as_ref() != Some(&kept.cert) {
            keep.write("ca.crt", &kept.cert, 0o644)?;
        }
        let key = KeyPair::from_pem(&kept.key).context("the authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&kept.cert, key).context("the authority")?;
        Ok(Authority {
            keep,
            now_s,
            ca: kept.cert,
            issuer,
        })
    }

    /// The certificate of an instance: its name, its name with the domain, and its address.
    ///
    /// # Errors
    /// When its file can't be read or written.
    pub fn node(&self, topology: &Topology, spec: &InstanceSpec) -> anyhow::Result<Tls> {
        let name = spec.name.to_string();
        let host = format!("{name}.{}", topology.lab.domain);
        let names = vec![name.clone(), host, spec.address.to_string()];
        let file = format!("nodes/{name}.toml");
        let issuer = short_digest([self.ca.as_bytes()]);
        let kept: Option<Kept> = self.keep.read(&file)?;
        let good = |k: &Kept| {
            k.names == names && k.issuer == issuer && k.expires_s > self.now_s + RENEW_DAYS * DAY_S
        };
        let kept = match kept.filter(good) {
            Some(kept) => kept,
            None => {
                let made = self.make_node(names, issuer)?;
                self.keep.write(&file, &toml::to_string(&made)?, 0o600)?;
                made
            }
        };
        Ok(Tls {
            ca: self.ca.clone(),
            cert: kept.cert,
            key: kept.key,
        })
    }

    fn make_node(&self, names: Vec<String>, issuer: String) -> anyhow::Result<Kept> {
        let mut params = CertificateParams::new(names.clone())?;
        let common = names.get(1).cloned().unwrap_or_default();
        let expires_s = valid(&mut params, &common, self.now_s, NODE_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Kept {
            names,
            expires_s,
            issuer,
            cert,
            key: key.serialize_pem(),
        })
    }
}

fn make_ca(now_s: i64) -> anyhow::Result<Kept> {
    let mut params = CertificateParams::default();
    let expires_s = valid(&mut params, "veza lab", now_s, CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok(Kept {
        names: Vec::new(),
        expires_s,
        issuer: String::new(),
        cert: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// Sets the subject and the time of validity, which begins a day ago: clocks differ.
fn valid(params: &mut CertificateParams, common_name: &str, now_s: i64, days: i64) -> i64 {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |s: i64| epoch + Duration::from_secs(u64::try_from(s).unwrap_or(0));
    let expires_s = now_s + days * DAY_S;
    params.not_before = at(now_s - DAY_S);
    params.not_after = at(expires_s);
    expires_s
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::small;
    use super::*;

    #[test]
    fn certificates_are_kept_until_they_expire_or_names_change() {
        let folder = std::env::temp_dir().join(format!("veza-certs-{}", std::process::id()));
        let keep = Keep::new("p", |_| Some(folder.clone().into()));
        let mut topology = small();
        let spec = topology.groups[0].instances[0].clone();
        let now_s = 1_800_000_000;
        let first = Authority::of(&keep, now_s)
            .unwrap()
            .node(&topology, &spec)
            .unwrap();
        let again = Authority::of(&keep, now_s + 300 * DAY_S).unwrap();
        assert_eq!(again.node(&topology, &spec).unwrap().cert, first.cert);
        let late = Authority::of(&keep, now_s + 340 * DAY_S).unwrap();
        let renewed = late.node(&topology, &spec).unwrap();
        assert!(renewed.cert != first.cert && renewed.ca == first.ca);
        topology.lab.domain = "example".to_owned();
        assert_ne!(late.node(&topology, &spec).unwrap().cert, renewed.cert);
        // A new authority signs everything anew.
        std::fs::remove_file(keep.path("ca.toml")).unwrap();
        let other = Authority::of(&keep, now_s)
            .unwrap()
            .node(&topology, &spec)
            .unwrap();
        assert_ne!(other.ca, first.ca);
        assert_eq!(std::fs::read_to_string(ca_file(&keep)).unwrap(), other.ca);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
