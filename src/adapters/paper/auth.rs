//! The check of a signed request: who asks, when, over which bytes, and with a nonce that was never used.
//!
//! Source: CONTRACTS §5, "Service-to-service headers".

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::trading::signing::{SignedRequest, sign_request};

/// Difference between the request's time and ours that is taken, in seconds.
pub(super) const TOLERANCE_S: i64 = 300;
/// Nonces that are kept. Each is kept for twice the tolerance.
const NONCES_MAX: usize = 200_000;
/// Longest nonce.
const NONCE_BYTES_MAX: usize = 128;
/// Services that may ask, and the gateway's routes for each.
const SERVICES: [(&str, &[Permission]); 3] = [
    (
        "orchestrator",
        &[
            Permission::GenerateSignals,
            Permission::SubmitOrder,
            Permission::CancelOrder,
            Permission::ViewPositions,
        ],
    ),
    ("signal_service", &[Permission::GenerateSignals]),
    ("execution_gateway", &[Permission::SubmitOrder, Permission::CancelOrder]),
];

/// Right that a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// To have signals computed.
    GenerateSignals,
    /// To place orders.
    SubmitOrder,
    /// To cancel orders.
    CancelOrder,
    /// To see orders and positions.
    ViewPositions,
}

impl Permission {
    /// The word in a refusal.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::GenerateSignals => "generate_signals",
            Self::SubmitOrder => "submit_order",
            Self::CancelOrder => "cancel_order",
            Self::ViewPositions => "view_positions",
        }
    }
}

/// The signed headers of a request, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedHeaders {
    /// `X-Internal-Token`.
    pub token: Option<String>,
    /// `X-Internal-Timestamp`.
    pub timestamp: Option<String>,
    /// `X-Internal-Nonce`.
    pub nonce: Option<String>,
    /// `X-Service-ID`.
    pub service_id: Option<String>,
    /// `X-Body-Hash`.
    pub body_hash: Option<String>,
    /// `X-User-ID`.
    pub user_id: Option<String>,
    /// `X-Strategy-ID`.
    pub strategy_id: Option<String>,
}

/// A request that is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthRefusal {
    /// 401: no signature.
    AuthenticationRequired,
    /// 401: a signature that is wrong, too old, or was used before.
    InvalidToken,
    /// 403: the service may not.
    PermissionDenied(Permission),
    /// 503: no room for another nonce.
    NoRoom,
}

/// The secret, and the nonces that were used.
#[derive(Debug)]
pub(super) struct PaperAuth {
    /// Without one nothing is checked.
    secret: Option<Vec<u8>>,
    used: BTreeSet<(String, String)>,
    /// The same by the second in which they may be forgotten.
    by_end: BTreeMap<i64, Vec<(String, String)>>,
}

impl PaperAuth {
    /// Checks with `secret`; without one every request is let in.
    #[must_use]
    pub(super) const fn new(secret: Option<Vec<u8>>) -> Self {
        Self { secret, used: BTreeSet::new(), by_end: BTreeMap::new() }
    }

    /// Lets a request in, once. `request` has the method, the path, the query and the body; the rest is in `headers`.
    ///
    /// # Errors
    ///
    /// [`AuthRefusal`]: what the answer is.
    pub(super) fn admit_request(
        &mut self,
        headers: &SignedHeaders,
        request: &SignedRequest<'_>,
        permission: Permission,
        now_s: i64,
    ) -> Result<(), AuthRefusal> {
        let Some(secret) = &self.secret else { return Ok(()) };
        let (Some(token), Some(timestamp), Some(nonce), Some(service_id)) =
            (&headers.token, &headers.timestamp, &headers.nonce, &headers.service_id)
        else {
            return Err(AuthRefusal::AuthenticationRequired);
        };
        let known = SERVICES.iter().find(|(service, _)| service.eq_ignore_ascii_case(service_id));
        let seconds = timestamp.parse::<i64>().ok().filter(|seconds| seconds.to_string() == *timestamp);
        let (Some((_, permissions)), Some(timestamp_s)) = (known, seconds) else {
            return Err(AuthRefusal::InvalidToken);
        };
        let is_timely = now_s.abs_diff(timestamp_s) <= TOLERANCE_S.unsigned_abs();
        let signature = sign_request(
            secret,
            &SignedRequest {
                service_id,
                strategy_id: headers.strategy_id.as_deref().unwrap_or_default(),
                user_id: headers.user_id.as_deref().unwrap_or_default(),
                timestamp_s,
                nonce,
                ..*request
            },
        );
        let is_signed = is_equal_in_constant_time(token, &signature.token)
            && headers.body_hash.as_deref() == Some(signature.body_hash.as_str());
        if !is_timely || !is_signed || NONCE_BYTES_MAX < nonce.len() {
            return Err(AuthRefusal::InvalidToken);
        }
        self.use_nonce(service_id.to_ascii_lowercase(), nonce.clone(), now_s)?;
        if permissions.contains(&permission) {
            Ok(())
        } else {
            Err(AuthRefusal::PermissionDenied(permission))
        }
    }

