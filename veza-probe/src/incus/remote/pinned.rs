//! TLS with exactly one server: the one whose certificate was pinned. There is no certificate store,
//! no name that would be enough, and no second try with less.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::RemoteError;

/// What [`Pinned`] says of another certificate; rustls itself never says it.
pub(in crate::incus) const NOT_PINNED: Error =
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// What is said of a server that has the certificate and not its key.
pub(in crate::incus) const NOT_PROVEN: Error =
    Error::InvalidCertificate(CertificateError::BadSignature);

/// Accepts one certificate, byte for byte, from a server that signs with its key. Its dates and names
/// don't count: it was taken for what it is by a person who saw its fingerprint.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) leaf: CertificateDer<'static>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.as_ref() == self.leaf.as_ref() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(NOT_PINNED)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// TLS for a remote: the pinned server, and the user's certificate for it to see.
///
/// # Errors
/// [`RemoteError::Credentials`], with the file.
pub(super) fn tls(
    name: &str,
    address: &str,
    folder: &std::path::Path,
) -> Result<ClientConfig, RemoteError> {
    let failed = |what, path: &PathBuf, words: String, next: String| RemoteError::Credentials {
        name: name.to_owned(),
        address: address.to_owned(),
        what,
        path: path.clone(),
        words,
        next,
    };
    let (pin, crt) = (super::pin(name, folder), super::certificate(folder));
    let key = folder.join("client.key");
    let add = format!("incus remote add {name} {address}");
    let of_client = |path: &PathBuf, words: String| {
        failed("the client's own certificate", path, words, add.clone())
    };
    let leaf = only_certificate(&pin).map_err(|words| {
        let again = format!("incus remote remove {name}`, then `{add}");
        failed("the server's pinned certificate", &pin, words, again)
    })?;
    let chain = certificates(&crt).map_err(|words| of_client(&crt, words))?;
    let secret = PrivateKeyDer::from_pem_file(&key);
    let secret = secret.map_err(|error| of_client(&key, pem_words(&error, "key in clear")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Pinned {
        leaf,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(pinned))
                .with_client_auth_cert(chain, secret)
        });
    let mut config = config.map_err(|error| {
        let words = format!("does not go with {} ({error})", crt.display());
        of_client(&key, words)
    })?;
    // A resumed session would not show the certificate again.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// TLS that trusts nobody, for a client that only ever speaks through a socket: without it, the HTTP
/// library would read the certificates of the system.
///
/// # Errors
/// When the library refuses its own settings.
pub(in crate::incus) fn no_tls() -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all: Vec<_> = all.map_err(|error| pem_words(&error, "certificate"))?;
    if all.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(all)
}

/// Which of several would be the pinned one is not ours to guess.
fn only_certificate(path: &PathBuf) -> Result<CertificateDer<'static>, String> {
    let mut all = certificates(path)?.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err("holds more than one certificate".to_owned()),
    }
}

fn pem_words(error: &rustls::pki_types::pem::Error, wanted: &str) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "is not there".to_owned()
        }
        Error::Io(error) => format!("can't be read ({error})"),
        Error::NoItemsFound => format!("holds no {wanted}"),
        other => format!("can't be understood ({other})"),
    }
}
