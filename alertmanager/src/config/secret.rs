//! Values that must not be shown: they read as `<secret>` wherever they are printed.

use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What stands in for a secret.
pub(crate) const REDACTED: &str = "<secret>";

/// A password, key or token.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret itself, to be sent and never to be shown.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// A URL that lets its holder in (incoming webhooks).
pub(crate) type SecretUrl = Secret;
