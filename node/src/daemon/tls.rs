//! The certificate that the API speaks TLS with where other machines can reach it: the owner's, else one of this node's own,
//! made once and kept in the data directory.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::cli::up::UpOptions;
use crate::platform::files;

const CERTIFICATE_FILE: &str = "tls.crt";
const KEY_FILE: &str = "tls.key";

/// What TLS is spoken with.
pub(super) fn load(options: &UpOptions) -> anyhow::Result<Arc<ServerConfig>> {
    let own = || (options.data_dir.join(CERTIFICATE_FILE), options.data_dir.join(KEY_FILE));
    let (certificate, key) = options.tls.clone().unwrap_or_else(own);
    if options.tls.is_none() && !(certificate.exists() && key.exists()) {
        make(&certificate, &key)?;
    }
    let unreadable = |path: &Path| format!("{} is no PEM file of TLS that can be read", path.display());
    let chain = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| unreadable(&certificate))?;
    let private = PrivateKeyDer::from_pem_file(&key).with_context(|| unreadable(&key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("{} and {} do not fit together", certificate.display(), key.display()))?;
    Ok(Arc::new(config))
}

/// A certificate that names this machine, signed by itself.
fn make(certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = host.trim();
    let named = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let of_host = (!host.is_empty()).then(|| [host.to_owned(), format!("{host}.local")]).into_iter().flatten();
    let made = rcgen::generate_simple_self_signed(named.into_iter().chain(of_host).collect::<Vec<_>>())
        .context("no certificate could be made")?;
    files::write_private(key, made.key_pair.serialize_pem().as_bytes())?;
    std::fs::write(certificate, made.cert.pem()).with_context(|| format!("writing {}", certificate.display()))?;
    Ok(())
}
