"""Bar charts as SVG: light background, labelled axes, no dependency."""

from html import escape

COLOURS = {"forwarder": "#9aa5b1", "coturn": "#d98c3f", "turnstone": "#2f6f9f"}
LABEL_WIDTH = 330
PLOT_WIDTH = 470
BAR = 11
GAP = 3
ROW_GAP = 14
TOP = 66


def bars(title: str, axis: str, rows: list, names: list, marks: dict | None = None) -> str:
    """A horizontal bar chart. `rows` is a list of (label, {name: value}); `marks` puts a tick at a value of a row."""
    marks = marks or {}
    values = [value for _, row in rows for value in row.values()] + list(marks.values())
    top = nice(max(values, default=1))
    scale = PLOT_WIDTH / top
    parts, y = [], TOP
    for label, row in rows:
        present = [name for name in names if name in row]
        height = len(present) * (BAR + GAP) - GAP
        middle = y + height / 2 + 4
        parts.append(text(LABEL_WIDTH - 10, middle, label, anchor="end"))
        labels = []
        for name in present:
            value = row[name]
            width = max(value * scale, 0.5)
            parts.append(
                f'<rect x="{LABEL_WIDTH}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" fill="{COLOURS[name]}"/>'
            )
            labels.append(text(LABEL_WIDTH + width + 4, y + BAR - 2, number(value), size=10, colour="#444", halo=True))
            y += BAR + GAP
        if label in marks:
            x = LABEL_WIDTH + marks[label] * scale
            start, end = y - GAP - height - 3, y - GAP + 3
            parts.append(f'<line x1="{x:.1f}" y1="{start:.1f}" x2="{x:.1f}" y2="{end:.1f}" stroke="#b3261e" '
                         f'stroke-width="2"/>')
        parts += labels
        y += ROW_GAP
    bottom = y - ROW_GAP / 2
    grid = []
    for step in range(6):
        value = top * step / 5
        x = LABEL_WIDTH + value * scale
        grid.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="#e3e6ea"/>')
        grid.append(text(x, bottom + 16, f"{value:g}", anchor="middle", size=11, colour="#555"))
    width, height = LABEL_WIDTH + PLOT_WIDTH + 60, bottom + 44
    legend, x = [], LABEL_WIDTH
    for name in names:
        legend.append(f'<rect x="{x}" y="36" width="11" height="11" fill="{COLOURS[name]}"/>')
        legend.append(text(x + 16, 46, name, size=12))
        x += 34 + 8 * len(name)
    if marks:
        legend.append(f'<line x1="{x + 4}" y1="34" x2="{x + 4}" y2="49" stroke="#b3261e" stroke-width="2"/>')
        legend.append(text(x + 12, 46, "aim", size=12))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" font-family="Helvetica, Arial, sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
        text(16, 24, title, size=16, weight="bold"),
        *legend,
        *grid,
        *parts,
        text(LABEL_WIDTH + PLOT_WIDTH / 2, bottom + 36, axis, anchor="middle", size=12, colour="#333"),
        "</svg>",
        "",
    ])


def text(x, y, content, anchor="start", size=12, colour="#222", weight="normal", halo=False) -> str:
    outline = ' stroke="#ffffff" stroke-width="3" paint-order="stroke"' if halo else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
            f'fill="{colour}"{outline}>{escape(content)}</text>')


def number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def nice(value: float) -> float:
    """The next larger number that divides well by five."""
    size = 1e-6
    while True:
        for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5):
            if value <= size * factor:
                return size * factor
        size *= 10
