//! Sets up tracing: one line an event on standard error or output, as text or as JSON.

mod line;

use std::cell::RefCell;
use std::fmt;

use tracing::subscriber::set_global_default;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::{FormatEvent, FormatFields, SubscriberBuilder, format};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Log, LogFormat, LogOutput};

use line::{Escapes, Line, Sink};

/// The log cannot be set up.
#[derive(Debug)]
pub enum LogError {
    /// The filter is malformed.
    Filter {
        /// The filter as written.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A subscriber is already installed in this process.
    AlreadySet,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { filter, problem } => write!(f, "log filter {filter:?}: {problem}"),
            Self::AlreadySet => f.write_str("logging is already set up"),
        }
    }
}

impl std::error::Error for LogError {}

/// Lines that wait for a slow log; more are dropped.
const WAITING_LINES_MAX: usize = 8192;

/// Changes the log of the running process, and writes what waits when it is dropped.
pub struct LogControl {
    set_filter: SetFilter,
    filter: RefCell<String>,
    _rest: WorkerGuard,
}

impl LogControl {
    /// Replaces the filter.
    ///
    /// # Errors
    /// [`LogError::Filter`].
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse_filter(filter)?;
        (self.set_filter)(parsed)
            .map_err(|error| LogError::Filter { filter: filter.to_owned(), problem: error.to_string() })?;
        filter.clone_into(&mut self.filter.borrow_mut());
        Ok(())
    }

    /// The filter in force.
    pub fn filter(&self) -> String {
        self.filter.borrow().clone()
    }
}

/// Installs the process's log subscriber. Lines are written by a thread of their own and bounded in number: a log that
/// nobody reads holds up no packet.
///
/// # Errors
/// See [`LogError`].
pub fn init(log: &Log) -> Result<LogControl, LogError> {
    let filter = parse_filter(&log.filter)?;
    let waiting = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES_MAX).thread_name("log");
    let ((writer, rest), sink) = match log.output {
        LogOutput::Stderr => (waiting.finish(std::io::stderr()), Sink::of(&std::io::stderr())),
        LogOutput::Stdout => (waiting.finish(std::io::stdout()), Sink::of(&std::io::stdout())),
    };
    log.addresses.apply();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let text = format().with_ansi(sink == Sink::Colours);
    let set_filter = match (log.format, sink) {
        // The journal has a clock.
        (LogFormat::Text, Sink::Journal) => {
            install(builder.event_format(Line { inner: text.without_time(), sink, escapes: Escapes::Text }))
        }
        (LogFormat::Text, _) => install(builder.event_format(Line { inner: text, sink, escapes: Escapes::Text })),
        // An object stays whole wherever it goes on to.
        (LogFormat::Json, _) => {
            let inner = format().json().flatten_event(true).with_current_span(false);
            let builder = builder.fmt_fields(JsonFields::new());
            install(builder.event_format(Line { inner, sink, escapes: Escapes::Json }))
        }
    };
    set_filter.map(|set_filter| LogControl { set_filter, filter: RefCell::new(log.filter.clone()), _rest: rest })
}

/// Why a service has not started, each line with the priority that the journal reads: its log may not be there yet.
pub fn start_error(message: &str) -> String {
    let prefix = line::error_prefix();
    message.lines().map(|line| format!("{prefix}{line}")).collect::<Vec<_>>().join("\n")
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>;

fn install<N, F>(builder: SubscriberBuilder<N, Line<F>, EnvFilter, NonBlocking>) -> Result<SetFilter, LogError>
where
    N: for<'w> FormatFields<'w> + Send + Sync + 'static,
    Line<F>: FormatEvent<Registry, N> + Send + Sync + 'static,
{
    let builder = builder.with_filter_reloading();
    let handle = builder.reload_handle();
    // Not `try_init`, which also takes in what dependencies write to the `log` crate: the webhook's client writes whole requests,
    // their token included.
    set_global_default(builder.finish()).map_err(|_| LogError::AlreadySet)?;
    Ok(Box::new(move |filter| handle.reload(filter)))
}

/// Checks a filter: a level (`info`) or directives (`info,turnstone::turn=debug`).
///
/// # Errors
/// [`LogError::Filter`].
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let malformed = |problem: String| LogError::Filter { filter: filter.to_owned(), problem };
    if filter.trim().is_empty() {
        return Err(malformed("is empty".to_owned()));
    }
    EnvFilter::builder().parse(filter).map_err(|error| malformed(error.to_string()))
}
