//! Words for errors that are always the same, without a derive: what only waits, spawns and passes values on is compiled
//! without procedural macros.

/// `Display` and `Error` for an error type, by a message or by what a closure writes.
macro_rules! error_says {
    ($error:ident $(<$value:ident>)?: $message:literal) => {
        $crate::error::error_says!($error $(<$value>)?: |_error, f| f.write_str($message));
    };
    ($error:ident $(<$value:ident>)?: |$this:ident, $f:ident| $say:expr) => {
        impl $(<$value>)? std::fmt::Display for $error $(<$value>)? {
            fn fmt(&self, $f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $this = self;
                $say
            }
        }

        impl $(<$value: std::fmt::Debug>)? std::error::Error for $error $(<$value>)? {}
    };
}

pub(crate) use error_says;
