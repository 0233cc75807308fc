//! The two text formats of metrics: OpenMetrics 1.0 for those who ask for it, and what Prometheus reads since version 0.0.4 for
//! everybody else.

use std::fmt::{self, Write};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposition {
    OpenMetrics,
    Prometheus,
}

/// Thousandths of an HTTP quality value.
const QUALITY_MAX: u16 = 1000;

impl Exposition {
    /// The format for a request with these Accept headers: OpenMetrics must be named, and not be liked less than plain text.
    pub(super) fn wanted<'h>(accepted: impl Iterator<Item = &'h str>) -> Self {
        let (mut open_metrics, mut plain, mut any) = (0, None, 0);
        for range in accepted.flat_map(|header| header.split(',')) {
            let (kind, version, quality) = media_range(range);
            match (kind, version) {
                (Some(Kind::OpenMetrics), None | Some("1.0.0" | "0.0.1")) => open_metrics = open_metrics.max(quality),
                (Some(Kind::Plain), None | Some("0.0.4")) => plain = plain.max(Some(quality)),
                (Some(Kind::Any), _) => any = any.max(quality),
                _ => {}
            }
        }
        match open_metrics > 0 && open_metrics >= plain.unwrap_or(any) {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Metrics written in OpenMetrics, in this format.
    pub(super) fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => to_prometheus(&open_metrics),
        }
    }
}

enum Kind {
    OpenMetrics,
    Plain,
    Any,
}

/// The parts of a media range that count here (RFC 9110 section 12.5.1).
fn media_range(range: &str) -> (Option<Kind>, Option<&str>, u16) {
    let mut parts = range.split(';').map(str::trim);
    let kind = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "application/openmetrics-text" => Some(Kind::OpenMetrics),
        "text/plain" => Some(Kind::Plain),
        "*/*" | "text/*" => Some(Kind::Any),
        _ => None,
    };
    let (mut version, mut quality) = (None, QUALITY_MAX);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value.trim().trim_matches('"')),
            "q" => {
                quality = value.trim().parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * f32::from(QUALITY_MAX)) as u16)
            }
            _ => {}
        }
    }
    (kind, version, quality)
}

fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // Writing to a string cannot fail.
    let _ = write_prometheus(&mut text, open_metrics);
    text
}

/// In the older format a counter's family has the name of its samples, and there are neither units nor an end.
fn write_prometheus(out: &mut String, open_metrics: &str) -> fmt::Result {
    let mut described = None;
    for line in open_metrics.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            described = help.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, help)) = described.take().filter(|(described, _)| *described == name) {
                writeln!(out, "# HELP {name}{suffix} {help}")?;
            }
            writeln!(out, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        // Prometheus 2.42 and 3, VictoriaMetrics' agent, curl, a browser, Telegraf, nobody.
        for accept in [
            "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.25,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text",
            "application/openmetrics-text; version=0.0.1",
            "Application/OpenMetrics-Text, text/plain",
            "application/openmetrics-text; q=0.5, */*; q=0.1",
        ] {
            assert_eq!(Exposition::wanted([accept].into_iter()), Exposition::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain; version=0.0.4",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=nonsense",
            "application/openmetrics-text;q=0.2, text/plain;q=0.9",
            "application/json",
        ] {
            assert_eq!(Exposition::wanted([accept].into_iter()), Exposition::Prometheus, "{accept}");
        }
        assert_eq!(Exposition::wanted(std::iter::empty()), Exposition::Prometheus);
        let two = ["text/plain;q=0.1", "application/openmetrics-text;q=0.2"];
        assert_eq!(Exposition::wanted(two.into_iter()), Exposition::OpenMetrics);
    }

    #[test]
    fn families_of_counters_are_named_as_their_samples_in_the_older_format() {
        let open_metrics = "# HELP a_seconds Times.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"y\"} 1\n\
                            # TYPE b gauge\nb 2\n# HELP c Of c.\n# TYPE c histogram\nc_sum 0.5\nc_count 1\nc_bucket{le=\"+Inf\"} 1\n\
                            # HELP d Who knows.\n# TYPE d unknown\nd 1\n# EOF\n";
        let prometheus = "# HELP a_seconds_total Times.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"y\"} 1\n\
                          # TYPE b gauge\nb 2\n# HELP c Of c.\n# TYPE c histogram\nc_sum 0.5\nc_count 1\nc_bucket{le=\"+Inf\"} 1\n\
                          # HELP d Who knows.\n# TYPE d untyped\nd 1\n";
        assert_eq!(Exposition::Prometheus.of(open_metrics.to_owned()), prometheus);
        assert_eq!(Exposition::OpenMetrics.of(open_metrics.to_owned()), open_metrics);
    }
}
