//! XPRESS and page tokens, without Python: what the extension computes, and what `cargo test` runs over.

pub mod tokens;
pub mod xpress;
