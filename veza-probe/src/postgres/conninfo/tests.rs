//! Rules of connection strings, each on its own, and properties that hold for any text.

use proptest::prelude::*;

use super::*;
use crate::postgres::options::SSLMODES;

fn parse(text: &str) -> Conninfo {
    text.parse().unwrap()
}

fn refused(text: &str) -> InvalidConninfo {
    text.parse::<Conninfo>().unwrap_err()
}

fn host(name: &str, port: u16) -> Host {
    Host {
        name: name.to_owned(),
        hostaddr: None,
        port,
    }
}

#[test]
fn several_hosts_with_ports() {
    let conninfo = parse("postgres://u:p@pg-1.lxd:5433,[fd42::1]:6000,pg_3/app");
    assert_eq!(
        conninfo.hosts,
        [
            host("pg-1.lxd", 5433),
            host("fd42::1", 6000),
            host("pg_3", PORT)
        ]
    );
    assert_eq!(
        parse("host=a,b,::1 port=7").hosts,
        [host("a", 7), host("b", 7), host("::1", 7)]
    );
    assert_eq!(
        parse("postgres:///d?host=a,b&port=1,2").hosts,
        [host("a", 1), host("b", 2)]
    );
    assert_eq!(
        parse("postgres://a,b:2").hosts,
        [host("a", PORT), host("b", 2)]
    );
}

#[test]
fn hostaddr_stands_beside_the_name_or_alone() {
    let conninfo = parse("host=a,b hostaddr=10.0.0.1,fd42::2 port=1,2");
    let addresses: Vec<_> = conninfo.hosts.iter().filter_map(|h| h.hostaddr).collect();
    assert_eq!(
        addresses,
        [
            "10.0.0.1".parse::<IpAddr>().unwrap(),
            "fd42::2".parse().unwrap()
        ]
    );
    assert_eq!(parse("hostaddr=10.0.0.1").hosts[0].name, "10.0.0.1");
    let counts = refused("host=a,b hostaddr=10.0.0.1");
    assert_eq!(
        counts,
        InvalidConninfo::Counts {
            key: "hostaddr",
            ports: 1,
            hosts: 2
        }
    );
    assert!(matches!(
        refused("host=a,b,c port=1,2"),
        InvalidConninfo::Counts { .. }
    ));
}

#[test]
fn no_host_and_no_socket() {
    for text in [
        "postgres:///d",
        "postgres://",
        "postgres://u@/d",
        "postgres://a,/d",
        "host=/tmp",
        "postgres://%2Frun%2Fpostgresql/d",
        "host=@abstract",
        "dbname=d",
        "host=''",
    ] {
        assert_eq!(refused(text), InvalidConninfo::NoHost, "{text}");
    }
}

