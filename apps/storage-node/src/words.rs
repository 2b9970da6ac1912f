//! The owner's key as 24 words that a person can write down and type again.
//!
//! The words are those of BIP-39 in English: 256 bits, eleven to a word, and eight bits of checksum. They stand for the key
//! itself, which is drawn by chance, and not for a password from which one would be made: so there is no passphrase to them,
//! and whoever has them has the key.
//!
//! Not here: what the key brings back (`recover`).

use bip39::{Error, Language, Mnemonic};
use zeroize::Zeroizing;

use crate::errors::Failure;

/// How many there are: 256 bits and their checksum.
pub(crate) const COUNT: usize = 24;

/// The words of a key, with a space between them.
pub(crate) fn of(seed: &[u8; 32]) -> Zeroizing<String> {
    let mnemonic = Mnemonic::from_entropy_in(Language::English, seed).expect("32 bytes make 24 words");
    let mut text = Zeroizing::new(String::with_capacity(COUNT * 9));
    for (index, word) in mnemonic.words().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

/// The key that words stand for, as somebody typed them: in any case, on any number of lines, with or without the numbers that
/// they are shown with.
///
/// # Errors
/// `Failure::Words`, which names no word.
pub(crate) fn parse(text: &str) -> Result<Zeroizing<[u8; 32]>, Failure> {
    let wrong = |reason: String| Err(Failure::Words { reason });
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    for word in words_in(text) {
        if !plain.is_empty() {
            plain.push(' ');
        }
        plain.extend(word.chars().flat_map(char::to_lowercase));
    }
    let count = plain.split_whitespace().count();
    if count != COUNT {
        return wrong(format!("there are {COUNT} of them, and not {count}"));
    }
    match Mnemonic::parse_in_normalized(Language::English, &plain) {
        Ok(mnemonic) => {
            let mut seed = Zeroizing::new([0; 32]);
            let (bytes, _) = mnemonic.to_entropy_array();
            let bytes = Zeroizing::new(bytes);
            seed.copy_from_slice(&bytes[..32]);
            Ok(seed)
        }
        Err(Error::UnknownWord(index)) => wrong(format!("the {} is none of the 2,048", ordinal(index + 1))),
        Err(_) => wrong("they are no key: one of them is another one, or two have changed places".into()),
    }
}

/// How many words there are in what was typed so far.
pub(crate) fn count(text: &str) -> usize {
    words_in(text).count()
}

fn words_in(text: &str) -> impl Iterator<Item = &str> {
    let is_number = |word: &&str| word.trim_end_matches(['.', ')']).bytes().all(|byte| byte.is_ascii_digit());
    text.split_whitespace().filter(move |word| !is_number(word))
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_vectors_of_bip_39_hold() {
        let zeros = [["abandon"; 23].join(" "), "art".into()].join(" ");
        assert_eq!(*of(&[0; 32]), zeros);
        let seed = data_encoding::HEXLOWER
            .decode(b"68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c")
            .unwrap();
        let words = "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel \
                     tennis maple dilemma loan word shrug inflict delay length";
        assert_eq!(*of(&seed.clone().try_into().unwrap()), words);
        assert_eq!(parse(words).unwrap()[..], seed[..]);
    }

    #[test]
    fn words_are_read_as_people_type_them() {
        let words = of(&[9; 32]);
        let numbered: Vec<String> =
            words.split(' ').enumerate().map(|(index, word)| format!("{}. {word}", index + 1)).collect();
        for typed in [words.to_uppercase(), words.replace(' ', "\n \t"), numbered.join("\n")] {
            assert_eq!(*parse(&typed).unwrap(), [9; 32], "{typed}");
            assert_eq!(count(&typed), COUNT);
        }
    }

    #[test]
    fn a_slip_is_told_by_its_place_and_never_by_its_word() {
        let words = of(&[9; 32]);
        let mut list: Vec<&str> = words.split(' ').collect();
        list.swap(0, 1);
        assert!(reason(&list.join(" ")).contains("changed places"));
        list.swap(0, 1);
        let third = std::mem::replace(&mut list[2], "hunter2");
        let said = reason(&list.join(" "));
        assert!(said.contains("the 3rd") && !said.contains("hunter2"), "{said}");
        list[2] = third;
        assert!(reason(&list[1..].join(" ")).contains("not 23"));
        assert!(reason("").contains("not 0"));
    }

    proptest! {
        #[test]
        fn every_key_has_its_words(seed: [u8; 32]) {
            prop_assert_eq!(*parse(&of(&seed)).unwrap(), seed);
        }

        #[test]
        fn whatever_is_typed_is_an_error_or_a_key(text in "\\PC{0,300}") {
            let _ = parse(&text);
        }
    }
}
