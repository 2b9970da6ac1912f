//! What stands between the brackets of `#[reactor::test(..)]`.

use syn::parse::{Parse, ParseStream};
use syn::{Expr, Ident, Token};

/// How a test is run.
#[derive(Default)]
pub(crate) struct Settings {
    /// The seeds of the simulated worlds that it runs in; `None` for the real world.
    pub(crate) seeds: Option<Expr>,
    /// How these worlds are, if not as usual.
    pub(crate) config: Option<Expr>,
}

impl Parse for Settings {
    fn parse(input: ParseStream<'_>) -> syn::Result<Settings> {
        let mut settings = Settings::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let place = match name.to_string().as_str() {
                "seeds" => &mut settings.seeds,
                "config" => &mut settings.config,
                _ => {
                    return Err(syn::Error::new(name.span(), "there are `seeds = 0..100` and `config = ..`"));
                }
            };
            if place.is_some() {
                return Err(syn::Error::new(name.span(), "it has been given already"));
            }
            input.parse::<Token![=]>()?;
            *place = Some(input.parse()?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        match &settings {
            Settings { seeds: None, config: Some(config) } => Err(syn::Error::new_spanned(
                config,
                "the real world can't be configured: give `seeds` too, for simulated ones",
            )),
            _ => Ok(settings),
        }
    }
}
