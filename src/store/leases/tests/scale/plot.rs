//! A plot over time, as SVG: small, and for light and dark pages.

use std::fmt::Write as _;

const WIDTH: usize = 760;
const LEFT: usize = 70;
const TOP: usize = 34;
const HEIGHT: usize = 150;
const GAP: usize = 84;

/// One field of the plot: a scale from 0, and lines.
pub(super) struct Field<'p> {
    pub(super) title: &'p str,
    pub(super) most: u64,
    /// What a line across is called, if there is one.
    pub(super) across: Option<(&'p str, u64)>,
    pub(super) lines: Vec<Line<'p>>,
}

pub(super) struct Line<'p> {
    pub(super) name: &'p str,
    pub(super) class: &'p str,
    /// A value for each second.
    pub(super) values: Vec<u64>,
}

/// Fields below each other, over the same seconds; what happens, and when.
pub(super) fn plot(title: &str, fields: &[Field<'_>], events: &[(usize, &str)]) -> String {
    let height = TOP + fields.len() * (HEIGHT + GAP);
    let seconds = fields.iter().flat_map(|field| &field.lines).map(|line| line.values.len()).max().unwrap_or(1);
    let x = |second: usize| LEFT + second * (WIDTH - LEFT - 16) / seconds;
    let mut svg = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| writeln!(svg, "{line}").unwrap();
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">"
    ));
    put(format_args!(
        "<style>text{{font:12px system-ui,sans-serif;fill:#24292f}}.b{{fill:#fff}}.g{{stroke:#d0d7de}}.e{{stroke:#8c959f;stroke-dasharray:3 3}}\
         .l{{fill:none;stroke-width:1.6}}.a{{stroke:#0969da}}.c{{stroke:#bc4c00}}.d{{stroke:#8250df}}.x{{stroke:#cf222e;stroke-dasharray:6 3}}.h{{font-weight:600}}\
         @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.b{{fill:#0d1117}}.g{{stroke:#30363d}}.e{{stroke:#6e7681}}.a{{stroke:#4493f8}}.c{{stroke:#f0883e}}.d{{stroke:#ab7df8}}.x{{stroke:#f85149}}}}</style>"
    ));
    put(format_args!("<rect class=\"b\" width=\"{WIDTH}\" height=\"{height}\"/>"));
    for (number, field) in fields.iter().enumerate() {
        let top = TOP + number * (HEIGHT + GAP);
        let y = |value: u64| top + HEIGHT - (value.min(field.most) as usize * HEIGHT) / field.most as usize;
        put(format_args!("<text class=\"h\" x=\"8\" y=\"{}\">{}</text>", top - 18, field.title));
        for part in 0..=4 {
            let value = field.most * part / 4;
            put(format_args!("<path class=\"g\" d=\"M{LEFT} {0}H{1}\"/>", y(value), WIDTH - 16));
            put(format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 6,
                y(value) + 4,
                short(value)
            ));
        }
        for (second, name) in events {
            put(format_args!("<path class=\"e\" d=\"M{} {}V{}\"/>", x(*second), top, top + HEIGHT));
            if number == 0 {
                put(format_args!("<text x=\"{}\" y=\"{}\">{name}</text>", x(*second) + 3, top - 4));
            }
        }
        if let Some((name, value)) = field.across {
            put(format_args!("<path class=\"l x\" d=\"M{LEFT} {}H{}\"/>", y(value), WIDTH - 16));
            put(format_args!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", WIDTH - 18, y(value) - 4));
        }
        for line in &field.lines {
            let mut path = String::new();
            for (second, value) in line.values.iter().enumerate() {
                write!(path, "{}{} {}", if second == 0 { "M" } else { "L" }, x(second), y(*value)).unwrap();
            }
            put(format_args!("<path class=\"l {}\" d=\"{path}\"/>", line.class));
        }
        let mut at = LEFT;
        for line in &field.lines {
            put(format_args!("<path class=\"l {}\" d=\"M{at} {1}h18\"/>", line.class, top + HEIGHT + 32));
            put(format_args!("<text x=\"{}\" y=\"{}\">{}</text>", at + 23, top + HEIGHT + 36, line.name));
            at += 40 + line.name.len() * 7;
        }
        for second in (0..=seconds).step_by(60) {
            put(format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{} min</text>",
                x(second),
                top + HEIGHT + 16,
                second / 60
            ));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn short(value: u64) -> String {
    match value {
        0..10_000 => value.to_string(),
        _ => format!("{} k", value / 1000),
    }
}
