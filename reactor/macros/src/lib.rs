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
    or_beside_it(expand::main(settings.into(), function.clone().into()), function)
}

/// See `reactor::test`.
#[proc_macro_attribute]
pub fn test(settings: TokenStream, function: TokenStream) -> TokenStream {
    or_beside_it(expand::test(settings.into(), function.clone().into()), function)
}

/// What it expands to; or its error and the function as it was, so that nothing else seems to be missing.
fn or_beside_it(expanded: syn::Result<proc_macro2::TokenStream>, function: TokenStream) -> TokenStream {
    match expanded {
        Ok(expanded) => expanded.into(),
        Err(error) => {
            let mut told: TokenStream = error.into_compile_error().into();
            told.extend(function);
            told
        }
    }
}
