//! HTTPS: certificates from files, TLS 1.2 and 1.3.

use std::{path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    },
};

/// Why HTTPS cannot be spoken; one sentence that names the flag and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--{flag}: {file}: {source}")]
    Read { flag: &'static str, file: String, source: pem::Error },
    #[error("--ssl-certfile: {file} holds no certificate")]
    NoCertificate { file: String },
    #[error("--ssl-certfile and --ssl-keyfile cannot be used together: {0}")]
    Mismatch(rustls::Error),
}

/// Accepts TLS with the certificate chain and the key in two PEM files.
///
/// # Errors
/// When a file cannot be read, or the key is not the certificate's.
pub fn acceptor(certificates: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let unreadable = |flag, file: &Path| {
        let file = file.display().to_string();
        move |source| TlsError::Read { flag, file, source }
    };
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(unreadable("ssl-certfile", certificates))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: certificates.display().to_string() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable("ssl-keyfile", key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|versions| versions.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
