//! A text as a QR code, for a terminal or for a printer.

use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, EcLevel, QrCode};

use crate::errors::Failure;

/// The code, two modules a character. A ticket's letters are small ones, and a QR code takes capitals at two thirds of
/// the size; `join` takes both, as `recover` does.
///
/// # Errors
/// If the text is too long for one.
pub(crate) fn render(text: &str) -> Result<String, Failure> {
    // Light on dark, as most terminals are; readers take the other way round as well.
    Ok(code(text)?.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// The code as a picture for a page, with the light border that readers need.
///
/// # Errors
/// As [`render`].
pub(crate) fn svg(text: &str) -> Result<String, Failure> {
    const BORDER: usize = 4;
    let code = code(text)?;
    let (width, size) = (code.width(), code.width() + 2 * BORDER);
    let mut path = String::new();
    for (index, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            path += &format!("M{} {}h1v1h-1z", index % width + BORDER, index / width + BORDER);
        }
    }
    Ok(format!(
        "<svg viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\"><path d=\"{path}\"/></svg>"
    ))
}

fn code(text: &str) -> Result<QrCode, Failure> {
    QrCode::with_error_correction_level(text.to_ascii_uppercase(), EcLevel::L)
        .map_err(|error| Failure::Internal(format!("no QR code: {error}")))
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

    #[test]
    fn a_picture_for_a_page_has_the_three_corners_that_readers_look_for() {
        let picture = svg("abandon ability able").unwrap();
        for corner in ["M4 4h1", "M4 10h1", "M10 4h1"] {
            assert!(picture.contains(corner), "{picture}");
        }
        assert!(!picture.contains("M3 "), "the border is light");
    }
}
