//! Limits what is logged of things that come and go.

use std::time::Duration;

use tokio::time::Instant;

/// Changes told in the log per period; an interface that comes and goes does not fill it.
const TOLD_MAX: u32 = 10;
const TOLD_PERIOD: Duration = Duration::from_secs(600);

/// Some lines in a period, and how many were left out.
#[derive(Default)]
pub(super) struct LogBudget {
    since: Option<Instant>,
    told: u32,
    untold: u32,
}

impl LogBudget {
    /// Calls `tell` with what to add to the line, unless too much has been told lately.
    pub(super) fn tell(&mut self, tell: impl FnOnce(&str)) {
        let now = Instant::now();
        if self.since.is_none_or(|since| now >= since + TOLD_PERIOD) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told >= TOLD_MAX {
            self.untold += 1;
            return;
        }
        self.told += 1;
        match std::mem::take(&mut self.untold) {
            0 => tell(""),
            untold => tell(&format!(" ({untold} earlier changes were not logged)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_told_ten_times_and_then_counted() {
        let mut budget = LogBudget::default();
        let mut told = Vec::new();
        (0..15).for_each(|_| budget.tell(|more| told.push(more.to_owned())));
        assert_eq!(told, [""; 10]);
        budget.since = Instant::now().checked_sub(TOLD_PERIOD);
        budget.tell(|more| told.push(more.to_owned()));
        assert_eq!(told.last().unwrap(), " (5 earlier changes were not logged)");
    }
}
