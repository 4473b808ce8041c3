//! Whose certificates are believed: the system's authorities and those of `--ca`, or anybody's
//! with `--insecure`.

use std::path::Path;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::daemon::Usage;

/// Whom to believe.
#[derive(Debug)]
pub(in super::super) struct Trust {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) rigour: Rigour,
}

/// What a certificate that does not hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Rigour {
    /// The end.
    Strict,
    /// Told, and passed over.
    Insecure,
}

impl Trust {
    /// # Errors
    /// When `ca` cannot be read, or holds no certificate.
    pub(in super::super) fn new(ca: Option<&Path>, rigour: Rigour) -> anyhow::Result<Self> {
        // Where the system has none, a handshake says that nobody is believed.
        let mut roots = rustls_native_certs::load_native_certs().certs;
        if let Some(path) = ca {
            let wrong = |reason: String| {
                let path = path.display();
                Usage(format!(
                    "cannot use --ca {path}: {reason}; wanted is a PEM file of certificates"
                ))
            };
            let found = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(error.to_string()))?;
            if found.is_empty() {
                return Err(wrong("there is no certificate in it".to_owned()).into());
            }
            roots.extend(found);
        }
        Ok(Self { roots, rigour })
    }
}
