//! Whether the clock is right: a time-limited credential is good or expired by it, and so is a certificate.

use crate::clock::utc_text;
use crate::probe::{Status, Step};

use super::finding;

/// How far the time at which the program was installed may lie ahead, for file systems that round.
const LEEWAY_SECS: u64 = 120;

/// What there is to judge it by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs {
    pub(super) now_unix: u64,
    /// What the kernel says.
    pub(super) synchronised: Option<bool>,
    /// systemd-timesyncd has set the clock since the start of the machine.
    pub(super) told_by_timesyncd: bool,
    /// When the program's file was written.
    pub(super) program_written_unix: Option<u64>,
    /// When the server's certificate begins to be valid.
    pub(super) not_before_unix: Option<u64>,
}

pub(super) fn judge(inputs: &Inputs) -> Vec<Step> {
    let now = utc_text(inputs.now_unix);
    let earlier_than = |time: Option<u64>| time.filter(|time| inputs.now_unix.saturating_add(LEEWAY_SECS) < *time);
    let mut steps = Vec::new();
    if let Some(written) = earlier_than(inputs.program_written_unix) {
        let message = format!(
            "it says {now}, and this program was written to disk at {}: the clock is behind, and expired credentials pass",
            utc_text(written)
        );
        steps.push(finding("clock", Status::Fail, message));
    } else if let Some(not_before) = earlier_than(inputs.not_before_unix) {
        let message = format!(
            "it says {now}, and the certificate begins at {}: the clock is behind, or the certificate is of the future",
            utc_text(not_before)
        );
        steps.push(finding("clock", Status::Fail, message));
    }
    let (status, message) = match (inputs.synchronised, inputs.told_by_timesyncd) {
        (Some(true), _) => (Status::Ok, format!("synchronised; it says {now}")),
        (_, true) => (Status::Ok, format!("set by systemd-timesyncd; it says {now}")),
        (Some(false), false) => (
            Status::Warn,
            format!(
                "it says {now}, and nothing keeps it right, says the kernel: time-limited credentials expire early or late; \
                 run chrony or: timedatectl set-ntp true"
            ),
        ),
        (None, false) => (Status::Note, format!("it says {now}; whether something keeps it right cannot be told here")),
    };
    steps.push(finding("clock-sync", status, message).fact("now_unix", inputs.now_unix));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Inputs = Inputs {
        now_unix: 1_800_000_000,
        synchronised: Some(true),
        told_by_timesyncd: false,
        program_written_unix: Some(1_790_000_000),
        not_before_unix: Some(1_795_000_000),
    };

    fn statuses(inputs: &Inputs) -> Vec<(&'static str, Status)> {
        judge(inputs).into_iter().map(|step| (step.step, step.status)).collect()
    }

    #[test]
    fn a_clock_that_is_kept_right_is_ok_whoever_says_so() {
        assert_eq!(statuses(&GOOD), [("clock-sync", Status::Ok)]);
        let by_file = Inputs { synchronised: None, told_by_timesyncd: true, ..GOOD };
        assert_eq!(statuses(&by_file), [("clock-sync", Status::Ok)]);
        assert_eq!(statuses(&Inputs { synchronised: Some(false), ..GOOD }), [("clock-sync", Status::Warn)]);
        assert_eq!(statuses(&Inputs { synchronised: None, ..GOOD }), [("clock-sync", Status::Note)]);
    }

    #[test]
    fn a_clock_before_the_program_or_the_certificate_was_made_is_wrong() {
        for inputs in [Inputs { now_unix: 1_789_000_000, ..GOOD }, Inputs { now_unix: 1_794_000_000, ..GOOD }] {
            assert_eq!(statuses(&inputs), [("clock", Status::Fail), ("clock-sync", Status::Ok)]);
        }
        let just_installed = Inputs { program_written_unix: Some(GOOD.now_unix + 1), ..GOOD };
        assert_eq!(statuses(&just_installed), [("clock-sync", Status::Ok)]);
    }
}
