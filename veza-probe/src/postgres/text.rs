//! The two texts that libpq takes, as keys and values in the order given; nothing is judged here but
//! the form. No error repeats any part of the text, because any part may be a piece of a password
//! that was not quoted or percent-encoded.
//!
//! Source: <https://www.postgresql.org/docs/17/libpq-connect.html#LIBPQ-CONNSTRING>.

use percent_encoding::percent_decode_str;

use super::invalid::InvalidConninfo;

/// Keys and values, in order.
pub(super) type Pairs = Vec<(String, String)>;

/// Splits either form. A scheme that isn't PostgreSQL's is refused as such, not read as a key.
pub(super) fn split(text: &str) -> Result<Pairs, InvalidConninfo> {
    if text.contains('\0') {
        return Err(InvalidConninfo::Form("it holds a NUL character"));
    }
    let uri = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    match uri {
        Some(rest) => split_uri(rest),
        None => {
            // A value may hold "://"; a key may not.
            if text
                .split('=')
                .next()
                .is_some_and(|key| key.contains("://"))
            {
                return Err(InvalidConninfo::Scheme);
            }
            split_keywords(text)
        }
    }
}

/// `[user[:password]@][host[:port],…][/dbname][?key=value&…]`, with the scheme already cut off.
///
/// Stricter than libpq in one point: a URI may hold one bare `@`, before the first `/`. Any other is
/// nearly always a piece of a password that was not percent-encoded, and would end up in the host or
/// database name, which are shown.
fn split_uri(rest: &str) -> Result<Pairs, InvalidConninfo> {
    let mut pairs = Pairs::new();
    let userinfo_end = rest
        .find(['@', '/'])
        .filter(|&i| rest[i..].starts_with('@'));
    let (userinfo, rest) = match userinfo_end {
        Some(end) => (Some(&rest[..end]), &rest[end + 1..]),
        None => (None, rest),
    };
    if rest.contains('@') {
        return Err(InvalidConninfo::StrayAt);
    }
    if let Some(userinfo) = userinfo {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        push(&mut pairs, "user", decode(user)?);
        if let Some(password) = password {
            push(&mut pairs, "password", decode(password)?);
        }
    }
    let authority_end = authority_end(rest)?;
    let (authority, rest) = rest.split_at(authority_end);
    let (hosts, ports) = split_hosts(authority)?;
    push(&mut pairs, "host", decode(&hosts)?);
    push(&mut pairs, "port", decode(&ports)?);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    push(
        &mut pairs,
        "dbname",
        decode(path.strip_prefix('/').unwrap_or(path))?,
    );
    if let Some(query) = query {
        split_query(query, &mut pairs)?;
    }
    Ok(pairs)
}

/// Adds a part of a URI that is there; an empty one is as good as none.
fn push(pairs: &mut Pairs, key: &str, value: String) {
    if !value.is_empty() {
        pairs.push((key.to_owned(), value));
    }
}

/// Where the hosts end: at the first `/` or `?` (neither can stand in an IPv6 address).
fn authority_end(rest: &str) -> Result<usize, InvalidConninfo> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    if rest[..end].matches('[').count() != rest[..end].matches(']').count() {
        return Err(InvalidConninfo::Form(
            "'[' and ']' around an IPv6 address don't match",
        ));
    }
    Ok(end)
}

/// The hosts and the ports as two lists with commas, as the keys `host` and `port` take them.
fn split_hosts(authority: &str) -> Result<(String, String), InvalidConninfo> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for member in authority.split(',') {
        let (host, port) = match member.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed
                    .split_once(']')
                    .ok_or(InvalidConninfo::Form("'[' without ']' in a host"))?;
                let port = match after.strip_prefix(':') {
                    Some(port) => port,
                    None if after.is_empty() => "",
                    None => return Err(InvalidConninfo::Form("text after ']' in a host")),
                };
                (host, port)
            }
            None => member.split_once(':').unwrap_or((member, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|p| p.is_empty()) {
        String::new()
    } else {
        ports.join(",")
    };
    Ok((hosts.join(","), ports))
}

/// `key=value` between `&`; both percent-encoded. JDBC's `ssl=true` is `sslmode=require`, as in libpq.
fn split_query(query: &str, pairs: &mut Pairs) -> Result<(), InvalidConninfo> {
    if query.is_empty() {
        return Ok(());
    }
    for parameter in query.split('&') {
        let (key, value) = parameter
            .split_once('=')
            .ok_or(InvalidConninfo::Form("a parameter after '?' has no '='"))?;
        if value.contains('=') {
            return Err(InvalidConninfo::Form(
                "a parameter after '?' has a second '='; percent-encode it as %3D",
            ));
        }
        let (key, value) = (decode(key)?, decode(value)?);
        if key == "ssl" && value == "true" {
            pairs.push(("sslmode".to_owned(), "require".to_owned()));
        } else {
            pairs.push((key, value));
        }
    }
    Ok(())
}

