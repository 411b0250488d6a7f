//! The function under `#[transform]`: what of its signature matters, and what may not be there.

use std::fmt::Display;

use quote::ToTokens;
use syn::{
    Error, FnArg, GenericArgument, Ident, PathArguments, Result, ReturnType, Signature, Type,
};

use crate::transform::Kind;

/// What of the signature of a transformation matters.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a Ident,
    /// The type of the row that comes in.
    pub(crate) input: &'a Type,
    /// What is returned, without a `Result` around it if its type is written out.
    pub(crate) output: Option<&'a Type>,
    /// The error, if its type is written out.
    pub(crate) error: Option<&'a Type>,
    /// Whether a `Result` is returned.
    pub(crate) fallible: bool,
}

impl<'a> Function<'a> {
    pub(crate) fn new(signature: &'a Signature, kind: Kind) -> Result<Self> {
        check_qualifiers(signature)?;
        let input = input(signature)?;
        let returned = returned(signature, kind)?;
        let arguments = type_arguments(returned, "Result");
        let fallible = arguments.is_some();
        let mut arguments = arguments.unwrap_or_else(|| vec![returned]).into_iter();
        let (output, error) = (arguments.next(), arguments.next());
        if let Some(output) = output {
            check_output(output, kind)?;
        }
        Ok(Self {
            name: &signature.ident,
            input,
            output,
            error,
            fallible,
        })
    }
}

fn check_qualifiers(signature: &Signature) -> Result<()> {
    if let Some(token) = &signature.asyncness {
        return refuse(
            token,
            "a transformation is not async: it has nothing to wait for, since it imports nothing",
        );
    }
    if let Some(token) = &signature.unsafety {
        return refuse(token, "a transformation is a safe function");
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi, "a transformation is an ordinary Rust function");
    }
    let generics = &signature.generics;
    if !generics.params.is_empty() {
        return refuse(
            &generics.params,
            "a transformation has no generic parameters: its columns have one type each",
        );
    }
    if let Some(clause) = &generics.where_clause {
        return refuse(clause, "a transformation has no `where` clause");
    }
    Ok(())
}

fn input(signature: &Signature) -> Result<&Type> {
    const ONE: &str = "a transformation takes one row, `fn f(row: In) -> Out`, \
                       where `In` has `#[derive(Row)]`";
    let mut parameters = signature.inputs.iter();
    let typed = match parameters.next() {
        None => return refuse(&signature.ident, ONE),
        Some(FnArg::Receiver(receiver)) => return refuse(receiver, ONE),
        Some(FnArg::Typed(typed)) => typed,
    };
    if let Some(second) = parameters.next() {
        let message = format!("{ONE}: make this parameter a field of the row");
        return refuse(second, message);
    }
    if let Some(variadic) = &signature.variadic {
        return refuse(variadic, ONE);
    }
    match &*typed.ty {
        Type::Reference(reference) => {
            let message = "a transformation takes its row by value, `row: In`";
            refuse(reference, message)
        }
        Type::ImplTrait(impl_trait) => refuse(impl_trait, ONE),
        input => Ok(input),
    }
}

fn returned(signature: &Signature, kind: Kind) -> Result<&Type> {
    match &signature.output {
        ReturnType::Type(_, returned) => Ok(returned),
        ReturnType::Default => {
            let message = format!("nothing is returned: {}", kind.returns());
            refuse(&signature.ident, message)
        }
    }
}

/// Refuses what is plainly of the other kind; the rest is left to the compiler.
fn check_output(output: &Type, kind: Kind) -> Result<()> {
    let many = matches!(output, Type::ImplTrait(_))
        || type_arguments(output, "Vec").is_some()
        || type_arguments(output, "Option").is_some();
    if many && kind == Kind::OnDemand {
        let message = format!(
            "{}; a transformation that gives any number of rows is `#[transform(batch)]`",
            kind.returns()
        );
        return refuse(output, message);
    }
    Ok(())
}

fn refuse<T>(tokens: impl ToTokens, message: impl Display) -> Result<T> {
    Err(Error::new_spanned(tokens, message))
}

/// The type arguments of a path that ends in `name`; `None` for any other type.
fn type_arguments<'a>(path: &'a Type, name: &str) -> Option<Vec<&'a Type>> {
    let Type::Path(path) = path else { return None };
    let last = path.path.segments.last()?;
    if last.ident != name {
        return None;
    }
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return Some(Vec::new());
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(argument) => Some(argument),
        _ => None,
    });
    Some(types.collect())
}
