// The self-test as people see it: which servers, a button, and what came of each.

import { facts, make, say } from "./dom.js";
import { test } from "./ice.js";
import { bitRate, micros, span, word } from "./text.js";
import { guess, lateSecs, parts, summary, transportName, troubles, verdict } from "./words.js";

const KEEP_MILLIS = 1_000;
const KEEP_MAX_MILLIS = 600_000;

/**
 * Fills `place`. `prepare()` gives the servers; `explain(username, sinceUnix)` what the server knows of refusals, where
 * somebody may ask; `listeners()` which it has, likewise; `roundTrip(micros)` hears what is measured while it goes on, where it does.
 */
export function selfTest(place, { prepare, explain = null, listeners = null, roundTrip = null }) {
  const choices = make("fieldset", { class: "choices", "aria-label": "The server's URLs" });
  const own = {
    url: make("input", { type: "text", placeholder: "turn:turn.example.org:3478?transport=udp", spellcheck: "false", autocomplete: "off" }),
    username: make("input", { type: "text", spellcheck: "false", autocomplete: "off" }),
    credential: make("input", { type: "password", autocomplete: "off" }),
  };
  const keeps = make("input", { type: "checkbox" });
  const run = make("button", { type: "submit", class: "main" }, "Test");
  const stop = make("button", { type: "button", disabled: true }, "Stop");
  const progress = make("p", { class: "count", role: "status" });
  const results = make("div", { class: "results" });
  const others = make(
    "details",
    {},
    make("summary", {}, "Another URL, or a credential of yours"),
    make("p", { class: "soft" }, "What is left empty is the server's own. With a credential and no URL, the URLs above are tried with it."),
    make(
      "div",
      { class: "row" },
      make("label", { class: "wide" }, "URL ", own.url),
      make("label", { class: "wide" }, "Username ", own.username),
      make("label", { class: "wide" }, "Credential ", own.credential),
    ),
  );
  const form = make(
    "form",
    { onsubmit: (event) => event.preventDefault() },
    choices,
    others,
    make(
      "div",
      { class: "row" },
      run,
      stop,
      roundTrip ? make("label", { class: "check" }, keeps, "keep measuring the round trip") : null,
    ),
  );
  place.replaceChildren(form, progress, results);
  let stopper = null;
  // How far the server's clock is behind that of the browser; it counts whole seconds.
  let behindSecs = 0;
  let kept = null;
  // The page itself has come from the first one.
  const reachedHosts = new Set([location.hostname]);
  // What the last tests came to.
  let sum = "";

  form.addEventListener("submit", runAll);
  stop.addEventListener("click", () => {
    stopper?.abort();
    release();
  });
  keeps.addEventListener("change", () => keeps.checked || release());
  document.addEventListener("visibilitychange", () => document.hidden && release());

  /** Asks which servers there are. */
  async function offer() {
    const { servers, now_unix = 0 } = await prepare();
    behindSecs = Date.now() / 1000 - now_unix;
    const ticked = new Map([...choices.querySelectorAll("input")].map((input) => [input.value, input.checked]));
    const rows = servers.map(({ url, realm }) =>
      make(
        "label",
        {},
        make("input", { type: "checkbox", value: url, checked: ticked.get(url) ?? true }),
        make("span", {}, make("b", {}, transportName(url)), " ", make("span", { class: "mono" }, url), realm ? ` (realm ${realm})` : ""),
      ),
    );
    choices.replaceChildren(...rows);
    if (servers.some(({ credential }) => !credential)) {
      others.open = true;
      say(progress, "The server has no shared secret to make a credential with: give one of yours below.");
    }
    return servers;
  }

  async function runAll() {
    if (stopper) {
      return;
    }
    stopper = new AbortController();
    run.disabled = true;
    stop.disabled = false;
    sum = "";
    release();
    results.replaceChildren();
    progress.classList.remove("sum");
    const tried = [];
    try {
      const wanted = await chosen();
      if (!wanted.length) {
        say(progress, "Nothing to test: choose a URL.");
      }
      for (const [index, server] of wanted.entries()) {
        const result = await runOne(server, `${index + 1} of ${wanted.length}: ${server.url}`);
        tried.push({ url: server.url, result });
        if (stopper.signal.aborted) {
          break;
        }
      }
      if (tried.length) {
        sum = summary(tried);
        say(progress, kept ? `${sum} Measuring the round trip; Stop ends it.` : sum);
        progress.classList.add("sum");
      }
    } catch (error) {
      say(progress, error.message);
    }
    stopper = null;
    run.disabled = false;
    stop.disabled = kept === null;
  }

  async function chosen() {
    const servers = await offer();
    const fields = [["username", own.username.value.trim()], ["credential", own.credential.value]];
    const given = Object.fromEntries(fields.filter(([, value]) => value));
    const url = own.url.value.trim();
    const first = servers.find(({ credential }) => credential) ?? {};
    const list = url ? [{ ...first, url }] : servers.filter((server) => ticked(server.url));
    return list.map((server) => ({ ...server, ...given }));
  }

  function ticked(url) {
    return [...choices.querySelectorAll("input")].some((input) => input.value === url && input.checked);
  }

  async function runOne(server, name) {
    const step = (text) => say(progress, `${name}: ${text} …`);
    const stays = () => keeps.checked && kept === null;
    const hasCredential = server.username && server.credential;
    const result = hasCredential ? await test(server, { step, signal: stopper.signal, stays }) : withoutCredential();
    if (result.pair) {
      keep(result.pair);
    }
    let told = null;
    if (result.outcome !== "works" && result.outcome !== "stopped") {
      const since = Math.floor(result.startedUnix - behindSecs);
      told = explain ? said(result, await explain(server.username, since).catch(() => null), server.url) : whomToAsk(server);
    }
    const nowUnix = Date.now() / 1000 - behindSecs;
    const { host } = parts(server.url);
    if (result.candidates.length) {
      reachedHosts.add(host);
    }
    results.append(card(server, result, { told, nowUnix, own: await ownOf(server.url, result), isNameKnown: reachedHosts.has(host) }));
    return result;
  }

  /** What the server is known by and listens on, where that can explain why nothing was there. */
  async function ownOf(url, result) {
    const found = result.outcome === "gave-nothing" && listeners ? await listeners().catch(() => null) : null;
    if (!found) {
      return null;
    }
    const all = found.map(({ transport, address }) => {
      const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? [];
      return { transport, host, port };
    });
    // Those that it names may be a proxy's, or lead here from other ports.
    const named = [...choices.querySelectorAll("input")].map(({ value }) => {
      return { transport: transportName(value).toLowerCase(), host: parts(value).host, port: parts(value).port };
    });
    const ways = [...all, ...named];
    return { hosts: ways.map(({ host }) => host?.toLowerCase()), listeners: ways };
  }

  /** Goes on measuring, for ten minutes at most. */
  function keep(pair) {
    const ends = new AbortController();
    const until = performance.now() + KEEP_MAX_MILLIS;
    kept = { pair, ends };
    const measure = async () => {
      if (kept?.pair !== pair) {
        return;
      }
      try {
        roundTrip((await pair.ping(ends.signal)) * 1000);
      } catch {
        return release();
      }
      return performance.now() < until ? setTimeout(measure, KEEP_MILLIS) : release();
    };
    measure();
  }

  function release() {
    if (kept) {
      kept.ends.abort();
      kept.pair.close();
      kept = null;
      stop.disabled = stopper === null;
      say(progress, `${sum} The round trip is not measured any more.`.trim());
    }
  }

  return { offer };
}

