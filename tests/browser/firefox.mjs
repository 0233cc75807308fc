// Runs the page's self-test in headless Firefox, over WebDriver BiDi, which Firefox speaks by itself.
//
// Usage: node firefox.mjs, with a JSON object on stdin:
//   modules      directory whose node_modules holds ws
//   home         a folder for the browser's profile
//   url          where the page is, its token included
//   listeners    those that are tested, a part of each URL
// Prints one JSON object: the results that the page shows, and the errors of its scripts.

import { text } from "node:stream/consumers";
import { firefox } from "./bidi.mjs";

const { modules, home, url, listeners } = JSON.parse(await text(process.stdin));
const LIMIT_MILLIS = 60_000;

const preferences = {
  // Servers and relays of the tests are on loopback, where Firefox otherwise looks for none.
  "media.peerconnection.ice.loopback": true,
};
const { bidi, end } = await firefox({ modules, home, preferences, limitMillis: LIMIT_MILLIS + 30_000 });
try {
  const errors = [];
  await bidi("session.subscribe", { events: ["log.entryAdded"] });
  bidi.heard = ({ method, params }) => method === "log.entryAdded" && params.level === "error" && errors.push(params.text);
  const { contexts } = await bidi("browsingContext.getTree", {});
  const { context } = contexts[0];
  await bidi("browsingContext.navigate", { context, url, wait: "complete" });
  const expression = `(${inPage})(${JSON.stringify(listeners)}, ${LIMIT_MILLIS})`;
  const { result, exceptionDetails } = await bidi("script.evaluate", { expression, target: { context }, awaitPromise: true });
  console.log(JSON.stringify({ ...(result ? JSON.parse(result.value) : { failed: exceptionDetails }), errors }));
} finally {
  end();
}

// In the browser: runs the self-test of each listener by itself, and of the last one again with a credential that is wrong.
async function inPage(listeners, limit) {
  const until = async (what) => {
    const end = performance.now() + limit;
    for (;;) {
      const found = what();
      if (found) {
        return found;
      }
      if (performance.now() > end) {
        throw new Error(`${what} did not come`);
      }
      await new Promise((later) => setTimeout(later, 50));
    }
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const button = () => document.querySelector("#self-test button.main");
  const run = async () => {
    button().click();
    await until(() => document.querySelector(".result") && !button().disabled);
    const { dataset, innerText } = document.querySelector(".result");
    return { outcome: dataset.outcome, text: innerText };
  };
  await until(() => document.getElementById("state").textContent.startsWith("up"));
  document.querySelector('a[href="#self-test"]').click();
  await until(() => all(".choices input").length);
  const good = [];
  for (const listener of listeners) {
    for (const input of all(".choices input")) {
      input.checked = input.value.includes(listener);
    }
    good.push(await run());
  }
  document.querySelector("#self-test details").open = true;
  document.querySelector("#self-test input[type=password]").value = "guessed";
  const wrong = await run();
  return JSON.stringify({ good, wrong, sessions: document.querySelector("#tiles dd span").textContent });
}
