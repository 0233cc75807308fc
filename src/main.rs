//! The `turnstone` binary.

fn main() {}
