//! The names of things: every identifier is a newtype, written in lower-case hexadecimal.
//!
//! Nothing here knows what an identifier stands for; the rules live beside the documents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text has another length than the identifier.
    #[error("expected {expected} hexadecimal characters, got {got}")]
    Length {
        /// Characters that the identifier has.
        expected: usize,
        /// Characters that were given.
        got: usize,
    },
    /// The text has a character outside `0-9a-f`.
    #[error("not lower-case hexadecimal")]
    Alphabet,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
            /// All bytes zero: stands for "none" where the format says so.
            pub const ZERO: Self = Self([0; $len]);

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight characters, enough to tell a handful of things apart on a screen.
            #[must_use]
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 2 * $len {
                    return Err(ParseIdError::Length { expected: 2 * $len, got: text.chars().count() });
                }
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| ParseIdError::Alphabet)?;
                Ok(Self(bytes.try_into().map_err(|_| ParseIdError::Alphabet)?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    let bytes = serde_bytes::ByteArray::<$len>::deserialize(deserializer)?;
                    Ok(Self(bytes.into_array()))
                }
            }
        }
    };
}

id!(
    /// A device: its Ed25519 public key, which is also its libp2p key.
    NodeId, 32
);
id!(
    /// A mesh: the hash of its founding bundle.
    MeshId, 32
);
id!(
    /// BLAKE3 of a bundle's signed header: the link that the next bundle of the feed carries.
    BundleHash, 32
);
id!(
    /// BLAKE3 of a blob's bytes.
    BlobHash, 32
);
id!(
    /// A person, to whom rights belong; devices only sign.
    PersonId, 16
);
id!(
    /// A job: random, or the hash of person and idempotency key.
    JobId, 16
);
id!(
    /// The trace that a job and everything it causes belong to (the size of a W3C trace id).
    TraceId, 16
);
id!(
    /// The public half of an invite's one-time key.
    InviteId, 32
);
id!(
    /// An entry of the ledger: BLAKE3 of its signed bytes.
    EntryId, 32
);
id!(
    /// A notebook.
    NoteId, 16
);

impl NoteId {
    /// The notebook of a subject of the ledger: named by the first half of the subject's name.
    #[must_use]
    pub fn of_idea(idea: EntryId) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&idea.0[..16]);
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_its_bytes() {
        let id = JobId([0xab; 16]);
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        let bytes = crate::cbor::encode(&id);
        assert_eq!(crate::cbor::decode::<JobId>(&bytes).expect("own bytes"), id);
    }

    #[test]
    fn a_wrong_text_says_what_is_wrong() {
        assert_eq!("ab".parse::<JobId>(), Err(ParseIdError::Length { expected: 32, got: 2 }));
        assert_eq!("Z".repeat(32).parse::<JobId>(), Err(ParseIdError::Alphabet));
    }
}
