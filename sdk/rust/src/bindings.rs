//! The contract, `wit/transform.wit`, as Rust types.

#![allow(
    missing_docs,
    unsafe_code,
    clippy::allow_attributes_without_reason,
    reason = "generated: the WIT file documents the items, wit-bindgen answers for the boundary"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "transform",
    pub_export_macro: true,
    export_macro_name: "export",
    additional_derives: [PartialEq],
});
