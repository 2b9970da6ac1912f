//! As much of XML as routers write: names of elements, and text. Pure.
//!
//! It neither validates nor resolves anything: no entity but the five of XML's own, no document type, no namespace beyond
//! cutting its prefix off. So nothing in a document makes it longer, or fetches anything.

/// What comes next in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An element begins; its name has no prefix.
    Open(&'a str),
    /// It ends.
    Close(&'a str),
    /// What stands between, as it is written, without space around it.
    Text(&'a str),
}

/// The tokens of a document, up to where it can't be read on.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    /// The end of an element that was closed as it was opened.
    closed: Option<&'a str>,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(document: &'a str) -> Tokens<'a> {
        Tokens { rest: document, closed: None }
    }

    /// What is before `end`, which is passed over too; `None` where it does not come.
    fn until(&mut self, end: &str) -> Option<&'a str> {
        let (before, after) = self.rest.split_once(end)?;
        self.rest = after;
        Some(before)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if let Some(name) = self.closed.take() {
            return Some(Token::Close(name));
        }
        loop {
            let at = self.rest.find('<')?;
            let (text, tag) = self.rest.split_at(at);
            self.rest = tag;
            if !text.trim().is_empty() {
                return Some(Token::Text(text.trim()));
            }
            if tag.starts_with("<!--") {
                self.until("-->")?;
            } else if let Some(data) = tag.strip_prefix("<![CDATA[") {
                self.rest = data;
                return Some(Token::Text(self.until("]]>")?.trim()));
            } else if tag.starts_with("<?") || tag.starts_with("<!") {
                self.until(">")?;
            } else {
                let inside = self.until(">")?.get(1..)?;
                let (is_end, inside) = match inside.strip_prefix('/') {
                    Some(inside) => (true, inside),
                    None => (false, inside),
                };
                let is_whole = inside.ends_with('/');
                let name = inside.trim_end_matches('/').split_ascii_whitespace().next().unwrap_or_default();
                let name = name.rsplit(':').next().unwrap_or_default();
                if is_end {
                    return Some(Token::Close(name));
                }
                self.closed = is_whole.then_some(name);
                return Some(Token::Open(name));
            }
        }
    }
}

/// The text in the first element of that name; empty if there is none in it, `None` without such an element.
pub(super) fn text_in<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let mut tokens = Tokens::of(document);
    tokens.find(|token| *token == Token::Open(name))?;
    match tokens.next()? {
        Token::Text(text) => Some(text),
        Token::Close(_) => Some(""),
        Token::Open(_) => None,
    }
}

/// Text with the five entities of XML's own resolved.
pub(super) fn unescape(text: &str) -> String {
    let resolved = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    resolved.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_text_are_told_and_all_else_is_passed_over() {
        let document = "<?xml version=\"1.0\"?><!-- <a> --><!DOCTYPE x>\n<s:root xmlns:s='u'> <a b='c'> text </a>\
            <e/><![CDATA[ <raw> ]]></s:root>";
        let all: Vec<Token<'_>> = Tokens::of(document).collect();
        let expected = [
            Token::Open("root"),
            Token::Open("a"),
            Token::Text("text"),
            Token::Close("a"),
            Token::Open("e"),
            Token::Close("e"),
            Token::Text("<raw>"),
            Token::Close("root"),
        ];
        assert_eq!(all, expected);
        assert_eq!(
            (text_in(document, "a"), text_in(document, "e"), text_in(document, "z")),
            (Some("text"), Some(""), None)
        );
        assert_eq!(unescape("a&amp;lt;b&quot;"), "a&lt;b\"");
    }

    #[test]
    fn what_is_cut_off_ends_where_it_can_not_be_read_on() {
        let document = "<a>x</a><!-- y --><![CDATA[z]]><b/>";
        for size in 0..document.len() {
            let whole: Vec<Token<'_>> = Tokens::of(document).collect();
            let part: Vec<Token<'_>> = Tokens::of(&document[..size]).collect();
            assert!(whole.starts_with(&part), "{size}: {part:?}");
        }
    }
}
