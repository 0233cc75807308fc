//! The Helm chart, rendered by Helm itself: the plain manifests are what it makes, Kubernetes' own schemas take both, and the pod that they
//! describe runs. There is no cluster here.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod chart;
mod fleet;
mod helm;
mod names;
#[path = "../netns/namespace.rs"]
// Its users there need more of it.
#[allow(dead_code)]
mod namespace;
mod pod;
