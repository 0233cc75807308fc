// The self-test by itself, for users and support people: it gets its credentials from the credentials API, with a key of theirs.

import { byId, make } from "./dom.js";
import { selfTest } from "./selftest.js";

const TTL_SECS = 600;
const LIMIT_MILLIS = 12_000;

const test = selfTest(byId("self-test"), { prepare });

takeFromAddress();
addEventListener("hashchange", takeFromAddress);
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});

/** A link may bring both along, #key=…&user=…; what is behind the # is not sent to anybody, and leaves the address at once. */
function takeFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of ["key", "user"]) {
    if (given.get(name)) {
      byId(name).value = given.get(name);
    }
  }
  if (given.get("key")) {
    history.replaceState(null, "", location.pathname);
    begin();
  }
}

async function begin() {
  byId("trouble").hidden = true;
  try {
    await test.offer();
    byId("self-test").hidden = false;
  } catch (error) {
    byId("self-test").hidden = true;
    byId("trouble").hidden = false;
    const said = error.said ? make("small", {}, `For whoever runs the server: ${error.said}.`) : "";
    byId("trouble").replaceChildren(error.message, " ", said);
  }
}

/** The servers, with a credential that is good for some minutes. */
async function prepare() {
  const user = byId("user").value.trim();
  let answer = await ask({ user, ttl: TTL_SECS });
  if (answer.error?.code === "ttl_not_allowed") {
    // The key's credentials are shorter still.
    answer = await ask({ user });
  }
  if (answer.error) {
    throw Object.assign(new Error(refusal(answer.error)), { said: answer.error.message });
  }
  const [{ urls, username, credential }] = answer.iceServers;
  return { servers: urls.map((url) => ({ url, username, credential })) };
}

/** What somebody can do who has only the link. */
function refusal({ code, message }) {
  const again = "Ask whoever sent you this link for a new one.";
  switch (code) {
    case "unauthorized":
      return `This link is no longer good. ${again}`;
    case "user_not_allowed": {
      const [, prefix] = /begin with "([^"]+)"/.exec(message) ?? [];
      return prefix ? `Your name has to begin with ${prefix}` : `The link is not for this name. ${again}`;
    }
    case "user_revoked":
      return `This name has been shut out for now. ${again}`;
    case "key_rate_limited":
    case "network_rate_limited":
      return "Too many people test at this moment: try again in a minute.";
    case "origin_not_allowed":
      return `The link is not for this page. ${again}`;
    default:
      return `The server gives no credential. ${again}`;
  }
}

async function ask(wish) {
  try {
    const response = await fetch("./v1/credentials", {
      method: "POST",
      headers: { Authorization: `Bearer ${byId("key").value.trim()}`, "Content-Type": "application/json" },
      body: JSON.stringify(wish),
      credentials: "omit",
      cache: "no-store",
      signal: AbortSignal.timeout(LIMIT_MILLIS),
    });
    return await response.json();
  } catch {
    throw new Error("The server that gives credentials is not reached.");
  }
}
