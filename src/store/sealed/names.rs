//! Names of staged files on the disk of a sealed state: encrypted one by one, and always to the same, so that a name is
//! found by what it is.

use std::io;

use aes_gcm_siv::aead::{Aead, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Names are padded to a multiple of this, so that fewer of them can be told by their length.
const PAD_BYTES: usize = 16;
/// The longest name: it takes 255 bytes on the disk, as many as a file system takes.
const LONGEST: usize = 175;

/// AES-256-GCM-SIV with one nonce for all: equal names are equal on the disk, and nothing else of them can be told.
pub(super) struct NameCipher(Aes256GcmSiv);

impl NameCipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Aes256GcmSiv::new(key.into()))
    }

    pub(super) fn seal(&self, name: &str) -> io::Result<String> {
        if name.len() > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        let mut padded = name.as_bytes().to_vec();
        // No name has a zero byte.
        padded.resize(name.len().next_multiple_of(PAD_BYTES).min(LONGEST), 0);
        let sealed = self.0.encrypt(&nonce(), padded.as_slice());
        let sealed = sealed.map_err(|_| io::Error::other("a name could not be encrypted"))?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    pub(super) fn open(&self, name: &str) -> Option<String> {
        let sealed = URL_SAFE_NO_PAD.decode(name).ok()?;
        let mut name = self.0.decrypt(&nonce(), sealed.as_slice()).ok()?;
        name.truncate(name.iter().rposition(|&byte| byte != 0)? + 1);
        String::from_utf8(name).ok()
    }
}

fn nonce() -> Nonce {
    Nonce::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_fit_the_disk() {
        let cipher = NameCipher::new(&[7; 32]);
        for name in ["a", "0123456789abcdef", "Übergabe.pdf", &"x".repeat(LONGEST)] {
            let sealed = cipher.seal(name).unwrap();
            assert!(sealed.len() <= 255 && !sealed.contains(['/', '.']), "{sealed}");
            assert_eq!(cipher.seal(name).unwrap(), sealed, "it is found by its name");
            assert_eq!(cipher.open(&sealed).as_deref(), Some(name));
            assert_eq!(NameCipher::new(&[8; 32]).open(&sealed), None);
        }
        assert_eq!(cipher.seal("short").unwrap().len(), cipher.seal("a bit longer").unwrap().len());
        assert_eq!(cipher.seal(&"x".repeat(LONGEST + 1)).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
        assert_eq!(cipher.open("lost+found"), None);
    }
}
