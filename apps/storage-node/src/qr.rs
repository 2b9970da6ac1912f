//! A text as a QR code for a terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::errors::Failure;

/// The code, two modules a character. A ticket's letters are small ones, and a QR code takes capitals at two thirds of
/// the size; `join` takes both.
///
/// # Errors
/// If the text is too long for one.
pub(crate) fn render(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text.to_ascii_uppercase(), EcLevel::L)
        .map_err(|error| Failure::Internal(format!("no QR code: {error}")))?;
    // Light on dark, as most terminals are; readers take the other way round as well.
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_fits_a_terminal() {
        let picture = render(&"hypha1abc234".repeat(50)).unwrap();
        assert!(picture.lines().all(|line| line.chars().count() <= 100), "{picture}");
        assert!(picture.lines().count() <= 50);
    }
}
