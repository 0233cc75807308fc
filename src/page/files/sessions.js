// The table of sessions: one page of it at a time, however many there are.

import { ask } from "./api.js";
import { byId, cards, confirmed, facts, make, say } from "./dom.js";
import { bitRate, bytes, count, day, plural, span, word } from "./text.js";

const LIMIT = 50;
const COLUMNS = ["User", "Client", "Relayed", "Age", "To peers", "To client", ""];

const body = make("tbody");
const rows = new Map();
let search = {};
let cursor = null;
let next = null;
let changed = () => {};

/** `refresh` has the table asked for again. */
export function start(refresh) {
  changed = refresh;
  const heads = COLUMNS.map((name, at) =>
    make("th", { scope: "col", role: "columnheader", class: at === 4 || at === 5 ? "number" : null }, name || hiddenText("What to do")),
  );
  byId("sessions-table").append(cards(heads, body));
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = byId("search-for").value.trim();
    search = { [byId("search-by").value]: value, transport: byId("search-transport").value };
    go(null);
  });
  byId("search").addEventListener("reset", () => {
    search = {};
    go(null);
  });
  byId("page-first").addEventListener("click", () => go(null));
  byId("page-next").addEventListener("click", () => go(next));
  byId("end-all").addEventListener("click", endAll);
}

function hiddenText(text) {
  return make("span", { class: "skip" }, text);
}

function go(to) {
  cursor = to;
  changed();
}

/** Asks for the page that is shown. */
export async function refresh(status) {
  const query = { ...search, limit: LIMIT, cursor };
  let page;
  try {
    page = await ask("/v1/sessions", { query });
  } catch (error) {
    if (error.status !== 400) {
      throw error;
    }
    // What was searched for is not what one can search for.
    say(byId("sessions-count"), error.message);
    show([]);
    return;
  }
  next = page.next_cursor;
  byId("page-next").disabled = next === null;
  byId("page-first").disabled = cursor === null;
  const narrowed = Object.values(search).some((value) => value);
  const shown = plural(page.sessions.length, "session");
  const where = `${cursor ? "; a later page" : ""}${next ? "; there are more" : ""}`;
  say(byId("sessions-count"), narrowed ? `${shown} found${where}` : `${shown} of ${count(status.allocations)}${where}`);
  byId("end-all").hidden = !(search.user && page.sessions.length);
  show(page.sessions, narrowed);
}

function show(sessions, narrowed) {
  const now = performance.now();
  const wanted = new Set(sessions.map(({ id }) => id));
  for (const [id, row] of rows) {
    if (!wanted.has(id)) {
      row.details?.remove();
      row.element.remove();
      rows.delete(id);
    }
  }
  body.querySelector(".none")?.remove();
  let before = null;
  for (const session of sessions) {
    const row = rows.get(session.id) ?? makeRow(session);
    update(row, session, now);
    const place = before ? before.nextSibling : body.firstChild;
    if (row.element !== place) {
      body.insertBefore(row.element, place);
    }
    if (row.details && row.element.nextSibling !== row.details) {
      row.element.after(row.details);
    }
    before = row.details ?? row.element;
  }
  if (!sessions.length) {
    const text = narrowed ? "No session is like that." : "No sessions. The self-test makes two.";
    body.append(make("tr", { class: "none", role: "row" }, make("td", { class: "empty", role: "cell", colspan: COLUMNS.length }, text)));
  }
}

function makeRow(session) {
  const cells = COLUMNS.slice(0, -1).map((name, at) =>
    make("td", { role: "cell", "data-name": name, class: at > 3 ? "number" : null }, make("span"), make("small")),
  );
  const row = { cells, details: null, seen: null };
  const details = make("button", { type: "button", class: "small", "aria-expanded": "false", onclick: () => toggle(row, session, details) }, "Details");
  const end = make("button", { type: "button", class: "small danger", onclick: () => endOne(session) }, "End");
  for (const [button, what] of [[details, "Details"], [end, "End"]]) {
    button.setAttribute("aria-label", `${what}: session of ${session.user || session.username}, ${session.client}`);
  }
  row.element = make("tr", { role: "row", "data-id": session.id }, cells, make("td", { role: "cell", class: "acts" }, details, " ", end));
  rows.set(session.id, row);
  return row;
}

