//! QR codes on a terminal: two rows of modules in one line of half blocks.

use qrcodegen::{QrCode, QrCodeEcc};

use crate::engine::control::{Failure, FailureKind};

/// Modules of quiet around the code, as the standard asks for.
const QUIET: i32 = 4;
/// The smallest terminal that it is made for.
const COLUMNS: i32 = 80;
const LINES: i32 = 50;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Black and white, by the terminal's colours: on any background.
    Colours,
    /// The light modules, in the terminal's own foreground: on a dark background.
    Light,
    /// The dark modules, in the terminal's own foreground: on a light background.
    Dark,
}

/// The lines of a QR code that fits a terminal of 80 columns and 50 lines.
///
/// # Errors
/// The text is too long for that.
pub(super) fn lines(text: &str, ink: Ink) -> Result<Vec<String>, Failure> {
    let failed = || Failure::new(FailureKind::Failed, "the text is too long for a QR code on a terminal");
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).map_err(|_| failed())?;
    let size = code.size() + 2 * QUIET;
    if size > COLUMNS || (size + 1) / 2 >= LINES {
        return Err(failed());
    }
    let is_dark = |x: i32, y: i32| y < size && code.get_module(x - QUIET, y - QUIET);
    // What is past the last row is the terminal's own.
    let is_drawn = |x: i32, y: i32| if ink == Ink::Dark { is_dark(x, y) } else { y < size && !is_dark(x, y) };
    let line = |y: i32| {
        let row: String = (0..size)
            .map(|x| match (is_drawn(x, y), is_drawn(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            })
            .collect();
        // White on black, and nothing else: `Light` and this differ by the colours alone.
        if ink == Ink::Colours { format!("\x1b[97;40m{row}\x1b[0m") } else { row }
    };
    Ok((0..size).step_by(2).map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera sees of a terminal: grey values, 4 × 4 of them for each module.
    fn photograph(lines: &[String], background_is_dark: bool) -> (usize, usize, Vec<u8>) {
        const SCALE: usize = 4;
        let mut rows: Vec<Vec<bool>> = Vec::new();
        for line in lines {
            let (text, is_dark) = match line.strip_prefix("\x1b[97;40m") {
                Some(rest) => (rest.strip_suffix("\x1b[0m").expect("ended"), true),
                None => (line.as_str(), background_is_dark),
            };
            // Ink on a dark background is light.
            let shade = |drawn: bool| drawn == is_dark;
            rows.push(text.chars().map(|c| shade(matches!(c, '█' | '▀'))).collect());
            rows.push(text.chars().map(|c| shade(matches!(c, '█' | '▄'))).collect());
        }
        // A margin of the terminal around it.
        let (width, height, margin) = (rows[0].len(), rows.len(), 3);
        let is_light = |x: usize, y: usize| {
            let inside = (margin..margin + width).contains(&x) && (margin..margin + height).contains(&y);
            if inside { rows[y - margin][x - margin] } else { !background_is_dark }
        };
        let (width, height) = ((width + 2 * margin) * SCALE, (height + 2 * margin) * SCALE);
        let shade = |at: usize| if is_light(at % width / SCALE, at / width / SCALE) { 230 } else { 25 };
        (width, height, (0..width * height).map(shade).collect())
    }

    #[test]
    fn an_independent_decoder_reads_what_is_shown_on_dark_and_on_light_terminals() {
        for length in [246, 252, 298, 304] {
            let text: String = "PIGEON-READ1QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".chars().cycle().take(length).collect();
            for (ink, backgrounds) in [(Ink::Colours, &[true, false][..]), (Ink::Light, &[true]), (Ink::Dark, &[false])]
            {
                let lines = lines(&text, ink).expect("it fits");
                assert!(lines.len() < 50, "{} lines", lines.len());
                for &background_is_dark in backgrounds {
                    let (width, height, seen) = photograph(&lines, background_is_dark);
                    let mut image =
                        rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| seen[y * width + x]);
                    let grids = image.detect_grids();
                    assert_eq!(grids.len(), 1, "{ink:?}, {length}");
                    assert_eq!(grids[0].decode().expect("a QR code").1, text);
                }
            }
        }
        assert!(lines(&"A".repeat(1000), Ink::Dark).is_err());
    }
}
