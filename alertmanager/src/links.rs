//! Signed links: whoever holds one may do one thing to one firing, for a while.
//!
//! A link opens a page with a button; only the button's POST changes anything, so that previews of chat
//! programs do not acknowledge.

use crate::alert::{Alert, Fingerprint};
use crate::hex;
use hmac::{Hmac, KeyInit, Mac};
use pharos_common::sample::TimestampMs;
use sha2::Sha256;

/// For how long a link works.
const VALID_MS: i64 = 24 * 3_600_000;

/// Signs and checks links.
#[derive(Clone)]
pub(crate) struct Links {
    key: [u8; 32],
    external_url: String,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("external_url", &self.external_url).finish_non_exhaustive()
    }
}

/// Why a link does not work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("this link is not valid")]
    Forged,
    #[error("this link has expired; use the alertmanager's page instead")]
    Expired,
}

impl Links {
    pub(crate) fn new(key: [u8; 32], external_url: &str) -> Self {
        Links { key, external_url: external_url.trim_end_matches('/').to_owned() }
    }

    /// A link to the page that acknowledges one firing of an alert.
    pub(crate) fn acknowledge(&self, alert: &Alert, now_ms: TimestampMs) -> String {
        format!("{}/{}", self.external_url, self.acknowledge_path(alert, now_ms))
    }

    /// The same, relative to this program's own pages.
    pub(crate) fn acknowledge_path(&self, alert: &Alert, now_ms: TimestampMs) -> String {
        let fingerprint = alert.fingerprint();
        let expires_ms = now_ms + VALID_MS;
        let signature = self.sign(fingerprint, alert.starts_at_ms, expires_ms);
        format!(
            "acknowledge/{fingerprint}?firing={}&expires={expires_ms}&signature={signature}",
            alert.starts_at_ms
        )
    }

    /// Whether a link may acknowledge this firing now.
    pub(crate) fn check(
        &self,
        fingerprint: Fingerprint,
        firing_ms: TimestampMs,
        expires_ms: TimestampMs,
        signature: &str,
        now_ms: TimestampMs,
    ) -> Result<(), LinkError> {
        let given = crate::unhex(signature).ok_or(LinkError::Forged)?;
        let mac = self.mac(fingerprint, firing_ms, expires_ms).ok_or(LinkError::Forged)?;
        // Compares in constant time.
        mac.verify_slice(&given).map_err(|_| LinkError::Forged)?;
        if now_ms >= expires_ms { Err(LinkError::Expired) } else { Ok(()) }
    }

    fn sign(&self, fingerprint: Fingerprint, firing_ms: TimestampMs, expires_ms: TimestampMs) -> String {
        self.mac(fingerprint, firing_ms, expires_ms)
            .map(|mac| hex(&mac.finalize().into_bytes()))
            .unwrap_or_default()
    }

    fn mac(&self, fingerprint: Fingerprint, firing_ms: i64, expires_ms: i64) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key).ok()?;
        mac.update(format!("acknowledge/{fingerprint}/{firing_ms}/{expires_ms}").as_bytes());
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::notice::tests::notice;

    #[test]
    fn a_link_works_for_its_firing_until_it_expires() {
        let links = Links::new([7; 32], "http://am/");
        let alert = notice().alerts.remove(0).alert;
        let url = links.acknowledge(&alert, 1_000);
        assert!(url.starts_with("http://am/acknowledge/"));
        let part = |name: &str| {
            let (_, rest) = url.split_once(&format!("{name}=")).unwrap();
            rest.split('&').next().unwrap().to_owned()
        };
        let (expires, signature): (i64, String) = (part("expires").parse().unwrap(), part("signature"));
        let fingerprint = alert.fingerprint();
        assert_eq!(links.check(fingerprint, 0, expires, &signature, 2_000), Ok(()));
        assert_eq!(links.check(fingerprint, 0, expires, &signature, expires), Err(LinkError::Expired));
        assert_eq!(links.check(fingerprint, 1, expires, &signature, 2_000), Err(LinkError::Forged));
        assert_eq!(links.check(fingerprint, 0, expires + 1, &signature, 2_000), Err(LinkError::Forged));
        assert_eq!(links.check(Fingerprint(1), 0, expires, &signature, 2_000), Err(LinkError::Forged));
        assert_eq!(links.check(fingerprint, 0, expires, "zz", 2_000), Err(LinkError::Forged));
        let other = Links::new([8; 32], "http://am/");
        assert_eq!(other.check(fingerprint, 0, expires, &signature, 2_000), Err(LinkError::Forged));
    }
}
