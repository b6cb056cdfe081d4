//! Contact vouchers: how two people who share 32 bytes come to share a channel that nobody else who saw them can find.
//!
//! ```text
//! joiner                                       inductor (holds the voucher, given in person)
//!   mint(write cap, name) ─ voucher ──────────▶ derive the rendezvous stream of the voucher
//!   writes the payload to its box 0 ──────────▶ reads box 0, induct(voucher, payload, reply)
//!   reads box 1, open(secret, sealed reply) ◀── writes the sealed reply to box 1, tombstones box 0
//!   writes with the mutated write cap ────────▶ reads with the mutated read cap
//! ```
//!
//! All four calls are answered by the daemon alone. Source: `pigeonhole-internals.md` §6.

use std::fmt;

use tokio::time::Instant;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Client, malformed, octets, query};
use crate::bacap::{ReadCap, WriteCap};
use crate::thin::message::{Octets, VoucherDeriveStream, VoucherInduct, VoucherMint, VoucherOpen};
use crate::thin::{Error, ErrorKind, Operation};

/// A voucher: BLAKE2b-256 of its payload. Whoever knows it can read and write the rendezvous stream, so it shows
/// nothing.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Voucher(pub [u8; 32]);

impl fmt::Debug for Voucher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Voucher(..)")
    }
}

/// The rendezvous stream of a voucher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoucherStream {
    /// To write it.
    pub write_cap: WriteCap,
    /// To read it.
    pub read_cap: ReadCap,
}

/// What the joiner holds.
#[derive(Clone)]
pub struct MintedVoucher {
    /// To be given to the inductor.
    pub voucher: Voucher,
    /// For box 0 of the stream: some 450 bytes and the name.
    pub payload: Vec<u8>,
    /// Where the two meet.
    pub stream: VoucherStream,
    /// Opens the inductor's reply; keep it until then.
    pub secret_key: Zeroizing<Vec<u8>>,
    /// Its public half.
    pub public_key: Vec<u8>,
}

impl fmt::Debug for MintedVoucher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("MintedVoucher(..)")
    }
}

/// What the inductor gets of a voucher.
#[derive(Clone)]
pub struct Induction {
    /// The name that the joiner gave. Anybody can give any name: show it as such.
    pub display_name: String,
    /// Reads the joiner's channel, on the chain that only the two know.
    pub read_cap: ReadCap,
    /// For box 1 of the stream: the reply and some 360 bytes.
    pub sealed_reply: Vec<u8>,
    /// Where the two meet.
    pub stream: VoucherStream,
    /// What the chain was mutated with.
    pub salt: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Induction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Induction({:?})", self.display_name)
    }
}

/// What the joiner gets of the inductor's reply.
#[derive(Clone)]
pub struct OpenedReply {
    /// What the inductor said.
    pub who_reply: Vec<u8>,
    /// What the chain was mutated with.
    pub salt: Zeroizing<[u8; 32]>,
    /// Writes the joiner's channel, on the chain that only the two know; use it from now on.
    pub write_cap: WriteCap,
}

impl fmt::Debug for OpenedReply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "OpenedReply({} bytes)", self.who_reply.len())
    }
}