function card({ url, username }, result, { told, nowUnix, own, isNameKnown }) {
  const isGood = result.outcome === "works";
  const { roundTrip, used } = result;
  // A number stays beside its unit.
  const millis = (value) => micros(value * 1000).replaceAll(" ", "\u00a0");
  const first = result.candidates[0];
  const numbers = facts([
    ["Round trip", roundTrip ? `${millis(roundTrip.middle)} (${millis(roundTrip.least)} to ${millis(roundTrip.most)})` : null],
    ["Throughput", result.bitsPerSecond ? bitRate(result.bitsPerSecond) : null],
    ["First relay after", first ? millis(first.millis) : null],
    ["To the server by", used?.relayProtocol?.toUpperCase()],
    ["Username", isGood ? null : username],
  ]);
  const candidates = result.candidates.map(({ type, protocol, address, port }) =>
    make("li", { class: "mono" }, `${type} ${protocol} ${address}:${port}`),
  );
  const errors = troubles(result, url, { isNameKnown, own }).map(({ errorCode, text, said }) =>
    make(
      "li",
      {},
      make("b", {}, `${errorCode}`),
      ` ${text} `,
      said ? make("span", { class: "soft" }, `(the browser: ${said})`) : null,
    ),
  );
  if (result.outcome === "gave-nothing" && !errors.length) {
    errors.push(make("li", {}, guess(url, own, isNameKnown), " ", make("span", { class: "soft" }, "(The browser does not say why.)")));
  }
  const late = result.errors.some(({ errorCode }) => errorCode === 401) ? lateSecs(username, nowUnix) : null;
  if (late && !told?.textContent.includes("had expired")) {
    errors.push(make("li", {}, `The username says that it expired ${span(late)} ago.`));
  }
  return make(
    "article",
    { class: `card result ${isGood ? "good" : "bad"}`, "data-url": url, "data-outcome": result.outcome },
    make("h3", {}, `${isGood ? "✓" : "✗"} ${transportName(url)} `, make("span", { class: "mono" }, url)),
    make("p", { class: `verdict ${isGood ? "good-text" : "bad-text"}` }, verdict(result, url)),
    errors.length ? make("ul", { class: "errors" }, errors) : null,
    told,
    numbers.length ? make("dl", { class: "facts" }, numbers) : null,
    candidates.length ? make("details", {}, make("summary", {}, `Candidates: ${candidates.length}`), make("ul", {}, candidates)) : null,
  );
}

