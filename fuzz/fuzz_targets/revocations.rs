//! Revocations as they are written in a file, a request, and the state directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::config::{WrittenRevocation, read_listed};

fuzz_target!(|bytes: &[u8]| {
    let mut problems = Vec::new();
    let whose = |written: &WrittenRevocation| {
        let whose = written.whose()?;
        Ok(turnstone::auth::Revocation { realm: None, whose, issued_before: None, until_unix: u64::MAX })
    };
    for revocation in read_listed(bytes, "list", &mut problems, whose) {
        let line = WrittenRevocation::from(&revocation).line();
        let mut none = Vec::new();
        assert_eq!(read_listed(line.as_bytes(), "list", &mut none, whose), [revocation]);
        assert!(none.is_empty());
    }
});
