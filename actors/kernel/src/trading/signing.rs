//! The token of a request between services: HMAC-SHA256 over the compact sorted JSON of what it says.
//!
//! Every attempt is signed anew: the gateway takes a nonce once. The body's bytes stay the same.
//!
//! Source: CONTRACTS §5, "Service-to-service headers".

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::engine::run_id::hex_digit;

/// Bytes that a secret has to have at least; the gateway refuses to start with fewer.
pub const SECRET_BYTES_MIN: usize = 64;

/// The signed parts of a request. Absent values are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedRequest<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path, from its first slash on.
    pub path: &'a str,
    /// The query without its question mark.
    pub query: &'a str,
    /// The body; empty for a GET.
    pub body: &'a [u8],
    /// The asking service: `orchestrator`.
    pub service_id: &'a str,
    /// On behalf of which strategy.
    pub strategy_id: &'a str,
    /// On behalf of which user.
    pub user_id: &'a str,
    /// Seconds since the Unix epoch.
    pub timestamp_s: i64,
    /// A UUID that was never used before.
    pub nonce: &'a str,
}

/// The two headers that are computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSignature {
    /// `X-Body-Hash`.
    pub body_hash: String,
    /// `X-Internal-Token`.
    pub token: String,
}

/// Signs `request` with `secret`.
#[must_use]
pub fn sign_request(secret: &[u8], request: &SignedRequest<'_>) -> RequestSignature {
    let body_hash = to_hex(&Sha256::digest(request.body));
    let timestamp = request.timestamp_s.to_string();
    let signed: BTreeMap<&str, &str> = BTreeMap::from([
        ("body_hash", body_hash.as_str()),
        ("method", request.method),
        ("nonce", request.nonce),
        ("path", request.path),
        ("query", request.query),
        ("service_id", request.service_id),
        ("strategy_id", request.strategy_id),
        ("timestamp", timestamp.as_str()),
        ("user_id", request.user_id),
    ]);
    #[expect(
        clippy::expect_used,
        reason = "a map of strings is always JSON, and a key of any length is taken"
    )]
    let token = {
        let text = serde_json::to_string(&signed).expect("a map of strings");
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
        mac.update(text.as_bytes());
        to_hex(&mac.finalize().into_bytes())
    };
    RequestSignature { body_hash, token }
}

fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
    digits.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: SignedRequest<'static> = SignedRequest {
        method: "POST",
        path: "/api/v1/orders",
        query: "",
        body: br#"{"order_type":"market","qty":133,"side":"buy","symbol":"AAPL","time_in_force":"day"}"#,
        service_id: "orchestrator",
        strategy_id: "alpha_baseline",
        user_id: "",
        timestamp_s: 1_768_002_660,
        nonce: "11111111-2222-3333-4444-555555555555",
    };

    #[test]
    fn a_signature_matches_the_recorded_vector() {
        let signature = sign_request(b"test-secret", &REQUEST);

        assert_eq!(signature.body_hash, "6ab305722ec31ae6dedce36c4a990313619db51a09397e5e127c034f6eab2966");
        assert_eq!(signature.token, "5f3274f8fd26d6b443f2145486c6981c2007f58d80515b2fdc6d056d158a3f75");
    }

    #[test]
    fn each_part_of_a_request_is_signed() {
        let others = [
            SignedRequest { method: "GET", ..REQUEST },
            SignedRequest { path: "/api/v1/orders/", ..REQUEST },
            SignedRequest { query: "a=b", ..REQUEST },
            SignedRequest { body: b"", ..REQUEST },
            SignedRequest { service_id: "signal_service", ..REQUEST },
            SignedRequest { strategy_id: "", ..REQUEST },
            SignedRequest { user_id: "u", ..REQUEST },
            SignedRequest { timestamp_s: 1_768_002_661, ..REQUEST },
            SignedRequest { nonce: "11111111-2222-3333-4444-555555555556", ..REQUEST },
        ];
        let mut tokens: Vec<String> = others
            .iter()
            .chain([&REQUEST])
            .map(|request| sign_request(b"test-secret", request).token)
            .collect();
        tokens.push(sign_request(b"other-secret", &REQUEST).token);

        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 11);
    }

    #[test]
    fn the_body_of_a_get_is_the_empty_one() {
        let signature = sign_request(b"s", &SignedRequest { method: "GET", body: b"", ..REQUEST });

        assert_eq!(signature.body_hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
