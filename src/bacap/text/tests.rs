use serde_json::Value;

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../testdata/capability-texts.json")).expect("JSON")
}

fn text_of(vector: &Value) -> &str {
    vector["text"].as_str().expect("a text")
}

/// What a vector says of its text.
fn described(vector: &Value) -> CapText {
    let hash = hex::decode(vector["network_hash"].as_str().expect("hex")).expect("hex").try_into().expect("4 bytes");
    let network = match vector["network"].as_str() {
        Some("unbound") => TextNetwork::Unbound,
        Some("real") => TextNetwork::Real(hash),
        _ => TextNetwork::Localnet(hash),
    };
    let cap = hex::decode(vector["capability"].as_str().expect("hex")).expect("hex");
    CapText {
        cap: AnyCap::from_bytes(&cap).expect("a capability"),
        kind: if vector["kind"] == "drop" { TextKind::Drop } else { TextKind::Stream },
        network,
        kept_until: vector["kept_until_minutes"].as_u64().map(|minutes| from_minutes(minutes as u32)),
    }
}

#[test]
fn the_vectors_of_an_independent_implementation_are_written_and_read() {
    for vector in vectors()["texts"].as_array().expect("texts") {
        let (text, expected) = (text_of(vector), described(vector));
        assert_eq!(*expected.encode(), text);
        assert_eq!(Capability::parse(text.as_bytes()), Ok(Capability::Text(expected.clone())));
        assert_eq!(Capability::parse(expected.encode_upper().as_bytes()), Ok(Capability::Text(expected)));
    }
}

#[test]
fn what_stands_around_a_text_and_where_its_lines_break_does_not_matter() {
    let vectors = vectors();
    let vector = &vectors["texts"][4];
    let (text, expected) = (text_of(vector), Capability::Text(described(vector)));
    let wrapped: String =
        text.as_bytes().chunks(64).map(|line| format!("> {}\r\n", String::from_utf8_lossy(line))).collect();
    for form in
        [format!("\"{text}\"\r\n"), format!("\u{feff}“{text}”\n"), format!("  '{text}' "), format!("<{text}>"), wrapped]
    {
        assert_eq!(Capability::parse(form.as_bytes()), Ok(expected.clone()), "{form}");
    }
    let raw = STANDARD.encode(&*expected.cap().to_bytes());
    let wrapped = format!("{}\r\n{}\r\n", &raw[..76], &raw[76..]);
    for form in [raw.clone(), format!("'{raw}'\n"), wrapped] {
        assert_eq!(Capability::parse(form.as_bytes()), Ok(Capability::Raw(expected.cap().clone())), "{form}");
    }
}

#[test]
fn each_wrong_thing_is_an_error_of_its_own_which_repeats_nothing_of_the_text() {
    for vector in vectors()["refused"].as_array().expect("texts") {
        let error = Capability::parse(text_of(vector).as_bytes()).expect_err("it is wrong");
        let place = vector["place"].as_u64().unwrap_or_default() as usize;
        let letters = text_of(vector).len();
        match vector["error"].as_str().expect("a kind of error") {
            "letter" => assert_eq!(error, TextError::WrongLetter { place, letters }),
            "case" => assert_eq!(error, TextError::MixedCase { place }),
            "length" => assert!(matches!(error, TextError::Length { .. }), "{error}"),
            "version" => assert_eq!(error, TextError::Version { version: 2 }),
            "unknown" => assert_eq!(error, TextError::Unknown),
            _ => assert!(matches!(error, TextError::Capability(_)), "{error}"),
        }
        assert!(!error.to_string().contains(&text_of(vector)[12..24]), "{error}");
    }
}

#[test]
fn every_single_wrong_letter_is_told_with_its_place_and_two_are_never_taken() {
    let vectors = vectors();
    let text = text_of(&vectors["texts"][2]);
    let changed = |text: &str, at: usize| {
        let letter = if text.as_bytes()[at] == b'q' { "p" } else { "q" };
        format!("{}{letter}{}", &text[..at], &text[at + 1..])
    };
    for at in 0..text.len() {
        let place = at + 1;
        let error = Capability::parse(changed(text, at).as_bytes()).expect_err("it is wrong");
        assert_eq!(error, TextError::WrongLetter { place, letters: text.len() });
        if at > 20 {
            assert!(Capability::parse(changed(&changed(text, at), at - 7).as_bytes()).is_err());
        }
    }
}

#[test]
fn what_is_no_text_of_ours_is_told_by_what_it_is() {
    let encoded = |length: usize| STANDARD.encode(vec![7; length]);
    assert_eq!(Capability::parse(b" \r\n"), Err(TextError::Empty));
    assert_eq!(Capability::parse(b"hello world"), Err(TextError::Neither { letters: 10 }));
    assert_eq!(Capability::parse(encoded(INDEX_BYTES).as_bytes()), Err(TextError::Index));
    assert_eq!(Capability::parse(encoded(3).as_bytes()), Err(TextError::Bytes { found: 3 }));
    assert!(matches!(Capability::parse(encoded(WRITE_CAP_BYTES).as_bytes()), Err(TextError::Capability(_))));
    assert!(Capability::parse(&[0xff, 0xfe, 0]).is_err());
}

#[test]
fn an_argument_that_holds_a_capability_is_known() {
    let vectors = vectors();
    let (read, write) = (text_of(&vectors["texts"][2]), text_of(&vectors["texts"][3]));
    let raw = STANDARD.encode(&*described(&vectors["texts"][2]).cap.to_bytes());
    for secret in [
        read.to_owned(),
        write.to_ascii_uppercase(),
        format!("--file={read}"),
        read[..90].to_owned(),
        raw.clone(),
        format!("--read-cap={raw}"),
        raw.trim_end_matches('=').replace('+', "-").replace('/', "_"),
        hex::encode(&*described(&vectors["texts"][3]).cap.to_bytes()),
        STANDARD.encode([7; INDEX_BYTES]),
        read.replace("pigeon-read1", "pigeon-raad1"),
    ] {
        assert!(looks_secret(&secret), "{secret}");
    }
    for plain in ["notes", "--state", "/home/a/.local/state/pigeonfs", "pigeon-read.txt", "--for=90d", ""] {
        assert!(!looks_secret(plain), "{plain}");
    }
}