    fn use_nonce(&mut self, service_id: String, nonce: String, now_s: i64) -> Result<(), AuthRefusal> {
        while let Some(entry) = self.by_end.first_entry().filter(|entry| *entry.key() < now_s) {
            for key in entry.remove() {
                self.used.remove(&key);
            }
        }
        let key = (service_id, nonce);
        if self.used.contains(&key) {
            return Err(AuthRefusal::InvalidToken);
        }
        if NONCES_MAX <= self.used.len() {
            return Err(AuthRefusal::NoRoom);
        }
        self.by_end.entry(now_s.saturating_add(2 * TOLERANCE_S)).or_default().push(key.clone());
        self.used.insert(key);
        Ok(())
    }
}

/// Compares all of both texts, so that the time tells nothing about where they differ.
fn is_equal_in_constant_time(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_768_002_660;
    const BODY: &[u8] =
        br#"{"order_type":"market","qty":133,"side":"buy","symbol":"AAPL","time_in_force":"day"}"#;
    const REQUEST: SignedRequest<'static> = SignedRequest {
        method: "POST",
        path: "/api/v1/orders",
        query: "",
        body: BODY,
        service_id: "",
        strategy_id: "",
        user_id: "",
        timestamp_s: 0,
        nonce: "",
    };

    /// The recorded vector.
    fn headers() -> SignedHeaders {
        let text = |text: &str| Some(text.to_owned());
        SignedHeaders {
            token: text("5f3274f8fd26d6b443f2145486c6981c2007f58d80515b2fdc6d056d158a3f75"),
            timestamp: text("1768002660"),
            nonce: text("11111111-2222-3333-4444-555555555555"),
            service_id: text("orchestrator"),
            body_hash: text("6ab305722ec31ae6dedce36c4a990313619db51a09397e5e127c034f6eab2966"),
            user_id: None,
            strategy_id: text("alpha_baseline"),
        }
    }

    fn admit(auth: &mut PaperAuth, headers: &SignedHeaders, now_s: i64) -> Result<(), AuthRefusal> {
        auth.admit_request(headers, &REQUEST, Permission::SubmitOrder, now_s)
    }

    fn auth() -> PaperAuth {
        PaperAuth::new(Some(b"test-secret".to_vec()))
    }

    #[test]
    fn the_recorded_vector_is_let_in_once() {
        let mut auth = auth();

        assert_eq!(admit(&mut auth, &headers(), NOW_S), Ok(()));
        assert_eq!(admit(&mut auth, &headers(), NOW_S), Err(AuthRefusal::InvalidToken));
    }

    #[test]
    fn the_time_has_a_window() {
        for (offset, admitted) in [(-300, true), (300, true), (-301, false), (301, false)] {
            assert_eq!(admit(&mut auth(), &headers(), NOW_S + offset).is_ok(), admitted, "{offset}");
        }
    }

    #[test]
    fn what_is_changed_missing_or_foreign_is_refused() {
        let changed: [fn(&mut SignedHeaders); 8] = [
            |headers| headers.token = Some("00".repeat(32)),
            |headers| headers.timestamp = Some("01768002660".to_owned()),
            |headers| headers.timestamp = Some("now".to_owned()),
            |headers| headers.nonce = Some("other".to_owned()),
            |headers| headers.service_id = Some("stranger".to_owned()),
            |headers| headers.body_hash = None,
            |headers| headers.user_id = Some("u".to_owned()),
            |headers| headers.strategy_id = None,
        ];
        for (number, change) in changed.iter().enumerate() {
            let mut headers = headers();
            change(&mut headers);
            assert_eq!(admit(&mut auth(), &headers, NOW_S), Err(AuthRefusal::InvalidToken), "{number}");
        }
        let unsigned = SignedHeaders::default();
        assert_eq!(admit(&mut auth(), &unsigned, NOW_S), Err(AuthRefusal::AuthenticationRequired));
        assert_eq!(admit(&mut PaperAuth::new(None), &unsigned, NOW_S), Ok(()));
    }

    #[test]
    fn a_service_has_its_rights_only() {
        let nonce = "n";
        let signed = SignedRequest { service_id: "signal_service", timestamp_s: NOW_S, nonce, ..REQUEST };
        let signature = sign_request(b"test-secret", &signed);
        let headers = SignedHeaders {
            token: Some(signature.token),
            body_hash: Some(signature.body_hash),
            nonce: Some(nonce.to_owned()),
            service_id: Some("signal_service".to_owned()),
            strategy_id: None,
            ..headers()
        };

        let refused = Err(AuthRefusal::PermissionDenied(Permission::SubmitOrder));
        assert_eq!(admit(&mut auth(), &headers, NOW_S), refused);
    }

    #[test]
    fn nonces_are_forgotten_after_their_time_and_never_without_bound() {
        let mut auth = auth();
        for number in 0..NONCES_MAX {
            auth.use_nonce("s".to_owned(), number.to_string(), 0).unwrap();
        }

        assert_eq!(auth.use_nonce("s".to_owned(), "n".to_owned(), 600), Err(AuthRefusal::NoRoom));
        assert_eq!(auth.use_nonce("s".to_owned(), "n".to_owned(), 601), Ok(()));
        assert_eq!(auth.used.len(), 1);
    }
}