/// Percent-decodes strictly: `%` must be followed by two hexadecimal digits, not `00`, and the result
/// must be UTF-8. `+` stays `+`.
fn decode(part: &str) -> Result<String, InvalidConninfo> {
    let bytes = part.as_bytes();
    let broken = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'%')
        .any(|(i, _)| match bytes.get(i + 1..i + 3) {
            Some(digits) => !digits.iter().all(u8::is_ascii_hexdigit) || digits == b"00",
            None => true,
        });
    if broken {
        return Err(InvalidConninfo::Percent);
    }
    match percent_decode_str(part).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(InvalidConninfo::Percent),
    }
}

/// `key=value key = 'va\'lue'`, with white space around.
fn split_keywords(text: &str) -> Result<Pairs, InvalidConninfo> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Err(InvalidConninfo::Form("it is empty"));
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c == '=' || c.is_ascii_whitespace())
            .ok_or(InvalidConninfo::Form(
                "a word has no '='; quote values that hold spaces",
            ))?;
        let key = &rest[..end];
        let value = rest[end..]
            .trim_start()
            .strip_prefix('=')
            .ok_or(InvalidConninfo::Form(
                "a word has no '='; quote values that hold spaces",
            ))?;
        let (value, after) = take_value(value.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// One value, quoted or up to the next white space; a backslash takes the next character as it is.
fn take_value(text: &str) -> Result<(String, &str), InvalidConninfo> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[index + 1..])),
            _ if !quoted && character.is_ascii_whitespace() => return Ok((value, &body[index..])),
            _ => value.push(character),
        }
    }
    if quoted {
        return Err(InvalidConninfo::Form("a quoted value has no closing quote"));
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        split(text).unwrap()
    }

    fn of(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_uri_with_everything() {
        assert_eq!(
            pairs(
                "postgresql://u%40x:p%3Aw@[::1]:5433,h2/d%2Fb?sslmode=require&options=-c%20a%3Db"
            ),
            of(&[
                ("user", "u@x"),
                ("password", "p:w"),
                ("host", "::1,h2"),
                ("port", "5433,"),
                ("dbname", "d/b"),
                ("sslmode", "require"),
                ("options", "-c a=b"),
            ])
        );
    }

    #[test]
    fn a_question_mark_in_the_password_ends_nothing() {
        assert_eq!(
            pairs("postgres://u:p?w@h"),
            of(&[("user", "u"), ("password", "p?w"), ("host", "h")])
        );
    }

    #[test]
    fn jdbc_ssl_is_sslmode_require() {
        assert_eq!(
            pairs("postgres://h?ssl=true"),
            of(&[("host", "h"), ("sslmode", "require")])
        );
    }

    #[test]
    fn an_at_that_belongs_to_a_password_is_refused() {
        for text in [
            "postgres://u:a@b@h/d",
            "postgres://u:1/b@h/d",
            "postgres://u@h?k=a@b",
        ] {
            assert!(
                matches!(split(text), Err(InvalidConninfo::StrayAt)),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_percent_is_refused() {
        for text in [
            "postgres://h/%",
            "postgres://h/%4",
            "postgres://h/%zz",
            "postgres://h/%00",
        ] {
            assert!(
                matches!(split(text), Err(InvalidConninfo::Percent)),
                "{text}"
            );
        }
        assert!(matches!(
            split("postgres://h/%ff"),
            Err(InvalidConninfo::Percent)
        ));
    }

    #[test]
    fn keywords_quotes_and_backslashes() {
        assert_eq!(
            pairs(r"host = h  password='a b\'c\\d' dbname=x\ y user=''"),
            of(&[
                ("host", "h"),
                ("password", r"a b'c\d"),
                ("dbname", "x y"),
                ("user", "")
            ])
        );
        assert!(matches!(
            split("host=h password='x"),
            Err(InvalidConninfo::Form(_))
        ));
        assert!(matches!(
            split("host=h word"),
            Err(InvalidConninfo::Form(_))
        ));
        assert!(matches!(
            split("word host=h"),
            Err(InvalidConninfo::Form(_))
        ));
        assert!(matches!(
            split("mysql://u:p@h/d?a=b"),
            Err(InvalidConninfo::Scheme)
        ));
    }
}
