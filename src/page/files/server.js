// The server itself: listeners, certificates, ports, and the configuration in force.

import { ask } from "./api.js";
import { byId, cards, facts, make } from "./dom.js";
import { bytes, clock, count, day, plural, span } from "./text.js";

const DAY_SECS = 86_400;
const SOON_SECS = 14 * DAY_SECS;

const about = make("dl", { class: "facts" });
const listeners = make("ul");
const ports = make("div");
const certificates = make("div");
const changes = make("div", { role: "status" });
const generation = make("span", { class: "soft" });
const toml = make("pre", { tabindex: "0", "aria-label": "The configuration in force" });
const look = make("button", { type: "button", onclick: dryRun }, "What would a reload change?");
let shown = null;

export function start() {
  byId("server").append(
    make(
      "div",
      { class: "columns" },
      card("This server", about),
      card("Listeners", listeners),
      card("Relay ports", ports),
      card("Certificates", certificates),
    ),
    make(
      "section",
      { class: "card" },
      make("h2", {}, "Configuration in force ", generation),
      make("div", { class: "row" }, look),
      changes,
      toml,
    ),
  );
}

function card(title, content) {
  return make("section", { class: "card" }, make("h2", {}, title), content);
}

/** Asks for what only changes now and then. */
export async function refresh(status) {
  const { traffic } = status;
  about.replaceChildren(
    ...facts([
      ["Version", status.version],
      ["Running for", span(status.uptime_secs)],
      ["Process", `${status.pid}, ${plural(status.workers, "worker")}`],
      ["Configuration", status.config_file ?? "none: a try-out"],
      ["Log", status.log_level],
      ["Ready", status.not_ready ?? "yes"],
      ...status.relay_addresses.map((relay) => ["Relays at", relayedAt(relay)]),
      ["Connections", count(status.connections)],
      ["Relayed to peers", bytes(traffic.to_peers.bytes)],
      ["Relayed to clients", bytes(traffic.to_clients.bytes)],
      ["Relay to relay", bytes(traffic.own_relayed.bytes)],
    ]),
  );
  listeners.replaceChildren(...status.listeners.map(({ transport, address }) => make("li", { class: "mono" }, `${transport} ${address}`)));
  ports.replaceChildren(...Object.entries(status.ports).map(([family, use]) => portsOf(family, use)));
  const answer = await ask("/v1/certificates");
  const cards = [...answer.certificates.map((of) => certificate(of, answer.acme)), ...answer.acme.filter((name) => !name.has_certificate).map(missing)];
  certificates.replaceChildren(...(cards.length ? cards : ["None: there is no listener with TLS or DTLS."]));
  look.hidden = !status.config_file;
  if (shown !== status.config_generation) {
    const config = await ask("/v1/config");
    shown = config.generation;
    generation.textContent = `(generation ${config.generation})`;
    toml.textContent = config.toml.trim();
  }
}

/** The address that clients are told, what it stands for, and who has said so. */
function relayedAt({ bind, external, source, failure }) {
  const address = external === null ? `no public address known for ${bind}` : external === bind ? bind : `${external} for ${bind}, by ${source}`;
  return failure === null ? address : `${address}; ${failure}`;
}

function portsOf(family, { used, total }) {
  const name = family.replace("ipv", "IPv");
  const text = `${name}: ${count(used)} of ${count(total)} in use`;
  return make("p", {}, text, make("meter", { min: 0, max: total, high: total * 0.8, value: used, "aria-label": text }));
}

function certificate({ file, source, names, subject, issuer, not_before_unix, not_after_unix }, acme) {
  const left = not_after_unix - Date.now() / 1000;
  const [colour, text] =
    left < 0 ? ["bad-text", "has expired"] : left < SOON_SECS ? ["warn-text", `expires in ${span(left)}`] : ["good-text", `good for ${span(left)}`];
  return make(
    "div",
    {},
    make("h3", { class: "mono" }, file),
    make("p", { class: colour }, `${text}, until ${day(not_after_unix)}`),
    make(
      "dl",
      { class: "facts" },
      facts([
        ["For the names", names.join(", ") || "none"],
        ["Subject", subject],
        ["Issuer", issuer],
        ["From", day(not_before_unix)],
        ...(source === "acme" ? acme.filter(({ name }) => names.includes(name)).flatMap(renewal) : []),
      ]),
    ),
  );
}

/** A name whose certificate the server has not got yet. */
function missing(of) {
  return make(
    "div",
    {},
    make("h3", { class: "mono" }, of.name),
    make("p", { class: of.failure === null ? "warn-text" : "bad-text" }, "no certificate yet: TLS handshakes for this name are refused"),
    make("dl", { class: "facts" }, facts(renewal(of))),
  );
}

/** What the server does about it itself. */
function renewal({ next_attempt_unix, failures, failure }) {
  const next = ["Asked for by ACME", day(next_attempt_unix)];
  return failure === null ? [next] : [next, ["Failed", `${count(failures)} times: ${failure}`]];
}

async function dryRun() {
  look.disabled = true;
  try {
    const answer = await ask("/v1/reload", { method: "POST", query: { dry_run: "true" } });
    const cell = (name, text, more = {}) => make("td", { role: "cell", "data-name": name, ...more }, text);
    const rows = answer.changes.map(({ key, before, after, effect }) =>
      make(
        "tr",
        { role: "row" },
        cell("Key", key, { class: "mono" }),
        cell("Now", before),
        cell("Then", after),
        cell("Takes effect", effect === "applied" ? "at once" : "after a restart"),
      ),
    );
    const heads = ["Key", "Now", "Then", "Takes effect"].map((name) => make("th", { scope: "col", role: "columnheader" }, name));
    const warnings = answer.warnings.map((warning) => make("p", { class: "note" }, warning));
    const table = make("div", { class: "table" }, cards(heads, make("tbody", {}, rows)));
    const text = `${clock(Date.now() / 1000)}: a reload would change ${rows.length ? plural(rows.length, "setting") : "nothing"}.`;
    changes.replaceChildren(make("p", {}, text), ...warnings, ...(rows.length ? [table] : []));
  } catch (error) {
    changes.replaceChildren(make("p", { class: "note bad" }, ...error.message.split("\n").flatMap((line) => [line, make("br")])));
  }
  look.disabled = false;
}