#[test]
fn every_key() {
    let conninfo = parse(
        "host=h user=u dbname=d passfile=/p sslmode=verify-full sslrootcert=/ca connect_timeout=3 \
         application_name='a b' options='-c x=1' target_session_attrs=prefer-standby keepalives=0 \
         keepalives_idle=4 keepalives_interval=5 keepalives_count=6 tcp_user_timeout=700 \
         channel_binding=require load_balance_hosts=random gssencmode=disable",
    );
    assert_eq!(conninfo.sslmode, Some(SslMode::VerifyFull));
    assert_eq!(conninfo.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(conninfo.tcp_user_timeout, Some(Duration::from_millis(700)));
    assert_eq!(conninfo.target_session_attrs, Wanted::PreferStandby);
    let seconds = |n| Some(Duration::from_secs(n));
    let keepalives = Keepalives {
        on: false,
        idle: seconds(4),
        interval: seconds(5),
        count: Some(6),
    };
    assert_eq!(conninfo.keepalives, keepalives);
    assert_eq!(conninfo.channel_binding, ChannelBinding::Require);
    assert!(conninfo.load_balance_hosts);
    assert_eq!(parse(&conninfo.without_password()), conninfo);
}

#[test]
fn unknown_keys_are_named_unless_they_may_be_a_password() {
    for key in ["sslcert", "xyz", "service", "replication"] {
        let text = refused(&format!("postgres://h/d?{key}=")).to_string();
        assert!(
            text.starts_with(&format!("unknown or unsupported key '{key}'")),
            "{text}"
        );
        assert!(text.contains("load_balance_hosts"), "{text}");
    }
    for text in [
        "host=h password=my sec=ret",
        "postgres://h?password=a&b=c",
        "host=h a@b=c",
    ] {
        assert_eq!(refused(text), InvalidConninfo::NotAKey, "{text}");
    }
}

#[test]
fn bad_values_name_key_and_choice_but_not_the_value() {
    for key in [
        "sslmode",
        "connect_timeout",
        "target_session_attrs",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "channel_binding",
        "load_balance_hosts",
        "gssencmode",
        "port",
        "hostaddr",
    ] {
        let text = refused(&format!("host=h {key}=geheim")).to_string();
        assert!(text.contains(&format!("key '{key}': expected")), "{text}");
        assert!(!text.contains("geheim"), "{text}");
    }
    for port in ["0", "65536", "-1", "+5"] {
        assert!(matches!(
            refused(&format!("host=h port={port}")),
            InvalidConninfo::Value { key: "port", .. }
        ));
    }
    let system = refused("host=h sslrootcert=system").to_string();
    assert!(system.contains("/etc/ssl/certs"), "{system}");
}

#[test]
fn zero_and_less_mean_no_limit() {
    for value in ["0", "-1"] {
        let conninfo = parse(&format!(
            "host=h connect_timeout={value} tcp_user_timeout={value}"
        ));
        assert_eq!(
            (conninfo.connect_timeout, conninfo.tcp_user_timeout),
            (None, None)
        );
    }
}

#[test]
fn a_password_is_noticed_and_not_shown() {
    for text in [
        "postgres://u:geheim@h/d",
        "postgres://h/d?password=geheim",
        "host=h password = 'geheim'",
    ] {
        let conninfo = parse(text);
        assert!(conninfo.has_password(), "{text}");
        assert!(
            !format!("{conninfo} {conninfo:?}").contains("geheim"),
            "{conninfo:?}"
        );
    }
    assert!(!parse("postgres://u@h/d").has_password());
    assert!(!parse("postgres://u:@h/d?password=").has_password());
    assert_eq!(
        parse("postgres://u:x@h/d").to_string(),
        "postgres://u@h:5432/d"
    );
}

fn any_conninfo() -> impl Strategy<Value = Conninfo> {
    let name = prop_oneof!["[a-z][a-z0-9_.-]{0,12}", Just("fd42::7".to_owned())];
    let hostaddr = prop::option::of(prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]);
    let host = (name, hostaddr, 1..=u16::MAX).prop_map(|(name, hostaddr, port)| Host {
        name,
        hostaddr,
        port,
    });
    let hosts = prop::collection::vec(host, 1..4);
    let text = || prop::option::of("[^\\x00]{1,12}");
    let small = || prop::option::of(1..100_000_u32);
    let seconds = |n: Option<u32>| n.map(|n| Duration::from_secs(n.into()));
    let words = (
        prop::option::of(prop::sample::select(SSLMODES)),
        prop::sample::select(WANTED),
        prop::sample::select(BINDINGS),
        any::<(bool, bool)>(),
    );
    (
        hosts,
        [text(), text(), text(), text(), text(), text()],
        [small(), small(), small()],
        words,
    )
        .prop_map(move |(hosts, texts, numbers, words)| {
            let [user, dbname, application_name, options, passfile, root] = texts;
            let [idle, count, timeout] = numbers;
            let (mode, (_, wanted), (_, binding), (on, random)) = words;
            Conninfo {
                hosts,
                user,
                dbname,
                application_name,
                options,
                passfile: passfile.map(PathBuf::from),
                sslrootcert: root.filter(|r| r != "system").map(PathBuf::from),
                sslmode: mode.map(|(_, mode)| mode),
                connect_timeout: seconds(timeout),
                keepalives: Keepalives {
                    on,
                    idle: seconds(idle),
                    interval: None,
                    count,
                },
                tcp_user_timeout: timeout.map(|n| Duration::from_millis(n.into())),
                target_session_attrs: wanted,
                channel_binding: binding,
                load_balance_hosts: random,
                ..Conninfo::blank()
            }
        })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), scheme in any::<bool>()) {
        let text = if scheme { format!("postgres://{text}") } else { text };
        let _ = text.parse::<Conninfo>();
    }

    #[test]
    fn likely_text_is_read_or_refused(text in "(postgres(ql)?://)?[a-z:@/?&=,%\\[\\]'\\\\ 0-9]{0,40}") {
        let _ = text.parse::<Conninfo>();
    }

    #[test]
    fn what_is_rendered_reads_back(conninfo in any_conninfo(), password in "[^\\x00]{1,20}") {
        let uri = conninfo.without_password();
        prop_assert_eq!(&parse(&uri), &conninfo);
        let separator = if uri.contains('?') { '&' } else { '?' };
        let with = parse(&format!("{uri}{separator}password={}", encode(&password)));
        prop_assert_eq!(with.password.as_ref().map(Secret::expose), Some(password.as_str()));
        prop_assert_eq!(Conninfo { password: None, ..with }, conninfo);
    }

    #[test]
    fn keywords_and_uri_agree(user in "[^\\x00]{1,12}", password in "[^\\x00]{1,12}") {
        let quote = |s: &str| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"));
        let keywords = format!("host=h user={} password = {}", quote(&user), quote(&password));
        let uri = format!("postgres://{}:{}@h", encode(&user), encode(&password));
        prop_assert_eq!(parse(&keywords), parse(&uri));
    }

    /// Even a password that is not encoded or quoted, so that pieces of it land elsewhere.
    #[test]
    fn no_piece_of_a_password_shows(
        pieces in prop::collection::vec("[QXZ0-9]{6}", 1..4),
        glue in prop::collection::vec("[@/:?&=,% '\\\\#\\[\\]]{0,2}", 4),
        form in 0..4_usize,
    ) {
        let raw: String = pieces.iter().zip(&glue).map(|(p, g)| format!("{p}{g}")).collect();
        let text = match form {
            0 => format!("postgres://user:{raw}@host/db?sslmode=require"),
            1 => format!("postgres://user:{}@host/db?sslmode=require", encode(&raw)),
            2 => format!("postgres://user@host/db?password={raw}&sslmode=require"),
            _ => format!("host=host user=user password={raw} sslmode=require"),
        };
        let shown = match text.parse::<Conninfo>() {
            Ok(conninfo) => format!("{conninfo} {conninfo:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        for piece in &pieces {
            prop_assert!(!shown.contains(piece.as_str()), "{} in {}", piece, shown);
        }
    }
}
