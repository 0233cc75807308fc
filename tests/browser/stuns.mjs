// Gathers candidates with a stuns: URL in headless Chromium, and prints their types, how long it took and the error codes.
//
// Usage: node stuns.mjs, with a JSON object on stdin: modules (a directory whose node_modules holds playwright-core), url, limitMs.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const { modules, url, limitMs } = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(`${modules}/package.json`)("playwright-core");
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
});
try {
  const page = await browser.newPage();
  const result = await page.evaluate(
    async ({ url, limitMs }) => {
      const pc = new RTCPeerConnection({ iceServers: [{ urls: url }] });
      pc.createDataChannel("x");
      const [types, errors] = [[], []];
      pc.onicecandidateerror = ({ errorCode }) => errors.push(errorCode);
      const complete = new Promise((resolve) => {
        pc.onicecandidate = ({ candidate }) => (candidate ? types.push(candidate.type) : resolve(true));
      });
      const late = new Promise((resolve) => setTimeout(() => resolve(false), limitMs));
      const started = performance.now();
      await pc.setLocalDescription();
      const isComplete = await Promise.race([complete, late]);
      return { types, errors, isComplete, ms: performance.now() - started };
    },
    { url, limitMs },
  );
  console.log(JSON.stringify(result));
} finally {
  await browser.close();
}