function update(row, session, now) {
  const fill = (at, text, more) => {
    say(row.cells[at].children[0], text);
    say(row.cells[at].children[1], more ?? "");
  };
  const since = row.seen ? (now - row.seen.now) / 1000 : 0;
  const speed = (key) => {
    const moved = row.seen ? session[key].bytes - row.seen[key].bytes : 0;
    return since > 0.5 ? bitRate((moved * 8) / since) : "";
  };
  const realm = session.realm ? `realm ${session.realm}` : "";
  fill(0, session.user || session.username, [realm, session.limits].filter(Boolean).join("; "));
  fill(1, session.client, session.transport);
  fill(2, session.relayed.map(({ address }) => address).join(", "));
  fill(3, span(session.age_secs));
  fill(4, bytes(session.to_peers.bytes), speed("to_peers"));
  fill(5, bytes(session.to_client.bytes), speed("to_client"));
  row.seen = { now, to_peers: session.to_peers, to_client: session.to_client };
}

async function toggle(row, { id }, button) {
  if (row.details) {
    row.details.remove();
    row.details = null;
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const cell = make("td", { role: "cell", colspan: COLUMNS.length }, "…");
  row.details = make("tr", { role: "row" }, cell);
  row.element.after(row.details);
  button.setAttribute("aria-expanded", "true");
  try {
    const session = await ask(`/v1/sessions/${encodeURIComponent(id)}`);
    const until = (secs) => `for ${span(secs)} more`;
    const permissions = session.permissions.map(({ address, expires_in_secs }) => make("li", {}, `${address} ${until(expires_in_secs)}`));
    const channels = session.channels.map(({ number, peer, expires_in_secs }) =>
      make("li", {}, `0x${number.toString(16)}: ${peer} ${until(expires_in_secs)}`),
    );
    const expires = session.credential_expires_unix;
    cell.replaceChildren(
      make(
        "dl",
        { class: "facts" },
        facts([
          ["Session", make("span", { class: "mono" }, session.id)],
          ["Username", session.username],
          ["Reached at", `${session.transport} ${session.server}`],
          ["Since", day(session.started_unix)],
          ["Expires", session.relayed.map(({ expires_in_secs }) => `in ${span(expires_in_secs)}`).join(", ")],
          ["Credential good until", expires ? day(expires) : null],
          ["Throttled", plural(session.throttled_packets, "packet")],
          ["Permissions", permissions.length ? make("ul", {}, permissions) : "none"],
          ["Channels", channels.length ? make("ul", {}, channels) : "none"],
        ]),
      ),
    );
  } catch (error) {
    cell.textContent = error.message;
  }
}

async function endOne({ id, user, username, client }) {
  const name = user || username;
  const whose = /^\d+:/.test(username) ? word(username) : `--user ${word(name)}`;
  const question =
    `End the session of ${name} from ${client}? Its client may come again, because its credential stays good: ` +
    `turnstone revoke ${whose} keeps it out.`;
  if (await confirmed(question, "End it")) {
    await act(`/v1/sessions/${encodeURIComponent(id)}`, {});
  }
}

async function endAll() {
  const query = search;
  const question =
    `End every session of ${query.user} that is found? Their clients may come again, because the credential stays good: ` +
    `turnstone revoke --user ${word(query.user)} keeps them out.`;
  if (await confirmed(question, "End all")) {
    await act("/v1/sessions", query);
  }
}

async function act(path, query) {
  let trouble = null;
  try {
    await ask(path, { method: "DELETE", query });
  } catch (error) {
    trouble = error.message;
  }
  await changed();
  if (trouble) {
    say(byId("sessions-count"), trouble);
  }
}
