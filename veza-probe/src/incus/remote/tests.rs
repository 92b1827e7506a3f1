//! The client configuration as Incus writes it, and TLS against a server of the test's own, which shows
//! what it is told to show.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, Stream, SupportedProtocolVersion};

use super::*;
use crate::incus::{Error, Incus, Place};

/// A certificate as Incus makes them, with its key.
struct Own {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn own(name: &str) -> Own {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Own { certificate, key }
}

/// A folder of a client configuration, removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn new(test: &str, remotes: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("veza-remote-{test}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("servercerts")).unwrap();
        let folder = Folder(path);
        folder.write(
            "config.yml",
            &format!("default-remote: local\nremotes:\n{remotes}aliases: {{}}\n"),
        );
        folder
    }

    /// With a client certificate, and one that is pinned for the remote `lab`.
    fn with_certificates(test: &str, remotes: &str, pinned: &Own) -> Folder {
        let folder = Folder::new(test, remotes);
        let client = own("client");
        folder.write("client.crt", &client.certificate.pem());
        folder.write("client.key", &client.key.serialize_pem());
        folder.write("servercerts/lab.crt", &pinned.certificate.pem());
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    fn address(&self, name: &str) -> Result<String, RemoteError> {
        configuration::address(name, &self.0)
    }

    fn refused(&self) -> String {
        Remote::read("lab", &self.0).unwrap_err().to_string()
    }
}

/// `config.yml` as Incus 6.0 writes it.
const REMOTES: &str = "  images:
    addr: https://images.linuxcontainers.org
    protocol: simplestreams
    public: true
  lab:
    addr: https://198.51.100.7:8443
    auth_type: tls
    project: veza-lab
    protocol: incus
    public: false
  local:
    addr: unix://
    public: false
  browser:
    addr: https://198.51.100.8:8443
    auth_type: oidc
    protocol: incus
    public: false
";

#[test]
fn a_remote_of_the_configuration_is_found() {
    let folder = Folder::new("found", REMOTES);
    assert_eq!(folder.address("lab").unwrap(), "https://198.51.100.7:8443");
    // What is empty is left out, and newer versions write more.
    let folder = Folder::new(
        "bare",
        "  lab:\n    addr: https://[::1]:8443/\n    keepalive: 30\n",
    );
    assert_eq!(folder.address("lab").unwrap(), "https://[::1]:8443");
}

#[test]
fn what_is_no_server_for_a_certificate_is_refused_with_what_to_do() {
    let folder = Folder::new("kinds", REMOTES);
    for (name, words) in [
        ("local", ["leave --remote", "unix://"]),
        (
            "images",
            ["serves images only", "images.linuxcontainers.org"],
        ),
        ("browser", ["logs in by oidc", "--auth-type tls"]),
    ] {
        let text = folder.address(name).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word) && text.contains(name), "{text}");
        }
    }
    for address in [
        "",
        "http://h:8443",
        "h:8443",
        "https://",
        "https://u:p@h:8443",
        "https://h:8443/x",
        "https://h?x",
    ] {
        let folder = Folder::new("plain", &format!("  lab:\n    addr: \"{address}\"\n"));
        let error = folder.address("lab").unwrap_err();
        assert!(
            matches!(error, RemoteError::Unsuitable { .. }),
            "{address}: {error}"
        );
    }
}

#[test]
fn an_unknown_remote_lists_the_known_ones() {
    let folder = Folder::new("unknown", REMOTES);
    let text = folder.address("prod").unwrap_err().to_string();
    for word in [
        "prod",
        "browser, images, lab, local",
        "incus remote add prod",
    ] {
        assert!(text.contains(word), "{text}");
    }
    let nowhere = configuration::address("lab", Path::new("/nowhere")).unwrap_err();
    let text = nowhere.to_string();
    assert!(
        text.contains("/nowhere/config.yml") && text.contains("INCUS_CONF"),
        "{text}"
    );
    for broken in ["remotes: [", "remotes: 7", "\tx"] {
        folder.write("config.yml", broken);
        let error = folder.address("lab").unwrap_err();
        assert!(
            matches!(error, RemoteError::Configuration { .. }),
            "{error}"
        );
    }
    folder.write("config.yml", "remotes:\n");
    assert!(matches!(
        folder.address("lab").unwrap_err(),
        RemoteError::Unknown { .. }
    ));
}

