//! SCRAM-SHA-256 verifiers as PostgreSQL keeps them: what a server or a pooler needs to check a
//! password without knowing it. The same verifier on both lets the pooler log in with what its client proved.
//!
//! `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in `pg_authid.rolpassword`; the
//! computation is RFC 5802's.

use std::num::NonZeroU32;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// PostgreSQL's own default, and the least that RFC 7677 allows.
const ITERATIONS: NonZeroU32 = match NonZeroU32::new(4096) {
    Some(iterations) => iterations,
    None => NonZeroU32::MIN,
};

/// The verifier of a password with this salt.
///
/// # Errors
/// For a password that is not ASCII: it would need a preparation first that is not done here.
pub fn of(password: &str, salt: &[u8]) -> anyhow::Result<String> {
    ensure!(
        password.is_ascii(),
        "only a password in ASCII can have a verifier made here"
    );
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(
        algorithm,
        ITERATIONS,
        salt,
        password.as_bytes(),
        &mut salted,
    );
    let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&salted, b"Server Key");
    Ok(format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored_key),
        BASE64.encode(server_key)
    ))
}

/// Whether a kept verifier, if there is one, is that of a password.
pub fn belongs(verifier: Option<&String>, password: &str) -> bool {
    let Some(verifier) = verifier else {
        return false;
    };
    let salt = verifier.split(['$', ':']).nth(2).unwrap_or_default();
    let salt = BASE64.decode(salt).unwrap_or_default();
    of(password, &salt).is_ok_and(|made| made == *verifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by PostgreSQL 17.12: `create role r password 'pencil'`.
    const OF_POSTGRES: &str = "SCRAM-SHA-256$4096:KYzaTl9bwDra/SCiHWvZbA==$\
                               8BvoNj8RDiy2gp2hnTG2KUTljLNaaQEK5aZzI2bQgCA=:0h9Tlxq7V6QKqP8ARR59Lbh+8ddF9fUKB9rRZQCFSpI=";

    #[test]
    fn it_is_what_postgres_makes() {
        assert!(belongs(Some(&OF_POSTGRES.to_owned()), "pencil"));
        assert!(!belongs(Some(&OF_POSTGRES.to_owned()), "pencils"));
        assert!(!belongs(Some(&"pencil".to_owned()), "pencil"));
        assert!(!belongs(None, "pencil"));
        assert!(of("pässword", b"salt").is_err());
    }
}
