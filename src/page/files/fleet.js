// All nodes of the fleet: figures by node and in sum, what is wrong with each, and sessions searched for at all of them. This server asks
// the others; the page asks this one alone.

import { ask } from "./api.js";
import { byId, cards, make, say } from "./dom.js";
import { SERIES_MAX, plot } from "./plot.js";
import { bitRate, bytes, count, plural, rate, span } from "./text.js";

const NODES = ["Node", "State", "Sessions", "Bit rate", "Refused", "Load", "What is wrong"];
const FOUND = ["Node", "User", "Client", "Relayed", "Age", "To peers", "To client"];
const NUMBERS = ["Sessions", "Bit rate", "Refused", "Load", "Age", "To peers", "To client"];
const SPAN_MIN_SECS = 120;

const plots = {
  sessions: plot({ title: "Sessions by node", shape: "area", unit: count, least: 4 }),
  rates: plot({ title: "Bit rate by node", shape: "line", unit: bitRate, least: 1000 }),
  refusals: plot({ title: "Refusals a minute, by node", shape: "bar", unit: rate, least: 10 }),
};
const tiles = {};
const body = make("tbody");
const found = make("tbody");
const rows = new Map();

export function start() {
  byId("fleet-plots").append(...Object.values(plots).map(({ figure }) => figure));
  for (const [key, name] of Object.entries({ nodes: "Nodes", sessions: "Sessions", rate: "Bit rate", refused: "Refusals" })) {
    const [value, more] = [make("span", {}, "–"), make("small")];
    tiles[key] = [value, more];
    byId("fleet-tiles").append(make("div", {}, make("dt", {}, name), make("dd", {}, value, more)));
  }
  byId("fleet-nodes").append(cards(heads(NODES), body));
  byId("fleet-sessions").append(cards(heads(FOUND), found));
  byId("fleet-search").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
}

const isNumber = (name) => NUMBERS.includes(name);

function heads(names) {
  return names.map((name) => make("th", { scope: "col", role: "columnheader", class: isNumber(name) ? "number" : null }, name));
}

/** Asks for all nodes. */
export async function refresh() {
  const { sums, nodes, series, interval_secs, unnamed } = await ask("/v1/fleet");
  const silent = sums.nodes - sums.answering;
  tile("nodes", count(sums.nodes), silent ? `${count(silent)} without an answer` : "all answer");
  tile("sessions", count(sums.sessions), silent ? "nodes that answer" : "at all nodes");
  tile("rate", bitRate(sums.bytes_per_sec * 8), "both directions");
  tile("refused", count(sums.refused_last_minute), "in the last minute");
  tiles.nodes[1].classList.toggle("bad-text", silent > 0);
  const problems = unnamed.map(({ name, problem }) => `${name}: ${problem}`);
  byId("fleet-note").hidden = !problems.length;
  say(byId("fleet-note"), problems.join("; "));
  showNodes(nodes);
  showPlots(series, interval_secs);
}

function tile(key, value, more) {
  say(tiles[key][0], value);
  say(tiles[key][1], more);
}

function showNodes(nodes) {
  const wanted = new Set(nodes.map(({ url }) => url));
  for (const [url, row] of rows) {
    if (!wanted.has(url)) {
      row.remove();
      rows.delete(url);
    }
  }
  nodes.forEach((node, at) => {
    const row = rows.get(node.url) ?? makeRow(node.url);
    update(row, node);
    if (body.children[at] !== row) {
      body.insertBefore(row, body.children[at] ?? null);
    }
  });
}

function cellsOf(names) {
  return names.map((name) =>
    make("td", { role: "cell", "data-name": name, class: isNumber(name) ? "number" : null }, make("span"), make("small")),
  );
}

function makeRow(url) {
  const row = make("tr", { role: "row", "data-url": url }, cellsOf(NODES));
  rows.set(url, row);
  return row;
}

function fill(row, at, text, more = "") {
  const [value, small] = row.children[at].children;
  say(value, text);
  say(small, more);
}

