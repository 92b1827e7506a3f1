//! The token by which Prometheus reads MinIO's metrics: a JWT that a user's password signs, as
//! `mc admin prometheus generate` makes it, but for a moment of expiry that is always the same.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::json;

/// The year 2100: a new token would be a changed file on each `lab up`.
const EXPIRES: u64 = 4_102_444_800;

/// The token of a user.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a function of templates gets its arguments so"
)]
pub fn of(user: String, password: String) -> String {
    let header = json!({ "alg": "HS512", "typ": "JWT" }).to_string();
    let claims = json!({ "exp": EXPIRES, "iss": "prometheus", "sub": user }).to_string();
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA512, password.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_and_is_signed_with_the_password() {
        let token = of("veza-metrics".to_owned(), "secret".to_owned());
        // Worked out with openssl dgst -sha512 -hmac.
        assert_eq!(
            token,
            "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.\
             eyJleHAiOjQxMDI0NDQ4MDAsImlzcyI6InByb21ldGhldXMiLCJzdWIiOiJ2ZXphLW1ldHJpY3MifQ.\
             l4Seq9NQidfTbGMF0aJtFaKRJNXvjM-j11R_TSmMOrKpLmN1zhC3A7kREmKHFEwsH29_-Vc9P3NZMp693z_DgA"
        );
        assert_ne!(token, of("veza-metrics".to_owned(), "secrets".to_owned()));
    }
}
