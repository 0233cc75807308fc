//! Policy from outside: default peer ranges in every form, rules against a naive model, quotas under any interleaving.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod matrix;
mod model;
mod quota;
mod rows;
