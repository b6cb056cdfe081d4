//! What each fuzz target does with its bytes. `tests/thin/fuzz.rs` runs the same functions over a bounded number of inputs.
//!
//! A target must not panic, hang or take memory out of proportion, whatever the bytes are; and what it accepts must come
//! back as it is when it is written and read again.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bech32::{Bech32m, Hrp};
use pigeonfs::bacap::{Capability, ReadCap, WriteCap, looks_secret};
use pigeonfs::drop::{Assembler, Header, Input, MAX_FILE_NAME_BYTES, SafeName, SafePath, SyncKey};
use pigeonfs::engine::control::{Answer, Request};
use pigeonfs::localnet::{Command, decode_request};
use pigeonfs::thin::frame::{self, FrameError, MAX_BODY_BYTES};
use pigeonfs::thin::message::{RequestFrame, ResponseFrame};
use pigeonfs::thin::{Config, Document};

/// A target: its name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("frames", frames),
    ("requests", requests),
    ("responses", responses),
    ("documents", documents),
    ("control", control),
    ("ctl", ctl),
    ("records", records),
    ("capabilities", capabilities),
    ("texts", texts),
    ("configs", configs),
    ("options", options),
];

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

/// A body on the control socket of a state: a question as the owner reads it, and an answer as the verb does.
pub fn control(bytes: &[u8]) {
    if let Ok(request) = frame::decode::<Request>(bytes) {
        let again = frame::encode(&request).expect("no longer than what it was read from");
        assert_eq!(frame::decode::<Request>(&again[4..]).expect("our own"), request);
    }
    let _ = frame::decode::<Answer>(bytes);
}

/// A line on the command socket of a localnet.
pub fn ctl(bytes: &[u8]) {
    if let Ok(command) = serde_json::from_slice::<Command>(bytes) {
        let again = serde_json::to_vec(&command).expect("JSON");
        serde_json::from_slice::<Command>(&again).expect("our own");
    }
}

/// The boxes of a drop, each behind two bytes of its length: 0 is a tombstone, and the largest is a lost box.
pub fn records(bytes: &[u8]) {
    let cap = WriteCap::from_seed(&[7; 32]);
    let mut assembler = Assembler::new(SyncKey::of(cap.read_cap()));
    let (mut counter, mut rest) = (cap.read_cap().index().counter(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = u16::from_be_bytes(*length);
        let (body, behind) = behind.split_at(usize::from(length).min(behind.len()));
        let input = match length {
            0 => Input::Tombstone,
            u16::MAX => Input::Lost,
            _ => Input::Box(body),
        };
        assembler.feed(counter, input);
        if let Ok((header, length)) = Header::decode(body) {
            assert!(length <= body.len());
            let name = SafeName::outside(header.file_name(), false);
            assert!((1..=MAX_FILE_NAME_BYTES).contains(&name.as_str().len()));
            assert!(!name.as_str().starts_with(['.', '-']) && !name.as_str().contains('/'), "{name:?}");
            let path = SafePath::outside(&header.path, false);
            assert!(path.names().iter().all(|name| !name.as_str().starts_with(['.', '-'])), "{path:?}");
        }
        (counter, rest) = (counter.wrapping_add(1), behind);
    }
}

/// The bytes of a capability.
pub fn capabilities(bytes: &[u8]) {
    if let Ok(cap) = ReadCap::from_bytes(bytes) {
        assert_eq!(&cap.to_bytes()[..], bytes);
    }
    if let Ok(cap) = WriteCap::from_bytes(bytes) {
        assert_eq!(&cap.to_bytes()[..], bytes);
    }
}

/// The text of a capability, in any form that `add` takes. Chance does not meet a checksum, so the bytes are tried as what
/// stands before one too.
pub fn texts(bytes: &[u8]) {
    text(bytes);
    for head in ["pigeon-read", "pigeon-write"] {
        // 1,023 letters are the longest text of the code.
        let payload = &bytes[..bytes.len().min(600)];
        let checked = bech32::encode::<Bech32m>(Hrp::parse_unchecked(head), payload).expect("short enough");
        text(checked.as_bytes());
    }
}

fn text(bytes: &[u8]) {
    let found = Capability::parse(bytes);
    if let Ok(Capability::Text(text)) = &found {
        for again in [text.encode(), text.encode_upper()] {
            assert_eq!(Capability::parse(again.as_bytes()).as_ref(), Ok(&Capability::Text(text.clone())), "our own");
            assert!(looks_secret(&again));
        }
    }
    if let (Ok(_), Ok(argument)) = (&found, std::str::from_utf8(bytes)) {
        assert!(looks_secret(argument), "an argument that `add` would take is refused");
    }
}

/// The configuration file of the command.
pub fn options(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = pigeonfs::cli::check_config(text);
}

/// A `thinclient.toml`.
pub fn configs(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = Config::parse(text) {
        assert_eq!(Config::parse(&config.to_toml()), Ok(config), "written and read again");
    }
}
