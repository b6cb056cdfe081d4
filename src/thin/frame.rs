//! Frames: how one CBOR item travels over a stream socket, in either direction.
//!
//! ```text
//! +--------------------+---------------------------+
//! | length: u32 BE     | body: exactly length bytes|
//! +--------------------+---------------------------+
//! ```
//!
//! The body is one CBOR map. The client and localnet share this definition, and so does the control
//! socket. Source: `thin-client-protocol.md` §2.1.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest body, in bytes, inclusive (40 MiB): every reader refuses a longer one before it allocates.
pub const MAX_BODY_BYTES: usize = 41_943_040;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix (or our own body) is beyond [`MAX_BODY_BYTES`].
    #[error("a frame of {bytes} bytes is over the limit of {MAX_BODY_BYTES}")]
    TooLong {
        /// The announced length.
        bytes: usize,
    },
    /// The body is not one CBOR item of the expected shape.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// The socket failed, or ended in the middle of a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One value as the bytes of a frame, prefix included, so that it can leave in a single write.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    ciborium::into_writer(value, &mut frame).map_err(|error| FrameError::Malformed(error.to_string()))?;
    let bytes = frame.len() - 4;
    if bytes > MAX_BODY_BYTES {
        return Err(FrameError::TooLong { bytes });
    }
    let prefix = u32::try_from(bytes).expect("MAX_BODY_BYTES fits u32").to_be_bytes();
    frame[..4].copy_from_slice(&prefix);
    Ok(frame)
}

/// The value that a body holds. Trailing bytes are an error, as in the daemon's own decoder.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let mut rest = body;
    let value = ciborium::from_reader(&mut rest).map_err(|error| FrameError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(FrameError::Malformed(format!("{} bytes after the item", rest.len())));
    }
    Ok(value)
}

/// The next body, or `None` where the stream ends between two frames. Not cancel-safe: one task reads.
pub async fn read_body<R: AsyncRead + Unpin>(socket: &mut R) -> Result<Option<Vec<u8>>, FrameError> {
    let mut prefix = [0; 4];
    match socket.read(&mut prefix[..1]).await? {
        0 => return Ok(None),
        _ => socket.read_exact(&mut prefix[1..]).await?,
    };
    let bytes = usize::try_from(u32::from_be_bytes(prefix)).expect("u32 fits usize");
    if bytes > MAX_BODY_BYTES {
        return Err(FrameError::TooLong { bytes });
    }
    // Grown as the bytes come: a lying prefix costs its sender, not us.
    let mut body = Vec::with_capacity(bytes.min(64 * 1024));
    let read = socket.take(bytes as u64).read_to_end(&mut body).await?;
    if read < bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended inside a frame").into());
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_comes_back_as_it_went() {
        let frame = encode(&"seventeen").expect("a short string fits");
        let mut stream = &frame[..];
        let body = read_body(&mut stream).await.expect("whole frame").expect("one frame");
        assert_eq!(decode::<String>(&body).expect("a string"), "seventeen");
        assert!(read_body(&mut stream).await.expect("clean end").is_none());
    }

    #[tokio::test]
    async fn a_prefix_over_the_limit_is_refused_before_its_body_comes() {
        let prefix = 41_943_041_u32.to_be_bytes();
        let error = read_body(&mut &prefix[..]).await.expect_err("one byte over");
        assert!(matches!(error, FrameError::TooLong { bytes: 41_943_041 }), "{error}");
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        let error = read_body(&mut &[0, 0, 0, 9, 1, 2][..]).await.expect_err("cut short");
        assert!(matches!(error, FrameError::Io(ref io) if io.kind() == io::ErrorKind::UnexpectedEof), "{error}");
    }

    #[test]
    fn bytes_after_the_item_are_an_error() {
        assert!(matches!(decode::<u8>(&[0x01, 0x02]), Err(FrameError::Malformed(_))));
    }
}
