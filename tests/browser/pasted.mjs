// Runs a line of JavaScript that makes `pc`, as somebody pastes it, in headless Chromium, and prints the type of the first candidate.
//
// Usage: node pasted.mjs, with a JSON object on stdin: modules (a directory whose node_modules holds playwright-core), line.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const { modules, line } = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(`${modules}/package.json`)("playwright-core");
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
});
try {
  const page = await browser.newPage();
  await page.addScriptTag({ content: line });
  const type = await page.evaluate(async () => {
    pc.createDataChannel("x");
    const found = new Promise((resolve) => {
      pc.onicecandidate = ({ candidate }) => resolve(candidate ? candidate.type : "none");
    });
    await pc.setLocalDescription();
    return await found;
  });
  console.log(type);
} finally {
  await browser.close();
}