#[test]
fn a_certificate_that_is_missing_or_wrong_is_named_with_the_command() {
    let pinned = own("h");
    let make = |name: &str| Folder::with_certificates(name, REMOTES, &pinned);
    let add = "incus remote add lab https://198.51.100.7:8443";
    Remote::read("lab", &make("whole").0).unwrap();
    for file in ["client.crt", "client.key", "servercerts/lab.crt"] {
        let folder = make("missing");
        std::fs::remove_file(folder.0.join(file)).unwrap();
        let text = folder.refused();
        assert!(
            text.contains(file) && text.contains("is not there"),
            "{text}"
        );
        assert!(text.contains(add), "{text}");
        folder.write(file, "no PEM\n");
        let text = folder.refused();
        assert!(text.contains(file) && text.contains("holds no"), "{text}");
    }
    let folder = make("other-key");
    folder.write("client.key", &own("client").key.serialize_pem());
    let text = folder.refused();
    assert!(text.contains("does not go with"), "{text}");
    let folder = make("two");
    let both = pinned.certificate.pem() + &own("h").certificate.pem();
    folder.write("servercerts/lab.crt", &both);
    let text = folder.refused();
    assert!(text.contains("more than one certificate"), "{text}");
}

/// A server that shows a certificate and signs with a key, which need not go together.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(shown: &Own, signs: &Own, version: &'static SupportedProtocolVersion) -> Server {
        let key = PrivateKeyDer::try_from(signs.key.serialize_der()).unwrap();
        let key = ring::sign::any_supported_type(&key).unwrap();
        let certified = CertifiedKey::new(vec![shown.certificate.der().clone()], key);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let requests = Arc::default();
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that goes away is what most tests are about.
                let _ = serve(client, &config, &seen);
            }
        });
        Server { address, requests }
    }

    fn folder(&self, test: &str, pinned: &Own) -> Folder {
        let remotes = format!("  lab:\n    addr: {}\n    protocol: incus\n", self.address);
        Folder::with_certificates(test, &remotes, pinned)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers one request as an Incus would that trusts the client and has any project.
fn serve(
    mut client: TcpStream,
    config: &Arc<ServerConfig>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut tls = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut tls, &mut client);
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let request = String::from_utf8_lossy(&request);
    let first = request.lines().next().unwrap_or_default();
    seen.lock().unwrap().push(first.to_owned());
    let body = r#"{"type": "sync", "metadata": {"auth": "trusted"}}"#;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

async fn connect(folder: &Folder) -> Result<Incus, Error> {
    let place = Place::Remote {
        name: "lab".to_owned(),
        folder: folder.0.clone(),
    };
    Ok(Incus::connect(&place, "p").await?.0)
}

#[tokio::test]
async fn the_pinned_server_is_spoken_to_whatever_its_certificate_says_of_names() {
    // It is asked for as 127.0.0.1.
    let server = own("somewhere.else");
    for (test, version) in [("pinned-13", &TLS13), ("pinned-12", &TLS12)] {
        let running = Server::start(&server, &server, version);
        let folder = running.folder(test, &server);
        let incus = connect(&folder).await.unwrap();
        assert_eq!(
            running.requests(),
            [
                "GET /1.0?project=p HTTP/1.1",
                "GET /1.0/projects/p?project=p HTTP/1.1"
            ]
        );
        // What was read once is kept: a watchdog must not need the files again.
        std::fs::remove_dir_all(&folder.0).unwrap();
        incus.server().await.unwrap();
    }
}

#[tokio::test]
async fn another_certificate_of_the_same_name_is_refused_before_anything_is_sent() {
    let (pinned, other) = (own("incus"), own("incus"));
    for (test, version) in [("other-13", &TLS13), ("other-12", &TLS12)] {
        let running = Server::start(&other, &other, version);
        let folder = running.folder(test, &pinned);
        let error = connect(&folder).await.unwrap_err();
        let not_pinned = matches!(error, Error::Remote(RemoteError::NotPinned { .. }));
        assert!(not_pinned && error.is_missing_tool(), "{error:?}");
        let text = error.to_string();
        for word in [
            "the certificate is not the one that `incus remote add` pinned; nothing was sent",
            "lab",
            &running.address,
        ] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(running.requests(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_pinned_certificate_without_its_key_is_refused_before_anything_is_sent() {
    let (pinned, thief) = (own("incus"), own("incus"));
    for (test, version) in [("thief-13", &TLS13), ("thief-12", &TLS12)] {
        let running = Server::start(&pinned, &thief, version);
        let folder = running.folder(test, &pinned);
        let error = connect(&folder).await.unwrap_err();
        let not_proven = matches!(error, Error::Remote(RemoteError::NotProven { .. }));
        assert!(not_proven && error.is_missing_tool(), "{error:?}");
        assert_eq!(running.requests(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_remote_that_is_away_is_named_with_its_address() {
    let pinned = own("h");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let remotes = format!("  lab:\n    addr: {address}\n");
    let folder = Folder::with_certificates("away", &remotes, &pinned);
    let error = connect(&folder).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.is_missing_tool(),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("the remote lab") && text.contains(&address),
        "{text}"
    );
}
