//! Certificates and keys from files.

use std::path::Path;

use crate::export::otlp::options::{StartError, TlsFiles};

/// The contents of the PEM files.
#[derive(Default)]
pub struct Pem {
    /// Certificates to trust.
    pub roots: Option<Vec<u8>>,
    /// The client's certificate chain and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// Reads the files; refuses what holds no PEM of the kind, so that a swapped pair is found at start.
pub fn read(files: &TlsFiles) -> Result<Pem, StartError> {
    let roots =
        files.certificate.as_deref().map(|p| pem("the CA certificate", p, "CERTIFICATE")).transpose()?;
    let client = match &files.client {
        Some((certificate, key)) => Some((
            pem("the client certificate", certificate, "CERTIFICATE")?,
            pem("the client key", key, "PRIVATE KEY")?,
        )),
        None => None,
    };
    Ok(Pem { roots, client })
}

fn pem(what: &'static str, path: &Path, label: &str) -> Result<Vec<u8>, StartError> {
    let error = |why: String| StartError::Tls { what, path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|e| error(e.to_string()))?;
    let begins =
        |line: &[u8]| line.starts_with(b"-----BEGIN ") && line.ends_with(format!("{label}-----").as_bytes());
    let mut lines = bytes.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    if !lines.any(begins) {
        return Err(error(format!("it holds no PEM block `BEGIN {label}`")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.pem");
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\r\n-----END PRIVATE KEY-----\r\n").unwrap();
        let message = |certificate: &Path| {
            let files = TlsFiles { certificate: Some(certificate.to_owned()), client: None };
            read(&files).err().unwrap().to_string()
        };
        let missing = dir.path().join("none.pem");
        assert!(message(&missing).contains("none.pem: No such file"), "{}", message(&missing));
        assert!(message(&key).contains("holds no PEM block `BEGIN CERTIFICATE`"), "{}", message(&key));
        assert!(pem("the client key", &key, "PRIVATE KEY").is_ok());
    }
}
