//! `#[derive(Row)]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, Index, Result, Token};

use crate::documentation::documentation;
use crate::hint;

const ROW: &str = "a row is a struct with named fields, each of them a column";

/// The implementation of `Row`, or the errors.
pub(crate) fn derive(item: &DeriveInput) -> TokenStream {
    let columns = fields(item).and_then(columns);
    let row = &item.ident;
    match (check_generics(item), columns) {
        (Ok(()), Ok(columns)) => implementation(row, &columns),
        (Ok(()), Err(error)) => {
            let (error, stand_in) = (error.to_compile_error(), stand_in(row));
            quote! { #error #stand_in }
        }
        (Err(error), _) => error.to_compile_error(),
    }
}

/// A field that has been checked.
struct Column<'a> {
    field: &'a Ident,
    field_type: &'a syn::Type,
    name: String,
    description: String,
}

fn fields(item: &DeriveInput) -> Result<&Punctuated<Field, Token![,]>> {
    let wrong = |at: TokenStream, what: &str| Err(Error::new_spanned(at, format!("{what}: {ROW}")));
    match &item.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) if fields.named.is_empty() => wrong(
                item.ident.to_token_stream(),
                "a struct without fields is not a row",
            ),
            Fields::Named(fields) => Ok(&fields.named),
            Fields::Unnamed(fields) => {
                wrong(fields.to_token_stream(), "a tuple struct is not a row")
            }
            Fields::Unit => wrong(item.ident.to_token_stream(), "a unit struct is not a row"),
        },
        Data::Enum(data) => wrong(data.enum_token.to_token_stream(), "an enum is not a row"),
        Data::Union(data) => wrong(data.union_token.to_token_stream(), "a union is not a row"),
    }
}

fn check_generics(item: &DeriveInput) -> Result<()> {
    let generics = &item.generics;
    if generics.params.is_empty() && generics.where_clause.is_none() {
        return Ok(());
    }
    let message = "a row has no generic parameters: its columns have one type each";
    Err(Error::new_spanned(generics, message))
}

/// Checks all fields, so that all that is wrong is said at once.
fn columns(fields: &Punctuated<Field, Token![,]>) -> Result<Vec<Column<'_>>> {
    let mut errors: Option<Error> = None;
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        match column(field) {
            Ok(column) => columns.extend(column),
            Err(error) => match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            },
        }
    }
    errors.map_or(Ok(columns), Err)
}

fn column(field: &Field) -> Result<Option<Column<'_>>> {
    let Some(ident) = &field.ident else {
        return Ok(None);
    };
    let name = ident.unraw().to_string();
    if !name.is_ascii() {
        let message = "a column's name is ASCII: letters, digits and `_`";
        return Err(Error::new(ident.span(), message));
    }
    hint::check(&field.ty)?;
    Ok(Some(Column {
        field: ident,
        field_type: &field.ty,
        name,
        description: documentation(&field.attrs),
    }))
}

/// An implementation beside errors, so that each use of the row is not an error too.
fn stand_in(row: &Ident) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::unskew_sdk::Row for #row {
            type Readers = ();
            type Writers = ();

            fn fields() -> ::std::vec::Vec<::unskew_sdk::__private::contract::Field> {
                ::core::unreachable!()
            }

            fn readers(
                _: ::unskew_sdk::__private::Columns,
            ) -> ::core::result::Result<(), ::unskew_sdk::__private::FieldError> {
                ::core::unreachable!()
            }

            fn read(_: &(), _: usize) -> Self {
                ::core::unreachable!()
            }

            fn writers(_: usize) {}

            fn write(self, _: &mut ()) {}

            fn finish(
                _: (),
            ) -> ::core::result::Result<
                ::std::vec::Vec<::unskew_sdk::__private::contract::Column>,
                ::unskew_sdk::__private::FieldError,
            > {
                ::core::unreachable!()
            }
        }
    }
}

fn implementation(row: &Ident, columns: &[Column<'_>]) -> TokenStream {
    let index: Vec<Index> = (0..columns.len()).map(Index::from).collect();
    let field: Vec<_> = columns.iter().map(|column| column.field).collect();
    let field_type: Vec<_> = columns.iter().map(|column| column.field_type).collect();
    let name: Vec<_> = columns.iter().map(|column| &column.name).collect();
    let description: Vec<_> = columns.iter().map(|column| &column.description).collect();
    // As bounds, so that the compiler says once that a type is not a field's, and says it where the
    // type is written; without them it would say so for each use below.
    let bounds = field_type.iter().map(|field_type| {
        quote_spanned! { field_type.span() => #field_type: ::unskew_sdk::__private::Field }
    });
    quote! {
        #[automatically_derived]
        #[allow(trivial_bounds, reason = "for their errors")]
        impl ::unskew_sdk::Row for #row
        where
            #(#bounds,)*
        {
            type Readers = (#(::unskew_sdk::__private::FieldReader<#field_type>,)*);
            type Writers = (#(::unskew_sdk::__private::FieldWriter<#field_type>,)*);

            fn fields() -> ::std::vec::Vec<::unskew_sdk::__private::contract::Field> {
                ::std::vec![#(::unskew_sdk::__private::describe::<#field_type>(#name, #description)),*]
            }

            fn readers(
                mut columns: ::unskew_sdk::__private::Columns,
            ) -> ::core::result::Result<Self::Readers, ::unskew_sdk::__private::FieldError> {
                ::core::result::Result::Ok((#(columns.take(#name)?,)*))
            }

            #[inline]
            fn read(readers: &Self::Readers, row: usize) -> Self {
                Self { #(#field: readers.#index.read(row),)* }
            }

            fn writers(rows: usize) -> Self::Writers {
                (#(::unskew_sdk::__private::FieldWriter::new(#name, rows),)*)
            }

            #[inline]
            fn write(self, writers: &mut Self::Writers) {
                #(writers.#index.write(self.#field);)*
            }

            fn finish(
                writers: Self::Writers,
            ) -> ::core::result::Result<
                ::std::vec::Vec<::unskew_sdk::__private::contract::Column>,
                ::unskew_sdk::__private::FieldError,
            > {
                ::core::result::Result::Ok(::std::vec![#(writers.#index.finish()?),*])
            }
        }
    }
}
