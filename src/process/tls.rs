//! TLS for every client in the process: rustls with ring.

/// Makes ring the cryptography of all TLS clients in the process. To be called before the first one is made; further
/// calls change nothing.
pub fn install_crypto() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("the cryptography of TLS was chosen before");
    }
}
