//! Types that are not of the contract but close to one that is.

use quote::ToTokens;
use syn::{Error, GenericArgument, PathArguments, Result, Type, TypePath};

/// Refuses a type that cannot be a field's, where what to write instead is known.
///
/// Any other type is left to the compiler, which knows aliases: the trait `Field` lists what is
/// allowed.
pub(crate) fn check(field_type: &Type) -> Result<()> {
    let (what, instead) = match field_type {
        Type::Path(path) => return check_path(path),
        Type::Paren(inner) => return check(&inner.elem),
        Type::Group(inner) => return check(&inner.elem),
        Type::Reference(_) => (
            "a reference",
            "use `String` for `&str`, `Vec<_>` for a slice",
        ),
        Type::Array(_) | Type::Slice(_) => ("an array", "use `Vec<_>`"),
        Type::Tuple(_) => ("a tuple", "use a field for each part of it"),
        _ => return Ok(()),
    };
    Err(refusal(field_type, what, instead))
}

fn check_path(path: &TypePath) -> Result<()> {
    let Some(last) = path.path.segments.last() else {
        return Ok(());
    };
    let name = last.ident.to_string();
    let single = path.path.segments.len() == 1;
    let instead = match name.as_str() {
        "u8" | "i8" | "u16" | "i16" if single => "use `i32`",
        "u32" | "usize" | "isize" if single => "use `i64`",
        "u64" | "u128" | "i128" if single => "use `i64`, or `String` for what does not fit",
        "char" | "str" if single => "use `String`",
        "HashMap" | "BTreeMap" => "use two lists, one of keys and one of values",
        "HashSet" | "BTreeSet" | "VecDeque" => "use `Vec<_>` for a list",
        "Vec" => return check_arguments(&last.arguments, "Vec"),
        "Option" => return check_arguments(&last.arguments, "Option"),
        _ => return Ok(()),
    };
    Err(refusal(path, &format!("`{name}`"), instead))
}

/// Checks the `T` of a `Vec<T>` or an `Option<T>`.
fn check_arguments(arguments: &PathArguments, outer: &str) -> Result<()> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return Ok(());
    };
    for argument in &arguments.args {
        let GenericArgument::Type(inner) = argument else {
            continue;
        };
        let inner_name = match inner {
            Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
            _ => None,
        };
        match (outer, inner_name.as_deref()) {
            // Bytes.
            ("Vec", Some("u8")) => {}
            ("Option", Some("Option")) => {
                let what = "an `Option` in an `Option`";
                return Err(refusal(inner, what, "use one of them"));
            }
            _ => check(inner)?,
        }
    }
    Ok(())
}

fn refusal(tokens: impl ToTokens, what: &str, instead: &str) -> Error {
    let message = format!(
        "{what} is not a type of a row's field: {instead}\n\n\
         the types: bool, i32, i64, f32, f64, String, Vec<u8> (bytes), Timestamp;\n\
         `Vec` of one of these for a list, `Vec<Option<_>>` for one with null items;\n\
         `Option` of one of all these for what may be null"
    );
    Error::new_spanned(tokens, message)
}
