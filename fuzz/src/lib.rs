//! What each fuzz target does with its bytes. `tests/fuzz.rs` runs the same functions over a bounded number of inputs.
//!
//! A target must not panic, hang or take memory out of proportion, whatever the bytes are; and what it accepts must come
//! back as it is when it is written and read again.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use pigeonfs::localnet::decode_request;
use pigeonfs::thin::Document;
use pigeonfs::thin::frame::{self, FrameError, MAX_BODY_BYTES};
use pigeonfs::thin::message::{RequestFrame, ResponseFrame};

/// A target: its name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 4] =
    [("frames", frames), ("requests", requests), ("responses", responses), ("documents", documents)];

/// A stream of frames, as either end reads it.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let before = rest.len();
        // Memory is always ready, so one poll is the whole of it.
        let read = {
            let mut reading = pin!(frame::read_body(&mut rest));
            reading.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        match read {
            Poll::Ready(Ok(Some(body))) => {
                assert!(body.len() <= MAX_BODY_BYTES);
                assert_eq!(before - rest.len(), 4 + body.len(), "a frame is its prefix and its body");
            }
            Poll::Ready(Ok(None)) => return assert_eq!(before, 0, "the end stands between two frames"),
            Poll::Ready(Err(FrameError::TooLong { bytes })) => return assert!(bytes > MAX_BODY_BYTES),
            Poll::Ready(Err(_)) => return,
            Poll::Pending => panic!("memory is always ready"),
        }
    }
}

/// A body that a client sent, as localnet reads it.
pub fn requests(bytes: &[u8]) {
    if let Ok(request) = decode_request(bytes) {
        let again = frame::encode(&request).expect("no longer than what it was read from");
        assert_eq!(decode_request(&again[4..]).expect("our own"), request);
        assert_eq!(frame::decode::<RequestFrame>(&again[4..]).expect("our own"), request, "both read what we write");
    }
}

/// A body that a daemon sent.
pub fn responses(bytes: &[u8]) {
    if let Ok(response) = frame::decode::<ResponseFrame>(bytes) {
        let again = frame::encode(&response).expect("no longer than what it was read from");
        assert_eq!(frame::decode::<ResponseFrame>(&again[4..]).expect("our own"), response);
    }
}

/// A PKI document.
pub fn documents(bytes: &[u8]) {
    let _ = Document::parse(bytes);
}
