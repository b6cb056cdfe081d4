//! The signed form of a document: the certificate around it, and which authorities' signatures on it hold.
//!
//! ```text
//! { KeyType: tstr, Version: uint, Certified: bstr (the document), Expiration: uint (mixnet epoch),
//!   Signatures: { BLAKE2b-256 of the signer's key: { PublicKeySum256: the same, Payload: the signature } } }
//! ```
//!
//! What is signed is `Version (u32 LE) ‖ Expiration (u64 LE) ‖ KeyType ‖ Certified`. No text of upstream's says so: it
//! was found by verifying the document of a recorded conversation with a real network, which a test here repeats.
//! Ed25519 is verified; a hybrid with SPHINCS+ cannot be with the libraries that this crate stands on, and is told as
//! such, never passed over.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::lenient::or_default;
use super::{Document, MAX_DOCUMENT_BYTES};
use crate::thin::client::hash256;
use crate::thin::frame;
use crate::thin::message::{DirectoryAuthority, HASH_BYTES};

const ED25519: &str = "Ed25519";

/// Why bytes are no signed document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than any real one.
    #[error("a signed document of {0} bytes is over the limit of {MAX_DOCUMENT_BYTES}")]
    TooLong(usize),
    /// No certificate.
    #[error("it is no certificate: {0}")]
    Malformed(String),
}

/// A document with its authorities' signatures, as
/// [`Client::pki_document_raw`](crate::thin::Client::pki_document_raw) gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDocument {
    /// Version of the certificate's form: 0.
    pub version: u32,
    /// The last mixnet epoch in which it counts. That it has not passed is for the caller to see, who knows the time.
    pub expiration: u64,
    /// Scheme of the signatures.
    pub key_type: String,
    /// The document's bytes, which the signatures cover.
    pub certified: Vec<u8>,
    /// The signatures, by the BLAKE2b-256 of their signers' identity keys.
    pub signatures: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    version: u32,
    expiration: u64,
    key_type: String,
    certified: ByteBuf,
    #[serde(default, deserialize_with = "or_default")]
    signatures: BTreeMap<ByteBuf, WireSignature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSignature {
    payload: ByteBuf,
}

/// What became of one authority's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Valid,
    /// It does not: the document, the signature or the key is another one.
    Invalid,
    /// The authority did not sign.
    Missing,
    /// It is of a scheme that is not verified here; it says nothing either way.
    Unverifiable {
        /// The scheme.
        scheme: String,
    },
}

/// What became of the signatures, authority by authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Each authority's name and its verdict, in the order in which they were given.
    pub verdicts: Vec<(String, Verdict)>,
}

impl Verification {
    /// Signatures that hold.
    pub fn valid(&self) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Valid).count()
    }

    /// Whether more than half of the authorities signed, as the network itself demands of a document.
    pub fn is_consensus(&self) -> bool {
        self.valid() > self.verdicts.len() / 2
    }
}

impl SignedDocument {
    /// Reads a certificate. Verifies nothing: see [`Self::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(CertificateError::TooLong(bytes.len()));
        }
        let wire: Wire = frame::decode(bytes).map_err(|error| CertificateError::Malformed(error.to_string()))?;
        let signatures =
            wire.signatures.into_iter().map(|(signer, signature)| (signer.into_vec(), signature.payload.into_vec()));
        Ok(Self {
            version: wire.version,
            expiration: wire.expiration,
            key_type: wire.key_type,
            certified: wire.certified.into_vec(),
            signatures: signatures.collect(),
        })
    }

    /// Which of the authorities' signatures hold. Give authorities that you know from elsewhere: those that a daemon
    /// names tell only whether the daemon agrees with itself.
    pub fn verify(&self, authorities: &[DirectoryAuthority]) -> Verification {
        let message = self.message();
        // An authority that is named twice counts once.
        let mut seen = std::collections::BTreeSet::new();
        let authorities = authorities.iter().filter(|one| seen.insert(one.identity_key_hash.as_deref()));
        let verdicts = authorities.map(|authority| (authority.identifier.clone(), self.verdict(authority, &message)));
        Verification { verdicts: verdicts.collect() }
    }

    /// The document inside, whether or not anybody signed it.
    pub fn document(&self) -> Option<Document> {
        Document::parse(&self.certified)
    }

    fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.certified.len() + 64);
        message.extend_from_slice(&self.version.to_le_bytes());
        message.extend_from_slice(&self.expiration.to_le_bytes());
        message.extend_from_slice(self.key_type.as_bytes());
        message.extend_from_slice(&self.certified);
        message
    }

    fn verdict(&self, authority: &DirectoryAuthority, message: &[u8]) -> Verdict {
        let Some(hash) = authority.identity_key_hash.as_deref() else { return Verdict::Missing };
        let Some(signature) = self.signatures.get(hash) else { return Verdict::Missing };
        for scheme in [&authority.pki_signature_scheme, &self.key_type] {
            if !scheme.eq_ignore_ascii_case(ED25519) {
                return Verdict::Unverifiable { scheme: scheme.clone() };
            }
        }
        let holds = || {
            let key = pem_body(&authority.identity_public_key_pem)?;
            // The hash under which it signs must be that of the key with which it signs.
            if hash256(&key)[..] != *hash {
                return None;
            }
            let key = VerifyingKey::from_bytes(&<[u8; HASH_BYTES]>::try_from(key).ok()?).ok()?;
            key.verify_strict(message, &Signature::from_slice(signature).ok()?).ok()
        };
        if holds().is_some() { Verdict::Valid } else { Verdict::Invalid }
    }
}

/// The bytes of a PEM block, whatever its label.
fn pem_body(pem: &str) -> Option<Vec<u8>> {
    let mut lines = pem.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next()?.strip_prefix("-----BEGIN ")?;
    let body: String = lines.take_while(|line| !line.starts_with("-----END ")).collect();
    STANDARD.decode(body).ok()
}
