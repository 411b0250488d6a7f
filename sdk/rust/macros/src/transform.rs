//! `#[transform]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, Ident, ItemFn, Result, Type};

use crate::documentation::documentation;
use crate::function::Function;

/// What a transformation turns into what.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    OnDemand,
    Batch,
}

impl Kind {
    /// What a function of this kind returns.
    pub(crate) fn returns(self) -> &'static str {
        match self {
            Self::OnDemand => {
                "an on-demand transformation gives exactly one row for each row: \
                 `Out` or `Result<Out, E>`, where `Out` has `#[derive(Row)]`"
            }
            Self::Batch => {
                "a batch transformation gives any number of rows for each row: `Vec<Out>`, \
                 `Option<Out>` or `impl IntoIterator<Item = Out>`, or a `Result` of one of these, \
                 where `Out` has `#[derive(Row)]`"
            }
        }
    }

    fn parse(arguments: TokenStream) -> Result<Self> {
        const KINDS: &str = "`#[transform(on_demand)]` gives one row for each row, \
                             `#[transform(batch)]` any number";
        if arguments.is_empty() {
            let message = format!("the kind is missing: {KINDS}");
            return Err(Error::new(Span::call_site(), message));
        }
        match syn::parse2::<Ident>(arguments.clone()) {
            Ok(kind) if kind == "on_demand" => Ok(Self::OnDemand),
            Ok(kind) if kind == "batch" => Ok(Self::Batch),
            _ => Err(Error::new_spanned(
                arguments,
                format!("not a kind: {KINDS}"),
            )),
        }
    }
}

/// The function as it was, and the glue or an error after it.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let glue = parse(item.clone())
        .and_then(|function| glue(Kind::parse(arguments)?, &function))
        .unwrap_or_else(|error| error.to_compile_error());
    quote! { #item #glue }
}

fn parse(item: TokenStream) -> Result<ItemFn> {
    let span = item.span();
    syn::parse2(item).map_err(|_| Error::new(span, "`#[transform]` stands on a function"))
}

fn glue(kind: Kind, item: &ItemFn) -> Result<TokenStream> {
    let function = Function::new(&item.sig, kind)?;
    let about = about(function.name, &documentation(&item.attrs));
    let (describe, run) = match kind {
        Kind::OnDemand => ("describe_on_demand", "run_on_demand"),
        Kind::Batch => ("describe_batch", "run_batch"),
    };
    let (describe, run) = (format_ident!("{describe}"), format_ident!("{run}"));
    let (input, call) = (function.input, call(&function));
    let output = type_or_inferred(function.output);
    let error = type_or_inferred(function.error);
    Ok(quote! {
        const _: () = {
            // All in one body, and with the types as the author wrote them: so the compiler says
            // only once, and there, that a type is not a row.
            const COMPONENT: ::unskew_sdk::__private::Transformation =
                ::unskew_sdk::__private::Transformation {
                    describe: || {
                        ::unskew_sdk::__private::#describe::<#input, #output, #error>(#about, #call)
                    },
                    run: |input| {
                        ::unskew_sdk::__private::#run::<#input, #output, #error>(input, #call)
                    },
                };

            struct Component;

            impl ::unskew_sdk::__private::contract::Guest for Component {
                fn describe() -> ::unskew_sdk::__private::contract::Description {
                    (COMPONENT.describe)()
                }

                fn run(
                    input: ::unskew_sdk::__private::contract::Batch,
                ) -> ::core::result::Result<
                    ::unskew_sdk::__private::contract::Output,
                    ::unskew_sdk::__private::contract::Failure,
                > {
                    (COMPONENT.run)(input)
                }
            }

            #[cfg(target_arch = "wasm32")]
            ::unskew_sdk::__private::export!(Component with_types_in ::unskew_sdk::__private);
        };
    })
}

fn about(name: &Ident, documentation: &str) -> TokenStream {
    let name = name.unraw().to_string();
    quote! {
        ::unskew_sdk::__private::About {
            component: ::core::env!("CARGO_PKG_NAME"),
            version: ::core::env!("CARGO_PKG_VERSION"),
            function: #name,
            documentation: #documentation,
        }
    }
}

/// A type as the author wrote it; `_`, at the same place, where it cannot be written here.
fn type_or_inferred(written: Option<&Type>) -> TokenStream {
    match written {
        Some(written @ Type::ImplTrait(_)) => quote_spanned!(written.span() => _),
        Some(written) => quote!(#written),
        None => quote!(_),
    }
}

/// The function as one that returns a `Result`.
fn call(function: &Function<'_>) -> TokenStream {
    let (name, input) = (function.name, function.input);
    if function.fallible {
        quote! { #name }
    } else {
        quote! {
            |row: #input| ::core::result::Result::Ok::<_, ::core::convert::Infallible>(#name(row))
        }
    }
}
