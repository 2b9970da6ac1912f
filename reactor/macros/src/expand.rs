//! From the function that somebody wrote to the one that is compiled.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{AttrStyle, Attribute, Error, FnArg, ItemFn, ReturnType, Safety};

use crate::settings::Settings;

/// `fn main() { body }` becomes a call of `reactor::run` with that body.
pub(crate) fn main(settings: TokenStream, function: TokenStream) -> syn::Result<TokenStream> {
    if !settings.is_empty() {
        return Err(Error::new_spanned(settings, "`#[reactor::main]` takes no settings"));
    }
    let function = parse(function)?;
    refuse_inputs(&function, "`main` takes nothing: ask `std::env::args`")?;
    Ok(in_the_reactor(&function, &quote!(::reactor::run)))
}

/// A test in the reactor, or in simulated worlds where it has seeds.
pub(crate) fn test(settings: TokenStream, function: TokenStream) -> syn::Result<TokenStream> {
    let settings: Settings = syn::parse2(settings)?;
    let function = parse(function)?;
    if let Some(twice) = function.attrs.iter().find(|attribute| is_test(attribute)) {
        return Err(Error::new_spanned(twice, "it would be two tests: `#[reactor::test]` is enough"));
    }
    let tested = match &settings.seeds {
        None => {
            refuse_inputs(
                &function,
                "a test in the real world takes nothing: give it `seeds` for a simulated one",
            )?;
            in_the_reactor(&function, &quote!(::reactor::run_test))
        }
        Some(seeds) => in_worlds(&function, seeds, &settings)?,
    };
    Ok(quote!(#[::core::prelude::v1::test] #tested))
}

fn is_test(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
}

/// The function, if it is one that can be called by a program or a harness.
fn parse(function: TokenStream) -> syn::Result<ItemFn> {
    let mut function: ItemFn = syn::parse2(function)?;
    // Those inside of its body go before it: its body will be inside of another.
    function.attrs.iter_mut().for_each(|attribute| attribute.style = AttrStyle::Outer);
    let signature = &function.sig;
    if let Some(word) = &signature.asyncness {
        return Err(Error::new_spanned(word, "it runs in a coroutine: calls that wait need no `async`"));
    }
    if let Some(word) = &signature.constness {
        return Err(Error::new_spanned(word, "what runs in a coroutine is no constant"));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "nobody calls it by another convention than Rust's"));
    }
    if let Safety::Unsafe(word) = &signature.safety {
        return Err(Error::new_spanned(word, "nobody could vouch for the call"));
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return Err(Error::new_spanned(&signature.ident, "nobody could choose what it is generic over"));
    }
    Ok(function)
}

fn refuse_inputs(function: &ItemFn, why: &str) -> syn::Result<()> {
    match function.sig.inputs.first() {
        Some(input) => Err(Error::new_spanned(input, why)),
        None => Ok(()),
    }
}

/// What it returns need not be `Send`, so it is told to the process or the test harness from inside.
fn in_the_reactor(function: &ItemFn, run: &TokenStream) -> TokenStream {
    let ItemFn { attrs, vis, sig, block, .. } = function;
    let name = &sig.ident;
    match &sig.output {
        ReturnType::Default => quote! {
            #(#attrs)* #vis fn #name() { #run(|| #block) }
        },
        ReturnType::Type(_, output) => quote! {
            #(#attrs)* #vis fn #name() -> ::std::process::ExitCode {
                #run(|| {
                    let body = || -> #output { #block };
                    ::std::process::Termination::report(body())
                })
            }
        },
    }
}

fn in_worlds(function: &ItemFn, seeds: &syn::Expr, settings: &Settings) -> syn::Result<TokenStream> {
    let ItemFn { attrs, vis, sig, block, .. } = function;
    let name = &sig.ident;
    let output = match &sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, output) => quote!(#output),
    };
    let world = match sig.inputs.len() {
        0 => quote!(_: &::reactor::sim::World),
        1 => match &sig.inputs[0] {
            FnArg::Typed(world) => quote!(#world),
            FnArg::Receiver(this) => return Err(Error::new_spanned(this, "a test has no `self`")),
        },
        _ => return Err(Error::new_spanned(&sig.inputs, "it is shown one thing: `world: &World`")),
    };
    let config = match &settings.config {
        Some(config) => quote!(#config),
        None => quote!(<::reactor::sim::SimConfig as ::core::default::Default>::default()),
    };
    Ok(quote! {
        #(#attrs)* #vis fn #name() {
            ::reactor::sim::check(&{ #config }, #seeds, |#world| -> #output { #block });
        }
    })
}
