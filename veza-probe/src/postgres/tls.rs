//! TLS of a connection, prepared once from a login; always with rustls' ring provider, whatever the
//! process default may be.
//!
//! What OpenSSL (and so libpq) takes and rustls doesn't: X.509 version 1 certificates, RSA keys under
//! 2048 bits, a server certificate that is its own root, and a host name that stands only in the
//! common name. Client certificates and revocation lists are not supported.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::login::Login;
use super::options::SslMode;

/// Why TLS can't be prepared; nothing was connected to.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A mode that verifies, and nothing to verify against.
    #[error(
        "sslmode={0} needs root certificates: name their file with sslrootcert or PGSSLROOTCERT"
    )]
    NoRoot(SslMode),
    /// The file can't be read or holds no usable certificate.
    #[error("sslrootcert {path}: {reason}; sslmode={mode} needs it")]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The mode that asks for it.
        mode: SslMode,
    },
    /// The library refused its own settings.
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What is checked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Nothing,
    Chain,
    ChainAndName,
}

/// TLS settings of a login, for any number of connections.
#[derive(Clone)]
pub struct Tls {
    mode: SslMode,
    checked: Checked,
    root: Option<PathBuf>,
    connector: Option<MakeRustlsConnect>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.describe())
    }
}

impl Tls {
    /// Prepares what the login's `sslmode` and `sslrootcert` ask for, and reads the root file once.
    ///
    /// `require` with a root file verifies as `verify-ca`, as libpq does. `prefer` and `allow` never
    /// verify: a session that may go unencrypted gains nothing from it.
    ///
    /// # Errors
    /// [`TlsError`] when a root file is needed or named and is not usable.
    pub fn new(login: &Login) -> Result<Tls, TlsError> {
        let verifies = !matches!(
            login.sslmode,
            SslMode::Disable | SslMode::Allow | SslMode::Prefer
        );
        match login.sslrootcert.as_deref().filter(|_| verifies) {
            Some(path) => Tls::with_roots(login, Some(&root_bytes(path, login.sslmode)?)),
            None => Tls::with_roots(login, None),
        }
    }

    /// The same with the contents of the login's root file, read by somebody else.
    pub(super) fn with_roots(login: &Login, pem: Option<&[u8]>) -> Result<Tls, TlsError> {
        let mode = login.sslmode;
        let root = login.sslrootcert.clone();
        let checked = match mode {
            SslMode::Disable => {
                return Ok(Tls {
                    mode,
                    checked: Checked::Nothing,
                    root: None,
                    connector: None,
                });
            }
            SslMode::Allow | SslMode::Prefer => Checked::Nothing,
            SslMode::Require if root.is_none() => Checked::Nothing,
            SslMode::Require | SslMode::VerifyCa => Checked::Chain,
            SslMode::VerifyFull => Checked::ChainAndName,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let mut config = match (checked, root.as_deref().zip(pem)) {
            (Checked::Nothing, _) => with_verifier(builder, Arc::new(Unverified(provider))),
            (Checked::Chain | Checked::ChainAndName, None) => return Err(TlsError::NoRoot(mode)),
            (Checked::Chain, Some((path, pem))) => {
                let roots = read_roots(path, pem, mode)?;
                with_verifier(builder, Arc::new(ChainOnly { roots, provider }))
            }
            (Checked::ChainAndName, Some((path, pem))) => {
                let roots = Arc::new(read_roots(path, pem, mode)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| root_error(path, mode, error.to_string()))?;
                builder.with_webpki_verifier(verifier).with_no_client_auth()
            }
        };
        // A resumed session would measure, and verify, less than a new one.
        config.resumption = Resumption::disabled();
        let root = root.filter(|_| checked != Checked::Nothing);
        Ok(Tls {
            mode,
            checked,
            root,
            connector: Some(MakeRustlsConnect::new(config)),
        })
    }

    /// The mode that was asked for.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// What a session may rely on, in words for a report.
    pub fn describe(&self) -> String {
        let mode = self.mode;
        let root = self.root.as_deref().unwrap_or(Path::new("")).display();
        match (mode, self.checked) {
            (SslMode::Disable, _) => format!("not encrypted (sslmode={mode})"),
            (SslMode::Allow | SslMode::Prefer, _) => {
                format!("encrypted if the server offers it, server not verified (sslmode={mode})")
            }
            (_, Checked::Nothing) => format!("encrypted, server not verified (sslmode={mode})"),
            (_, Checked::Chain) => {
                format!("encrypted, server verified against {root}, not its name (sslmode={mode})")
            }
            (_, Checked::ChainAndName) => {
                format!("encrypted, server and its name verified against {root} (sslmode={mode})")
            }
        }
    }

    /// The connector; none where TLS is off.
    pub(super) fn connector(&self) -> Option<MakeRustlsConnect> {
        self.connector.clone()
    }

    /// Whether the server's name is compared with the certificate.
    pub(super) fn checks_name(&self) -> bool {
        self.checked == Checked::ChainAndName
    }
}

fn with_verifier(
    builder: rustls::ConfigBuilder<ClientConfig, WantsVerifier>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> ClientConfig {
    builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

fn root_error(path: &Path, mode: SslMode, reason: String) -> TlsError {
    TlsError::Root {
        path: path.to_owned(),
        reason,
        mode,
    }
}

/// The contents of a root file.
pub(super) fn root_bytes(path: &Path, mode: SslMode) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| root_error(path, mode, error.to_string()))
}

/// The certificates of a PEM file. One that rustls can't use is left out, which can only make it
/// trust less: system bundles hold a few.
fn read_roots(path: &Path, pem: &[u8], mode: SslMode) -> Result<RootCertStore, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| root_error(path, mode, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(root_error(
            path,
            mode,
            "it holds no usable PEM certificate".to_owned(),
        ));
    }
    Ok(roots)
}

/// Takes any certificate; the handshake's signature must still fit it, which channel binding needs.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the chain and its dates, not the name: libpq's `verify-ca`.
#[derive(Debug)]
struct ChainOnly {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(parameters: &str) -> Result<Tls, TlsError> {
        let uri = format!("postgres://u@h/d?{parameters}");
        Tls::new(&Login::new(uri.parse().unwrap(), |_| None).unwrap())
    }

    #[test]
    fn modes_say_what_they_are_worth() {
        let said = |parameters: &str| tls(parameters).unwrap().describe();
        assert_eq!(said("sslmode=disable"), "not encrypted (sslmode=disable)");
        assert_eq!(
            said("sslmode=require"),
            "encrypted, server not verified (sslmode=require)"
        );
        for mode in ["prefer", "allow"] {
            let said = said(&format!("sslmode={mode}&sslrootcert=/gone"));
            assert!(
                said.starts_with("encrypted if the server offers it"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_root_file_is_needed_and_must_hold_certificates() {
        let gone = tls("sslmode=verify-ca&sslrootcert=/nonexistent/ca.crt")
            .unwrap_err()
            .to_string();
        assert!(
            gone.contains("sslrootcert /nonexistent/ca.crt: No such file"),
            "{gone}"
        );
        let named = tls("sslmode=require&sslrootcert=/nonexistent/ca.crt").unwrap_err();
        assert!(matches!(named, TlsError::Root { .. }));
        assert!(matches!(
            tls("sslmode=verify-full").unwrap_err(),
            TlsError::NoRoot(_)
        ));
        let empty = tls("sslmode=verify-full&sslrootcert=/dev/null")
            .unwrap_err()
            .to_string();
        assert!(empty.contains("no usable PEM certificate"), "{empty}");
    }
}
