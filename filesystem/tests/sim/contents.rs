//! Contents that tell who wrote them: each word of eight bytes holds a token and its place, so that a file which is put
//! together from two, cut, or filled up with zeros is recognised as nobody's.

/// Names one content that one mount wrote whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Token(pub(crate) u32);

/// Returns how long a content of size class `class` is: within a frame, a few frames, and a run of ten.
fn words(class: u8) -> u32 {
    [3, 200, 5_000, 12_000, 40_000][usize::from(class) % 5]
}

/// How many size classes there are.
pub(crate) const CLASSES: u32 = 5;

/// Returns the content of `token` in size class `class`.
pub(crate) fn content(token: Token, class: u8) -> Vec<u8> {
    let tag = u64::from(token.0) << 32 | u64::from(class) << 24;
    (0..words(class)).flat_map(|place| (tag | u64::from(place)).to_le_bytes()).collect()
}

/// Returns whose content this is, or `None` if nobody wrote it so.
pub(crate) fn token_of(bytes: &[u8]) -> Option<Token> {
    let first = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let (token, class) = (Token((first >> 32) as u32), (first >> 24) as u8);
    (content(token, class) == bytes).then_some(token)
}

/// Returns the length of contents of a class, in bytes.
pub(crate) fn length(class: u8) -> u64 {
    u64::from(words(class)) * 8
}

#[test]
fn a_mixture_is_nobodys() {
    let (mut one, two) = (content(Token(1), 2), content(Token(2), 2));
    assert_eq!((token_of(&one), token_of(&two)), (Some(Token(1)), Some(Token(2))));
    one[16_000..].copy_from_slice(&two[16_000..]);
    assert_eq!(token_of(&one), None);
    assert_eq!(token_of(&two[..two.len() - 8]), None);
}