function update(row, { url, name, is_self, failure, age_secs, report }) {
  fill(row, 0, name, [is_self ? "this one" : "", report?.version ?? "", name === url ? "" : url].filter(Boolean).join(", "));
  const state = failure ? "no answer" : stateOf(report);
  fill(row, 1, state, failure && report ? `said ${span(age_secs)} ago:` : "");
  row.children[1].className = failure ? "bad-text" : state === "ready" ? "good-text" : "warn-text";
  fill(row, 2, report ? count(report.sessions) : "–");
  fill(row, 3, report ? bitRate(report.bytes_per_sec * 8) : "–");
  const sentOn = report?.redirected_last_minute;
  fill(row, 4, report ? count(report.refused_last_minute) : "–", sentOn ? `${count(sentOn)} sent to others` : "");
  fill(row, 5, report && report.load_percent !== null ? `${count(report.load_percent)} %` : "–");
  const problems = [failure, ...(report?.problems ?? [])].filter(Boolean);
  fill(row, 6, problems.join("; ") || "–");
}

function stateOf(report) {
  if (!report) {
    return "not asked yet";
  }
  return report.state === "draining" ? "draining" : report.ready ? "ready" : "not ready";
}

/** The first are those with most sessions; the others are one line. */
function showPlots({ sum, nodes, left_out }, secs) {
  const first = sum.sessions.findIndex((value) => value !== null);
  const end = sum.sessions.findLastIndex((value) => value !== null) + 1;
  const from = first < 0 ? end : first;
  const now = Date.now() / 1000;
  const times = sum.sessions.map((_, at) => now - (sum.sessions.length - 1 - at) * secs).slice(from, end);
  const shownFor = Math.max(SPAN_MIN_SECS, times.length * secs);
  const named = nodes.length + left_out > SERIES_MAX ? nodes.slice(0, SERIES_MAX - 1) : nodes;
  const values = (of, key, scale) => of[key].slice(from, end).map((value) => (value === null ? null : value * scale));
  const stack = (key, scale) => {
    const lines = named.map((node) => ({ name: node.name, values: values(node, key, scale) }));
    if (named.length < nodes.length + left_out) {
      const rest = (value, at) => lines.reduce((left, line) => left - (line.values[at] ?? 0), value ?? 0);
      lines.push({ name: "others", values: values(sum, key, scale).map(rest) });
    }
    return lines;
  };
  plots.sessions.set(stack("sessions", 1), times, shownFor);
  plots.refusals.set(stack("refused", 60 / secs), times, shownFor);
  const lines = [...nodes.slice(0, SERIES_MAX - 1), sum];
  plots.rates.set(lines.map((line) => ({ name: line.name, values: values(line, "bytes_per_sec", 8) })), times, shownFor);
}

async function search() {
  const value = byId("fleet-search-for").value.trim();
  say(byId("fleet-found"), "asking all nodes …");
  let answer;
  try {
    answer = await ask("/v1/fleet/sessions", { query: { [byId("fleet-search-by").value]: value } });
  } catch (error) {
    say(byId("fleet-found"), error.message);
    byId("fleet-sessions").hidden = true;
    return;
  }
  const { sessions, more, failures } = answer;
  const silent = failures.length ? `; no answer from ${failures.map(({ node }) => node).join(", ")}` : "";
  say(byId("fleet-found"), `${plural(sessions.length, "session")} found${more ? "; there are more" : ""}${silent}`);
  byId("fleet-sessions").hidden = !sessions.length;
  found.replaceChildren(...sessions.map(foundRow));
}

function foundRow(session) {
  const row = make("tr", { role: "row" }, cellsOf(FOUND));
  fill(row, 0, session.node, session.is_self ? "this one" : "");
  fill(row, 1, session.user || session.username, session.realm ? `realm ${session.realm}` : "");
  fill(row, 2, session.client, session.transport);
  fill(row, 3, session.relayed.join(", "));
  fill(row, 4, span(session.age_secs));
  fill(row, 5, bytes(session.to_peers_bytes));
  fill(row, 6, bytes(session.to_client_bytes));
  return row;
}
