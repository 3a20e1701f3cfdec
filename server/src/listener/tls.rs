//! The encryption of connections: TLS 1.3 only, with a key exchange that resists quantum computers,
//! and no state kept between connections.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::NoServerSessionStorage;
use xfer_protocol::message::ALPN;

use crate::listener::identity::Identity;

/// The key exchanges, best first: the hybrid one, then those for clients without it.
static KEY_EXCHANGES: [&dyn SupportedKxGroup; 3] =
    [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];

/// The TLS configuration of a server with this identity.
///
/// # Errors
/// If the key does not match the certificate, or is of an unsupported kind.
pub fn server_config(identity: Identity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider =
        CryptoProvider { kx_groups: KEY_EXCHANGES.to_vec(), ..aws_lc_rs::default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Resumption would save little compared with the password's hash, and tickets are secrets to guard.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustls::NamedGroup;

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = Identity::of_store(one.path()).unwrap();
        let other = Identity::of_store(other.path()).unwrap();
        let mixed = Identity { chain: one.chain, key: other.key };
        assert!(server_config(mixed).is_err());
    }

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        let store = tempfile::tempdir().unwrap();
        let config = server_config(Identity::of_store(store.path()).unwrap()).unwrap();
        let first = config.crypto_provider().kx_groups.first().unwrap();
        assert_eq!(first.name(), NamedGroup::X25519MLKEM768);
    }
}
