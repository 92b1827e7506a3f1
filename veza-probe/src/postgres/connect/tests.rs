//! Connections against listeners of the test's own that play a server's first words.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::way::Way;

const LIMIT: Duration = Duration::from_secs(20);

fn login(parameters: &str) -> Login {
    let uri = format!("postgres://eva:geheim@pg-1.lxd/app?{parameters}");
    Login::new(uri.parse().unwrap(), |_| None).unwrap()
}

/// Accepts one connection, reads the client's first message, answers, and then keeps or closes it.
async fn server(answer: &'static [u8], keep: bool) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = [0; 8];
        stream.read_exact(&mut first).await.unwrap();
        stream.write_all(answer).await.unwrap();
        let mut rest = Vec::new();
        if keep {
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
    Target {
        name: "pg-1.lxd".to_owned(),
        address,
        way: Way::Here,
    }
}

async fn failure(target: &Target, parameters: &str, limit: Duration) -> Error {
    let login = login(parameters);
    let error = connect(target, &login, &Tls::new(&login).unwrap(), limit)
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("geheim"), "{text}");
    let place = format!(
        "pg-1.lxd:{} (127.0.0.1), database app, user eva",
        target.address.port()
    );
    assert!(text.contains(&place), "{text}");
    error
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let target = Target {
        name: "pg-1.lxd".to_owned(),
        address,
        way: Way::Here,
    };
    assert_eq!(
        failure(&target, "sslmode=disable", LIMIT).await.kind(),
        Kind::Unreachable
    );
}

#[tokio::test]
async fn a_silent_server_meets_the_limit_and_the_step_is_named() {
    let limit = Duration::from_millis(100);
    for (parameters, answer, reached) in [
        ("sslmode=disable", &b""[..], Step::Startup),
        ("sslmode=require", b"", Step::Negotiation),
        ("sslmode=require", b"S", Step::TlsHandshake),
    ] {
        let error = failure(&server(answer, true).await, parameters, limit).await;
        let Error::Deadline {
            step,
            limit: passed,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((step, passed), (reached, limit));
    }
}

#[tokio::test]
async fn connect_timeout_shortens_the_limit() {
    let target = server(b"", true).await;
    let error = failure(&target, "sslmode=disable&connect_timeout=1", LIMIT).await;
    assert!(error.to_string().contains("within 1.0 s"), "{error}");
}

#[tokio::test]
async fn no_tls_is_told_apart_from_a_broken_handshake() {
    let none = failure(&server(b"N", true).await, "sslmode=require", LIMIT).await;
    assert!(matches!(none, Error::NoTls { .. }), "{none}");
    let garbage = b"Sthis is not a TLS record";
    let broken = failure(&server(garbage, true).await, "sslmode=require", LIMIT).await;
    assert!(matches!(broken, Error::Tls { .. }), "{broken}");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_lost() {
    for parameters in ["sslmode=disable", "sslmode=prefer", "sslmode=require"] {
        let error = failure(&server(b"", false).await, parameters, LIMIT).await;
        assert_eq!(error.kind(), Kind::Lost, "{error}");
    }
}

#[tokio::test]
async fn starting_up_is_known_by_its_sqlstate() {
    let answer = b"E\0\0\0\x1aSFATAL\0C57P03\0Mwords\0\0";
    let error = failure(&server(answer, true).await, "sslmode=disable", LIMIT).await;
    assert_eq!(error.kind(), Kind::NotAccepting);
    assert_eq!(error.sqlstate().map(|s| s.code()), Some("57P03"));
    assert!(error.to_string().ends_with("FATAL 57P03: words"), "{error}");
}

#[tokio::test]
async fn refused_credentials_end_the_search_and_say_where_the_password_was_from() {
    let refusing = server(b"E\0\0\0\x1aSFATAL\0C28P01\0Mwords\0\0", true).await;
    let silent = server(b"", true).await;
    let login = login("sslmode=disable");
    let tls = Tls::new(&login).unwrap();
    let error = connect_first(&[refusing, silent], &login, &tls, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("password from the connection string"),
        "{error}"
    );
}

#[tokio::test]
async fn a_host_that_is_an_address_needs_no_resolver() {
    for (text, address) in [
        ("host=127.0.0.1 port=7", "127.0.0.1:7"),
        ("host=::1 port=7", "[::1]:7"),
        ("host=name hostaddr=10.0.0.9", "10.0.0.9:5432"),
    ] {
        let host = text.parse::<Conninfo>().unwrap().hosts.remove(0);
        let targets = Target::resolve(&host, LIMIT).await.unwrap();
        assert_eq!(
            targets,
            [Target {
                name: host.name,
                address: address.parse().unwrap(),
                way: Way::Here,
            }]
        );
    }
}
