//! Signing: ed25519 (RFC 8032) over the canonical form.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ebb_record::Secret;
use ebb_record::ledger::Digest;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::canonical::canonical;
use super::{CERTIFICATE_VERSION, Certificate};
use crate::error::{Error, Result};

const KIND: &str = "certificate-signing";

/// Before what is signed, so that no other signature of the key passes for one of a certificate.
const CONTEXT: &[u8] = b"ebbinghaus v1 certificate\0";

/// Who may sign certificates: an ed25519 key in a file of its own, outside of every run.
#[derive(Debug)]
pub struct Signer(SigningKey);

/// The key that a signer publishes; 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A certificate with its signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// What is signed.
    pub certificate: Certificate,
    /// Whose key it was signed with. Anyone can make a key: trust the one you were given.
    pub signer: PublicKey,
    /// The signature.
    #[serde(with = "hex_signature")]
    signature: Signature,
}

impl Signer {
    /// Draws a new key from the system and writes it to `path`, which only its owner may read.
    ///
    /// # Errors
    /// [`Error::Run`] if something is there already, if the path lies within a run or a ledger,
    /// or if it cannot be written.
    pub fn create(path: &Path) -> Result<Signer> {
        let secret = Secret::create(path, KIND)?;
        Ok(Signer(SigningKey::from_bytes(secret.bytes())))
    }

    /// Reads the key at `path`.
    ///
    /// # Errors
    /// [`Error::Run`] if others may read it, if it lies within a run or a ledger, or if it is no
    /// such key.
    pub fn load(path: &Path) -> Result<Signer> {
        let secret = Secret::load(path, KIND)?;
        Ok(Signer(SigningKey::from_bytes(secret.bytes())))
    }

    /// The key to publish.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a certificate.
    ///
    /// # Errors
    /// [`Error::Overclaim`] if it claims more than it can; [`Error::NotACertificate`] if it is of
    /// another version, or has a number that JSON cannot keep.
    pub fn sign(&self, certificate: Certificate) -> Result<Signed> {
        if certificate.format_version != CERTIFICATE_VERSION {
            return Err(Error::NotACertificate(format!(
                "this program signs format version {CERTIFICATE_VERSION}"
            )));
        }
        if let Some(why) = certificate.overclaims() {
            return Err(Error::Overclaim(why));
        }
        let signer = self.public();
        let message = message(&certificate, &signer)?;
        // What was written must be what is read, numbers that are not finite included.
        let back = serde_json::to_vec(&certificate).map(|json| serde_json::from_slice(&json));
        match back {
            Ok(Ok::<Certificate, _>(back)) if back == certificate => {}
            _ => {
                let why = "one of its numbers is not finite, and JSON has none of those";
                return Err(Error::NotACertificate(why.into()));
            }
        }
        Ok(Signed {
            signature: self.0.sign(&message),
            certificate,
            signer,
        })
    }
}

impl Signed {
    /// Reads a signed certificate, and says nothing about its signature.
    ///
    /// # Errors
    /// [`Error::NotACertificate`].
    pub fn from_json(text: &str) -> Result<Signed> {
        let wrong = |e: serde_json::Error| Error::NotACertificate(e.to_string());
        let signed: Signed = serde_json::from_str(text).map_err(wrong)?;
        // Nothing may stand in it beside what is read, and so beside what is signed.
        let whole: serde_json::Value = serde_json::from_str(text).map_err(wrong)?;
        let same = canonical(&whole).and_then(|whole| Ok(whole == canonical(&signed)?));
        match same.map_err(Error::NotACertificate)? {
            true => Ok(signed),
            false => Err(Error::NotACertificate(
                "it has fields that are not in the schema, or lacks some that are".into(),
            )),
        }
    }

    /// The JSON to publish.
    ///
    /// # Errors
    /// [`Error::NotACertificate`] if it cannot be written.
    pub fn to_json(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(self);
        Ok(json.map_err(|e| Error::NotACertificate(e.to_string()))? + "\n")
    }

    /// The hash that the ledger's entry `certified` names: BLAKE3 of the canonical form, signature
    /// included.
    ///
    /// # Errors
    /// [`Error::NotACertificate`] if it has no canonical form.
    pub fn digest(&self) -> Result<Digest> {
        let bytes = canonical(self).map_err(Error::NotACertificate)?;
        Ok(Digest(*blake3::hash(&bytes).as_bytes()))
    }

    /// Whether the signature is of the key that it names.
    pub(super) fn is_signed(&self) -> Result<bool> {
        let message = message(&self.certificate, &self.signer)?;
        Ok(self
            .signer
            .0
            .verify_strict(&message, &self.signature)
            .is_ok())
    }
}

fn message(certificate: &Certificate, signer: &PublicKey) -> Result<Vec<u8>> {
    let mut message = CONTEXT.to_vec();
    message.extend(signer.0.as_bytes());
    message.extend(canonical(certificate).map_err(Error::NotACertificate)?);
    Ok(message)
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0.to_bytes()).fmt(f)
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    /// # Errors
    /// [`Error::PublicKey`] for anything but 64 lower-case hex digits of a point of the curve
    /// that is not of small order.
    fn from_str(text: &str) -> Result<PublicKey> {
        let read = || {
            let bytes: Digest = text.parse().ok()?;
            VerifyingKey::from_bytes(&bytes.0)
                .ok()
                .filter(|key| !key.is_weak())
        };
        read()
            .map(PublicKey)
            .ok_or_else(|| Error::PublicKey(text.chars().take(80).collect()))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

mod hex_signature {
    use super::*;

    pub fn serialize<S: Serializer>(
        signature: &Signature,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        let (r, s) = (Digest(*signature.r_bytes()), Digest(*signature.s_bytes()));
        serializer.serialize_str(&format!("{r}{s}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Signature, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || {
            let (r, s) = text.split_at_checked(64)?;
            let (r, s): (Digest, Digest) = (r.parse().ok()?, s.parse().ok()?);
            Some(Signature::from_components(r.0, s.0))
        };
        read().ok_or_else(|| serde::de::Error::custom("a signature has 128 lower-case hex digits"))
    }
}