function withoutCredential() {
  const trouble = "the server has no shared secret to make a credential with; give a username and a credential of yours.";
  return { outcome: "failed", trouble, candidates: [], errors: [], startedUnix: Date.now() / 1000 };
}

/** The command names the user as quotas do, and can be pasted into a shell whatever the name is. */
function whomToAsk({ username }) {
  const user = username.replace(/^\d+:/, "").split(";")[0];
  const command = make("code", {}, `turnstone explain ${word(user)}`);
  return make("p", { class: "known soft" }, "Whoever runs the server sees what it knows of this: ", command);
}

/** Those that differ only in when they were, as one. */
function merged(known) {
  const found = new Map();
  for (const refusal of known) {
    const { code, reason, method, peer, explanation, times } = refusal;
    const key = JSON.stringify([code, reason, method, peer, explanation]);
    const earlier = found.get(key);
    found.set(key, earlier ? { ...earlier, times: earlier.times + times } : refusal);
  }
  return [...found.values()];
}

/** What the server knows of it. */
function said(result, known, url) {
  if (!known) {
    return null;
  }
  if (!known.length) {
    if (result.outcome === "failed" && !result.candidates.length) {
      return null;
    }
    const { transport } = parts(url);
    const text =
      result.outcome === "gave-nothing"
        ? `The server has refused nothing of this user meanwhile: the requests did not reach it${transport === "udp" ? "" : ", or no connection was made"}.`
        : "The server has refused nothing of this user meanwhile.";
    return make("p", { class: "known soft" }, text);
  }
  const lines = merged(known).map(({ code, reason, method, peer, explanation, times }) =>
    make(
      "li",
      {},
      make("b", {}, `${code} ${reason}`),
      ` (${method}${peer ? ` for ${peer}` : ""}${times > 1 ? `, ${times} times` : ""}): ${explanation}`,
    ),
  );
  return make("div", { class: "known" }, make("p", {}, "What the server says of it:"), make("ul", {}, lines));
}
