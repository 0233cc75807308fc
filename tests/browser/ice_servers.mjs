// Makes a connection with each list of servers in headless Chromium and Firefox, and prints what each browser throws.
//
// Usage: node ice_servers.mjs, with a JSON object on stdin:
//   modules      directory whose node_modules holds playwright-core and ws
//   home         a folder for Firefox's profile
//   lists        each the text of an array or object, as JavaScript
// Prints one JSON object: chromium and firefox, each an array with a string for each list: the name of the error, or nothing.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import { firefox } from "./bidi.mjs";

const { modules, home, lists } = JSON.parse(await text(process.stdin));
const LIMIT_MILLIS = 60_000;
const script = `JSON.stringify([${lists.map((list) => `() => (${list})`).join(",")}].map((iceServers) => {
  try {
    new RTCPeerConnection({ iceServers: iceServers() }).close();
    return "";
  } catch (error) {
    return error.name;
  }
}))`;

async function inChromium() {
  const { chromium } = createRequire(`${modules}/package.json`)("playwright-core");
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
  });
  try {
    return JSON.parse(await (await browser.newPage()).evaluate(script));
  } finally {
    await browser.close();
  }
}

async function inFirefox() {
  const { bidi, end } = await firefox({ modules, home, preferences: {}, limitMillis: LIMIT_MILLIS });
  try {
    const { contexts } = await bidi("browsingContext.getTree", {});
    const target = { context: contexts[0].context };
    const { result } = await bidi("script.evaluate", { expression: script, target, awaitPromise: true });
    return JSON.parse(result.value);
  } finally {
    end();
  }
}

console.log(JSON.stringify({ chromium: await inChromium(), firefox: await inFirefox() }));
