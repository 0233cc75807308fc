// The start: which part is shown, what is asked for it, and what is said when the server does not answer.

import { ask, keepToken, takeToken } from "./api.js";
import { byId, say } from "./dom.js";
import * as figures from "./figures.js";
import * as fleet from "./fleet.js";
import { poll } from "./poll.js";
import { selfTest } from "./selftest.js";
import * as server from "./server.js";
import * as sessions from "./sessions.js";
import { clock, span } from "./text.js";

const INTERVAL_MILLIS = 5_000;
const REFUSALS = 20;
const PARTS = ["overview", "sessions", "self-test", "server", "fleet"];

let part = null;
let wanted = null;
let isShutOut = false;
let hasTried = false;
let lostSince = null;

const test = selfTest(byId("self-test"), {
  prepare: () => ask("/v1/self-test", { method: "POST" }),
  explain: async (user, sinceUnix) => {
    const { refusals } = await ask("/v1/refusals", { query: { user, limit: REFUSALS } });
    return refusals.filter(({ at_unix, normal, reason }) => at_unix >= sinceUnix && !normal && reason !== "missing-integrity");
  },
  listeners: async () => (await ask("/v1/status")).listeners,
  roundTrip: figures.addRoundTrip,
});

const now = poll(INTERVAL_MILLIS, () => !isShutOut, refresh, failed);

figures.start();
sessions.start(now);
server.start();
fleet.start();
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(byId("token").value.trim());
  byId("token").value = "";
  isShutOut = false;
  hasTried = true;
  show();
});
addEventListener("hashchange", show);
show();

function show() {
  if (takeToken()) {
    isShutOut = false;
  }
  const named = location.hash.slice(1);
  if (PARTS.includes(named) || wanted === null) {
    wanted = PARTS.includes(named) ? named : PARTS[0];
  }
  part = isShutOut ? "token" : wanted;
  for (const name of ["token", ...PARTS]) {
    byId(`part-${name}`).hidden = name !== part;
  }
  for (const link of byId("parts").children) {
    link.toggleAttribute("aria-current", false);
    if (link.hash === `#${part}`) {
      link.setAttribute("aria-current", "page");
    }
  }
  if (part === "token") {
    byId("token").focus();
  } else if (part === "self-test") {
    test.offer().catch(failed);
  }
  now();
}

async function refresh() {
  const status = await ask("/v1/status");
  const draining = status.state === "draining" ? "draining, " : status.not_ready ? "not ready, " : "";
  say(byId("state"), `${draining}up ${span(status.uptime_secs)}, version ${status.version}`);
  byId("state").classList.toggle("warn-text", draining !== "");
  say(byId("token-error"), "");
  byId("to-fleet").hidden = !status.fleet;
  // What is measured goes on while another part is shown.
  await figures.refresh(status);
  if (part === "sessions") {
    await sessions.refresh(status);
  } else if (part === "server") {
    await server.refresh(status);
  } else if (part === "fleet") {
    await fleet.refresh();
  }
  lostSince = null;
  byId("trouble").hidden = true;
}

/** Whether to go on. */
function failed(error) {
  if (error.status === 401) {
    isShutOut = true;
    say(byId("token-error"), hasTried ? error.message : "");
    say(byId("state"), "locked");
    show();
    return false;
  }
  lostSince ??= Date.now() / 1000;
  say(byId("state"), "no answer");
  say(byId("trouble"), `Since ${clock(lostSince)}: ${error.message}. Trying again.`);
  byId("trouble").hidden = false;
  return true;
}
