// The picture of the page in README: node picture.mjs MODULES URL FILE, by tests/browser/picture.

import { createRequire } from "node:module";

const [modules, url, path] = process.argv.slice(2);
const { chromium } = createRequire(`${process.cwd()}/${modules}/package.json`)("playwright-core");

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
});
try {
  const context = await browser.newContext({ viewport: { width: 1180, height: 690 }, colorScheme: "light" });
  const page = await context.newPage();
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll(".plot path[d^=M]").length >= 4);
  // What is only under the pointer is not in the picture.
  await page.waitForTimeout(6000);
  await page.screenshot({ path });
} finally {
  await browser.close();
}