impl Client {
    /// Makes a voucher for the channel that `message` writes.
    pub async fn voucher_mint(
        &self,
        message: &WriteCap,
        display_name: &str,
        deadline: Instant,
    ) -> Result<MintedVoucher, Error> {
        let operation = Operation::Voucher;
        let (cap, name) = (message.clone(), display_name.to_owned());
        let frame = move |id| {
            let display_name = Some(name.clone());
            VoucherMint { query_id: query(id), message_write_cap: octets(&*cap.to_bytes()), display_name }.into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.voucher_mint_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(reply.error_code)?;
        Ok(MintedVoucher {
            voucher: Voucher(bytes32(reply.voucher, "no voucher")?),
            payload: required(reply.voucher_payload, "no payload")?,
            stream: stream(reply.voucher_write_cap, reply.voucher_read_cap)?,
            secret_key: Zeroizing::new(required(reply.voucher_secret_key, "no secret key")?),
            public_key: required(reply.voucher_public_key, "no public key")?,
        })
    }

    /// Takes a voucher's payload in, and makes the reply that only its minter opens. [`ErrorKind::Voucher`] where the
    /// payload is not that of the voucher (28), or is not signed by the channel that it names (29).
    pub async fn voucher_induct(
        &self,
        voucher: &Voucher,
        payload: &[u8],
        who_reply: &[u8],
        deadline: Instant,
    ) -> Result<Induction, Error> {
        let operation = Operation::Voucher;
        let (voucher, payload, who_reply) = (voucher.clone(), payload.to_vec(), who_reply.to_vec());
        let frame = move |id| {
            VoucherInduct {
                query_id: query(id),
                voucher: octets(&voucher.0),
                voucher_payload: octets(&payload),
                who_reply: octets(&who_reply),
            }
            .into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.voucher_induct_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(reply.error_code)?;
        let read_cap = ReadCap::from_bytes(&reply.mutated_message_read_cap.unwrap_or_default());
        Ok(Induction {
            display_name: reply.display_name,
            read_cap: read_cap.map_err(|_| malformed(operation, "no read capability"))?,
            sealed_reply: required(reply.sealed_reply, "no sealed reply")?,
            stream: stream(reply.voucher_write_cap, reply.voucher_read_cap)?,
            salt: Zeroizing::new(bytes32(reply.salt, "no salt")?),
        })
    }

    /// Opens the inductor's reply. [`ErrorKind::Voucher`] with code 30 where it is not sealed for this secret key.
    pub async fn voucher_open(
        &self,
        secret_key: &[u8],
        sealed_reply: &[u8],
        message: &WriteCap,
        deadline: Instant,
    ) -> Result<OpenedReply, Error> {
        let operation = Operation::Voucher;
        let (secret, sealed, cap) = (Zeroizing::new(secret_key.to_vec()), sealed_reply.to_vec(), message.clone());
        let frame = move |id| {
            VoucherOpen {
                query_id: query(id),
                voucher_secret_key: octets(&secret),
                sealed_reply: octets(&sealed),
                message_write_cap: octets(&*cap.to_bytes()),
            }
            .into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.voucher_open_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(reply.error_code)?;
        let write_cap = WriteCap::from_bytes(&reply.mutated_message_write_cap.unwrap_or_default());
        Ok(OpenedReply {
            // What was said may be nothing.
            who_reply: reply.who_reply.unwrap_or_default().0,
            salt: Zeroizing::new(bytes32(reply.salt, "no salt")?),
            write_cap: write_cap.map_err(|_| malformed(operation, "no write capability"))?,
        })
    }

    /// The rendezvous stream of a voucher, as both sides derive it.
    pub async fn voucher_derive_stream(&self, voucher: &Voucher, deadline: Instant) -> Result<VoucherStream, Error> {
        let operation = Operation::Voucher;
        let voucher = voucher.clone();
        let frame = move |id| VoucherDeriveStream { query_id: query(id), voucher: octets(&voucher.0) }.into();
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.voucher_derive_stream_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(reply.error_code)?;
        stream(reply.voucher_write_cap, reply.voucher_read_cap)
    }
}

fn check(code: u8) -> Result<(), Error> {
    let kind = match code {
        0 => return Ok(()),
        28..=30 => ErrorKind::Voucher(code),
        code => ErrorKind::Daemon(code),
    };
    Err(Error { operation: Operation::Voucher, kind })
}

fn stream(write_cap: Option<Octets>, read_cap: Option<Octets>) -> Result<VoucherStream, Error> {
    let write_cap = WriteCap::from_bytes(&write_cap.unwrap_or_default());
    let read_cap = ReadCap::from_bytes(&read_cap.unwrap_or_default());
    Ok(VoucherStream {
        write_cap: write_cap.map_err(|_| malformed(Operation::Voucher, "no write capability"))?,
        read_cap: read_cap.map_err(|_| malformed(Operation::Voucher, "no read capability"))?,
    })
}

fn required(bytes: Option<Octets>, what: &'static str) -> Result<Vec<u8>, Error> {
    bytes.map(|bytes| bytes.0).filter(|bytes| !bytes.is_empty()).ok_or_else(|| malformed(Operation::Voucher, what))
}

fn bytes32(bytes: Option<Octets>, what: &'static str) -> Result<[u8; 32], Error> {
    bytes.as_deref().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| malformed(Operation::Voucher, what))
}
