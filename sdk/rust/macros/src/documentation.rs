//! Doc comments as text.

use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// The text of the doc comments in `attributes`, empty if there are none.
pub(crate) fn documentation(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes.iter().filter_map(doc_comment).collect();
    lines.join("\n").trim().to_owned()
}

fn doc_comment(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else {
        return None;
    };
    match &meta.value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) if meta.path.is_ident("doc") => {
            let text = text.value();
            Some(text.strip_prefix(' ').unwrap_or(&text).to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use syn::{ItemStruct, parse_quote};

    use super::*;

    #[test]
    fn lines_are_joined_and_other_attributes_left_out() {
        let item: ItemStruct = parse_quote! {
            /// First.
            ///
            ///   Indented.
            #[derive(Clone)]
            #[doc = "Last."]
            struct Row;
        };
        assert_eq!(documentation(&item.attrs), "First.\n\n  Indented.\nLast.");
    }

    #[test]
    fn without_a_doc_comment_it_is_empty() {
        let item: ItemStruct = parse_quote!(
            #[doc(hidden)]
            struct Row;
        );
        assert_eq!(documentation(&item.attrs), "");
    }
}
