// A plot over time, drawn by hand in SVG: lines, or areas or bars on top of each other. The legend shows the values under the pointer, or
// those that the arrow keys have gone to, or the last ones.

import { draw, make, say } from "./dom.js";
import { clock } from "./text.js";

const LEFT = 68;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 18;
const HEIGHT = 150;
const TICKS = 3;
export const SERIES_MAX = 6;

/** The next of 1, 2, 4, 6, 8, 10, …: its half is round, too. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999) ?? 10 * power;
}

/**
 * A figure. `shape` is "line", "area" or "bar"; `unit` writes a value; `least` is the smallest top of the scale. `set(series, times, span)`
 * shows series of {name, values} (null is a gap) at these times, in seconds, of the last `span` seconds.
 */
export function plot({ title, shape, unit, least, empty = "" }) {
  const svg = draw("svg", { role: "img", "aria-label": title, preserveAspectRatio: "none" });
  const when = make("span", { class: "when" });
  const legend = make("ul", { class: "legend" });
  const figure = make(
    "figure",
    { class: "plot", tabindex: "0", "aria-label": `${title}; the arrow keys go through the values` },
    make("figcaption", {}, make("h3", {}, title), when),
    svg,
    legend,
  );
  let shown = { series: [], times: [], span: 1 };
  let chosen = null;

  svg.addEventListener("pointermove", (event) => choose(nearest(event.offsetX)));
  svg.addEventListener("pointerleave", () => choose(null));
  figure.addEventListener("blur", () => choose(null));
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const last = shown.times.length - 1;
    if (step && last >= 0) {
      event.preventDefault();
      choose(Math.max(0, Math.min(last, (chosen ?? last + (step < 0 ? 1 : 0)) + step)));
    }
  });
  new ResizeObserver(redraw).observe(svg);

  function choose(index) {
    if (index !== chosen) {
      chosen = index;
      redraw();
    }
  }

  const width = () => Math.max(svg.clientWidth, LEFT + RIGHT + 10);
  const end = () => shown.times.at(-1) ?? 0;
  const xOf = (time) => LEFT + (1 - (end() - time) / shown.span) * (width() - LEFT - RIGHT);

  function nearest(x) {
    let best = null;
    shown.times.forEach((time, index) => {
      if (best === null || Math.abs(xOf(time) - x) < Math.abs(xOf(shown.times[best]) - x)) {
        best = index;
      }
    });
    return best;
  }

  function redraw() {
    const { series, times, span } = shown;
    const stacks = shape !== "line";
    const sums = times.map((_, index) => series.reduce((sum, { values }) => sum + (values[index] ?? 0), 0));
    const highest = stacks ? Math.max(0, ...sums) : Math.max(0, ...series.flatMap(({ values }) => values));
    const top = roundUp(Math.max(highest, least));
    const yOf = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (let tick = 0; tick < TICKS; tick += 1) {
      const value = (top * tick) / (TICKS - 1);
      const y = Math.round(yOf(value)) + 0.5;
      parts.push(draw("line", { class: "grid", x1: LEFT, x2: width() - RIGHT, y1: y, y2: y }));
      parts.push(draw("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, unit(value).replace(/\.0+(?= |$)/, "")));
    }
    const minutes = Math.round(span / 60);
    parts.push(draw("text", { x: LEFT, y: HEIGHT - 3 }, minutes > 1 ? `${minutes} min ago` : `${Math.round(span)} s ago`));
    parts.push(draw("text", { x: width() - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
    const isThere = (value) => value !== null && value !== undefined;
    if (empty && !series.some(({ values }) => values.some(isThere))) {
      parts.push(draw("text", { x: (LEFT + width()) / 2, y: HEIGHT / 2 - 10, "text-anchor": "middle" }, empty));
    }
    let below = times.map(() => 0);
    series.forEach(({ values }, number) => {
      const colour = `s${number + 1}`;
      if (shape === "line") {
        // What lies on another line lets that be seen.
        const isOver = series.slice(0, number).some((other) => values.every((value, index) => value === other.values[index]));
        parts.push(draw("path", { class: `stroke ${colour}${isOver ? " over" : ""}`, d: line(values, yOf) }));
        parts.push(draw("path", { class: `stroke dot ${colour}`, d: dots(values, yOf) }));
        return;
      }
      const above = below.map((base, index) => base + (values[index] ?? 0));
      const d = shape === "area" ? area(below, above, yOf) : bars(below, above, yOf);
      parts.push(draw("path", { class: `fill ${colour}`, d }));
      below = above;
    });
    const index = chosen !== null && chosen < times.length ? chosen : null;
    if (index !== null) {
      const x = xOf(times[index]);
      parts.push(draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    svg.replaceChildren(...parts);
    tell(index ?? times.length - 1, index !== null);
  }

  function tell(index, isChosen) {
    const { series, times } = shown;
    say(when, isChosen ? clock(times[index]) : "");
    const rows = series.map(({ name, values }, number) => {
      const value = values[index];
      return { name, colour: `s${number + 1}`, value: value === null || value === undefined ? "–" : unit(value) };
    });
    svg.setAttribute("aria-label", `${title}: ${rows.map(({ name, value }) => `${name} ${value}`).join(", ") || "nothing yet"}`);
    while (legend.children.length > rows.length) {
      legend.lastChild.remove();
    }
    rows.forEach(({ name, colour, value }, number) => {
      const item =
        legend.children[number] ?? legend.appendChild(make("li", {}, make("i"), make("span"), " ", make("b")));
      item.children[0].className = colour;
      say(item.children[1], name);
      say(item.children[2], value);
    });
  }

  const point = (time, y) => `${xOf(time).toFixed(1)} ${y.toFixed(1)}`;

  function line(values, yOf) {
    let path = "";
    let pen = "M";
    values.forEach((value, index) => {
      if (value === null || value === undefined) {
        pen = "M";
        return;
      }
      path += `${pen}${point(shown.times[index], yOf(value))}`;
      pen = "L";
    });
    return path;
  }

  /** Values that stand alone between gaps, of which a line has nothing to draw. */
  function dots(values, yOf) {
    const isGap = (index) => values[index] === null || values[index] === undefined;
    const alone = values.map((_, index) => index).filter((index) => !isGap(index) && isGap(index - 1) && isGap(index + 1));
    return alone.map((index) => `M${point(shown.times[index], yOf(values[index]))}h0.1`).join("");
  }

  function area(below, above, yOf) {
    const { times } = shown;
    if (times.length < 2) {
      return "";
    }
    const there = above.map((value, index) => point(times[index], yOf(value)));
    const back = below.map((value, index) => point(times[index], yOf(value))).reverse();
    return `M${there.join("L")}L${back.join("L")}Z`;
  }

  function bars(below, above, yOf) {
    const { times, span } = shown;
    const step = times.length > 1 ? (times.at(-1) - times[0]) / (times.length - 1) : span / 100;
    const wide = Math.max(1, ((width() - LEFT - RIGHT) * step * 0.8) / span);
    return above
      .map((value, index) => {
        const high = yOf(below[index]) - yOf(value);
        return high > 0 ? `M${point(times[index], yOf(value))}h${(-wide).toFixed(1)}v${high.toFixed(1)}h${wide.toFixed(1)}Z` : "";
      })
      .join("");
  }

  return {
    figure,
    set(series, times, span) {
      shown = { series: series.slice(0, SERIES_MAX), times, span };
      redraw();
    },
  };
}
