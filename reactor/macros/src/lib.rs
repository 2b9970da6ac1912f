//! The attributes `#[reactor::main]` and `#[reactor::test]`, which put a function's body into the reactor.
//!
//! They are documented where they are used: in the crate `reactor`, which gives them out again.
//!
//! What they are not: a runtime. Each only writes the call of `reactor::run` or `reactor::sim::check` that one would
//! write by hand; everything that happens then is in those functions.

mod expand;
mod settings;

use proc_macro::TokenStream;

/// See `reactor::main`.
#[proc_macro_attribute]
pub fn main(settings: TokenStream, function: TokenStream) -> TokenStream {
    expand::main(settings.into(), function.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// See `reactor::test`.
#[proc_macro_attribute]
pub fn test(settings: TokenStream, function: TokenStream) -> TokenStream {
    expand::test(settings.into(), function.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
