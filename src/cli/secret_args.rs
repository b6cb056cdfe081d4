//! Arguments that hold a capability: refused before anything reads them, and never printed. Every user of the machine can
//! see the arguments of a process, so what came as one has to be taken for known.

use std::ffi::OsString;
use std::path::Path;

use crate::bacap::looks_secret;
use crate::engine::control::{Failure, FailureKind};

/// Arguments that are longer do not appear in error texts.
const LONGEST_SHOWN: usize = 100;

/// Refuses a capability among the arguments.
///
/// # Errors
/// There is one; it is not repeated.
pub(super) fn refuse(arguments: &[OsString]) -> Result<(), Failure> {
    for argument in arguments.iter().skip(1) {
        let text = argument.to_string_lossy();
        // A value that stands right behind the letter of its option.
        let behind_letter = text.strip_prefix('-').and_then(|rest| rest.get(1..)).unwrap_or_default();
        if is_code(&text) && !Path::new(argument).exists() {
            return Err(Failure::new(
                FailureKind::Usage,
                "an argument is a code of `pigeonfs invite`. It was not used, but every user of this machine could see it",
            )
            .hint(
                "the code comes by stdin: `pigeonfs accept --as THEIRS --give OURS < code`. Whoever uses it first takes the \
                 other side's place: cancel the invitation, and make another",
            ));
        }
        if (looks_secret(&text) || looks_secret(behind_letter)) && !Path::new(argument).exists() {
            return Err(Failure::new(
                FailureKind::Usage,
                "an argument is a capability, an index, or a part of one. It was not used, but every user of this machine could see it",
            )
            .hint(
                "capabilities come by stdin or from a file: `pigeonfs add NAME < notes.cap`, --read-cap-file, \
                 --write-cap-file, --index-file. Take the one that was typed here for known to others",
            ));
        }
    }
    Ok(())
}

/// Whether it is 32 bytes in base64, with its end, also behind `--option=`.
fn is_code(text: &str) -> bool {
    const LETTERS: usize = 44;
    let at = text.len().saturating_sub(LETTERS);
    let Some((before, code)) = text.split_at_checked(at) else { return false };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    let is_alone = before.is_empty() || (before.starts_with('-') && before.ends_with('='));
    is_alone
        && code.strip_suffix('=').is_some_and(|digits| digits.len() == LETTERS - 1 && digits.bytes().all(is_base64))
}

/// An error text without the arguments that are as long as a secret may be.
pub(super) fn redacted(text: &str, arguments: &[OsString]) -> String {
    let mut text = text.to_owned();
    for argument in arguments {
        let argument = argument.to_string_lossy();
        for part in [argument.as_ref()].into_iter().chain(argument.split_once('=').map(|(_, value)| value)) {
            if part.len() > LONGEST_SHOWN {
                text = text.replace(part, &format!("({} characters)", part.chars().count()));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_arguments_are_not_repeated_and_neither_a_capability_nor_an_index_is_taken() {
        let long = "x".repeat(101);
        let arguments = [OsString::from("pigeonfs"), OsString::from(format!("--a={long}"))];
        assert_eq!(
            redacted(&format!("bad value '{long}' for 'NAME'"), &arguments),
            "bad value '(101 characters)' for 'NAME'"
        );
        let index = format!("{}=", "A".repeat(139));
        let typed = |arguments: &[&str]| refuse(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        for words in [
            &["receive", "-i", &index][..],
            &["receive", "--index", &index],
            &["receive", &format!("--index={index}")],
            &["receive", &format!("-i{index}")],
            &["receive", &index],
        ] {
            let failure = typed(&[&["pigeonfs"], words].concat()).expect_err("refused");
            assert!(!failure.to_string().contains("AAAA"));
        }
        let code = format!("{}=", "Qx7/".repeat(11).get(..43).expect("longer"));
        for words in [&["accept", &code][..], &["accept", "--as", &code], &["accept", &format!("--as={code}")]] {
            let failure = typed(&[&["pigeonfs"], words].concat()).expect_err("refused");
            assert!(failure.to_string().contains("a code") && !failure.to_string().contains("Qx7/"), "{failure}");
        }
        assert_eq!(typed(&["pigeonfs", "mount", &format!("--log={}", "a".repeat(44))]), Ok(()));
        assert_eq!(typed(&["pigeonfs", "receive", "-i", "short"]), Ok(()), "its option says what to do");
    }
}
