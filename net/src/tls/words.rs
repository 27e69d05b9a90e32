//! Why a handshake failed, in the words of Go's TLS, which people and tools look for.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// What Go says of a handshake that ended like this.
pub fn reason(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(inner) => of_rustls(inner),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => error.to_string(),
    }
}

fn of_rustls(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Revoked) => {
            "transport: certificate revoked".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidForName) => {
            "client certificate authentication failed".to_owned()
        }
        Error::InvalidCertificate(wrong) => {
            format!(
                "tls: failed to verify certificate: x509: {}",
                of_certificate(wrong)
            )
        }
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidMessage(_) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Error::AlertReceived(alert) => match of_alert(*alert) {
            Some(words) => format!("remote error: tls: {words}"),
            None => format!("remote error: tls: alert({})", u8::from(*alert)),
        },
        Error::General(words) => words.clone(),
        other => format!("tls: {other}"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        // The second one is by an authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!("certificate has expired or is not yet valid: {error}")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        other => other.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        AlertDescription::CertificateRequired => "certificate required",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(error: Error) -> String {
        reason(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn failures_have_gos_words() {
        assert_eq!(
            words(CertificateError::UnknownIssuer.into()),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        );
        assert_eq!(
            words(Error::AlertReceived(AlertDescription::UnknownCA)),
            "remote error: tls: unknown certificate authority"
        );
        assert_eq!(
            words(CertificateError::NotValidForName.into()),
            "client certificate authentication failed"
        );
        assert_eq!(
            words(Error::NoCertificatesPresented),
            "tls: client didn't provide a certificate"
        );
        let other = io::Error::other("x509: certificate is valid for a, not b");
        assert_eq!(reason(&other), "x509: certificate is valid for a, not b");
        assert_eq!(reason(&io::ErrorKind::UnexpectedEof.into()), "EOF");
    }
}
