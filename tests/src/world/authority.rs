//! A certificate authority of a test's own, and a server whose certificate is by it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::programs::shell;
use crate::server::Server;

/// Makes the authority, and by it a certificate for this machine.
const MAKE: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj /CN=authority -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
        -keyout key.pem -out request.pem
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extra
    openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
        -extfile extra -out cert.pem 2>/dev/null
    chmod 600 key.pem";

/// An authority, whose files go when it is dropped.
pub struct Authority(TempDir);

impl Authority {
    /// Makes one, unlike any other.
    pub fn make() -> Authority {
        let directory = tempfile::tempdir().unwrap();
        shell(directory.path(), MAKE);
        Authority(directory)
    }

    /// The file with its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    /// Starts a server on `store` with a certificate by this authority.
    pub fn server(&self, store: &Path) -> Server {
        let file = |name: &str| self.0.path().join(name).display().to_string();
        let options = ["--cert", &file("cert.pem"), "--key", &file("key.pem")];
        Server::start_with(store, "127.0.0.1:0", &options)
    }
}
