//! Tickets: a string that is enough to join.
//!
//! `v6-` and Crockford-like base 32 of canonical CBOR, with a checksum over all characters, so that a mistyped or cut
//! ticket is told from a forged one before anything is dialled.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::cbor;
use crate::ids::{InviteId, MeshId, NodeId};
use crate::limits::{TICKET_ADDRS_MAX, TICKET_BYTES_MAX};
use crate::roster::Role;

const PREFIX: &str = "v6-";
const CHECKSUM_BYTES: usize = 5;

/// What a joiner needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The mesh to join.
    pub mesh: MeshId,
    /// The author of the mesh's first bundle.
    pub founder: NodeId,
    /// Seed of the invite's one-time key.
    pub secret: ByteArray<32>,
    /// Role that the invite gives.
    pub role: Role,
    /// Milliseconds since 1970 by the inviter's clock.
    pub expires_ms: u64,
    /// Members to ask, with their addresses as multiaddrs.
    pub members: Vec<(NodeId, Vec<String>)>,
}

/// Why a text is not a ticket. Each tells the user what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// Something else altogether.
    #[error("this is not a V6 ticket: one begins with `v6-`; ask for a new one (`v6 invite`)")]
    NotATicket,
    /// Characters are missing or differ.
    #[error("the ticket is damaged: characters are missing or mistyped; copy it again, whole")]
    Damaged,
    /// A ticket of another version.
    #[error("the ticket cannot be read by this version of v6: {0}")]
    Format(String),
}

impl Ticket {
    /// The ticket's text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = cbor::encode(self);
        bytes.extend(checksum(&bytes));
        format!("{PREFIX}{}", alphabet().encode(&bytes))
    }

    /// Reads a ticket.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        if text.len() > TICKET_BYTES_MAX {
            return Err(TicketError::NotATicket);
        }
        let bytes = alphabet().decode(body.as_bytes()).map_err(|_| TicketError::Damaged)?;
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TicketError::Damaged)?;
        let (payload, sum) = bytes.split_at(split);
        if checksum(payload) != *sum {
            return Err(TicketError::Damaged);
        }
        let ticket: Self = cbor::decode(payload).map_err(|e| TicketError::Format(e.to_string()))?;
        if ticket.members.is_empty() || ticket.members.iter().map(|(_, a)| a.len()).sum::<usize>() > TICKET_ADDRS_MAX {
            return Err(TicketError::Format("it names no member to ask, or too many addresses".into()));
        }
        Ok(ticket)
    }

    /// The invite's one-time key.
    #[must_use]
    pub fn invite_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.secret)
    }

    /// The invite's id.
    #[must_use]
    pub fn invite(&self) -> InviteId {
        InviteId(self.invite_key().verifying_key().to_bytes())
    }
}

fn alphabet() -> data_encoding::Encoding {
    let mut spec = data_encoding::Specification::new();
    spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    spec.encoding().expect("32 distinct symbols")
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("v6 ticket checksum 1", payload);
    hash[..CHECKSUM_BYTES].try_into().expect("5 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            mesh: MeshId([1; 32]),
            founder: NodeId([2; 32]),
            secret: ByteArray::new([3; 32]),
            role: Role::Worker,
            expires_ms: 9,
            members: vec![(NodeId([2; 32]), vec!["/ip4/127.0.0.1/tcp/1".into()])],
        }
    }

    #[test]
    fn a_ticket_survives_its_text() {
        assert_eq!(Ticket::decode(&format!(" {}\n", ticket().encode())), Ok(ticket()));
    }

    #[test]
    fn every_changed_or_missing_character_is_noticed() {
        let text = ticket().encode();
        for at in 3..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(Ticket::decode(std::str::from_utf8(&other).expect("ascii")), Err(TicketError::Damaged), "{at}");
            assert_eq!(Ticket::decode(&text[..at]), Err(TicketError::Damaged), "{at}");
        }
        assert_eq!(Ticket::decode("hello"), Err(TicketError::NotATicket));
    }
}
