//! What the words behind a method of `service!` say of it.
//!
//! What it is not: their grammar, which is the macro's (`service_macro.rs`).

/// What the words behind a method say.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    pub inline: bool,
    pub idempotent: bool,
    pub request_bytes_max: Option<usize>,
    pub reply_bytes_max: usize,
}

impl Flags {
    pub const NONE: Flags = Flags {
        inline: false,
        idempotent: false,
        request_bytes_max: None,
        reply_bytes_max: super::REPLY_SIZE_BYTES_DEFAULT,
    };

    #[must_use]
    pub const fn and(self, other: Flags) -> Flags {
        let is_default = other.reply_bytes_max == Flags::NONE.reply_bytes_max;
        Flags {
            inline: self.inline || other.inline,
            idempotent: self.idempotent || other.idempotent,
            request_bytes_max: match other.request_bytes_max {
                Some(bytes) => Some(bytes),
                None => self.request_bytes_max,
            },
            reply_bytes_max: if is_default { self.reply_bytes_max } else { other.reply_bytes_max },
        }
    }
}
