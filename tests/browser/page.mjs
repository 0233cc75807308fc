// Drives the operator's page in a headless browser.
//
// Usage: node page.mjs, with a JSON object on stdin:
//   modules      directory whose node_modules holds playwright-core
//   home         home directory of the browser: its .pki/nssdb says which authorities it trusts
//   url          where the page is, its token included
//   shots        optional: a directory for screenshots
//   do           what to do, one of the functions in `acts`, and what it needs
// Prints one JSON object: what that function found, and `complaints`, what the browser's console has to say.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const input = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(`${input.modules}/package.json`)("playwright-core");
const LIMIT = { timeout: 60_000 };

const acts = { overview, sessions, selfTest, locked, hidden, alone, server, fleet };

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  env: { ...process.env, HOME: input.home },
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
});
const complaints = [];
let result;
try {
  const context = await browser.newContext({ viewport: { width: 1180, height: 800 } });
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(input.url).origin) {
      complaints.push(`asked for ${request.url()}`);
    }
  });
  await page.addInitScript(() => {
    window.shifts = 0;
    const add = (list) => list.getEntries().forEach(({ value }) => (window.shifts += value));
    new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
  });
  await page.goto(input.url);
  result = await acts[input.do.name](page, input.do);
  await shoot(page);
} catch (error) {
  console.error(complaints);
  throw error;
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ...result, complaints }));

/** Opens a part of the page by its link. */
async function open(page, name) {
  await page.getByRole("link", { name, exact: true }).click();
}

/** Each look of the page: light and dark, wide and on a phone. */
async function shoot(page) {
  if (!input.shots) {
    return;
  }
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1180, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 800 });
      await page.screenshot({ path: `${input.shots}/${input.do.name}-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
}

/** Waits until the tiles show what is wanted; what tiles and plots show then, and whether it fits a phone. */
async function overview(page, { tile, value }) {
  await page.waitForFunction(
    ([tile, value]) => {
      const found = [...document.querySelectorAll("#tiles > div")].find((div) => div.firstChild.textContent === tile);
      return found?.querySelector("dd span").textContent === value;
    },
    [tile, value],
    LIMIT,
  );
  await page.waitForFunction(() => document.querySelectorAll(".plot path[d^=M]").length >= 4, null, LIMIT);
  const plots = await page.$$eval(".plot svg", (all) => all.map((svg) => svg.getAttribute("aria-label")));
  const over = await page.locator(".plot path.over").count();
  // The arrow keys go through the values.
  await page.locator(".plot").first().focus();
  await page.keyboard.press("ArrowLeft");
  const cursor = await page.locator(".plot .cursor").count();
  const address = page.url();
  const shifts = await page.evaluate(() => window.shifts);
  const markup = await page.$$eval("style, [style], script:not([src])", (all) => all.length);
  await page.setViewportSize({ width: 390, height: 800 });
  // Tables and plots follow.
  await page.waitForTimeout(300);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  return { plots, over, cursor, address, shifts, markup, wide };
}

/** Searches for a user, looks at the details, and ends what is found. */
async function sessions(page, { user, client }) {
  await open(page, "Sessions");
  const rows = page.locator("#sessions-table tr[data-id]");
  await rows.nth(1).waitFor(LIMIT);
  const all = await rows.allInnerTexts();
  await page.getByLabel("Search for").fill(user);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("#sessions-table tr[data-id]").length === 1, null, LIMIT);
  const found = await rows.allInnerTexts();
  const images = await page.locator("#sessions-table img").count();
  await page.getByRole("button", { name: /^Details/ }).click();
  await page.locator("#sessions-table dl").waitFor(LIMIT);
  const details = await page.locator("#sessions-table dl").innerText();
  // Cancelled first, then done, by the keyboard alone.
  const end = page.getByRole("button", { name: /^End:/ });
  await end.focus();
  await page.keyboard.press("Enter");
  const question = await page.locator("#dialog-text").innerText();
  await page.keyboard.press("Enter");
  const isStillThere = await rows.count();
  await end.focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator("#sessions-table .none").waitFor(LIMIT);
  await page.getByLabel("Search by").selectOption("client");
  await page.getByLabel("Search for").fill("nonsense");
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await page.waitForFunction(() => document.getElementById("sessions-count").textContent.includes("nonsense"), null, LIMIT);
  const mistaken = await page.locator("#sessions-count").innerText();
  await page.getByLabel("Search for").fill(client);
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await rows.first().waitFor(LIMIT);
  return { all, found, images, details, question, isStillThere, mistaken, byClient: await rows.allInnerTexts() };
}

/** What is said of the server, and what a reload would change, now that `change` is made. */
async function server(page, { file, from, to }) {
  // Without clients, a plot says why it is empty, also when there are samples.
  await page.waitForFunction(
    () =>
      document.querySelector(".plot path[d^=M]") &&
      document.querySelector('.plot svg[aria-label^="Round trip to clients"]').textContent.includes("no client over TCP or TLS"),
    null,
    LIMIT,
  );
  await open(page, "Server");
  const part = page.locator("#part-server");
  await part.getByText("good for").or(part.getByText("expires in")).waitFor(LIMIT);
  await part.getByText("[[listen]]").waitFor(LIMIT);
  const before = await part.innerText();
  writeFileSync(file, readFileSync(file, "utf8").replace(from, to));
  await page.getByRole("button", { name: "What would a reload change?" }).click();
  await part.getByText("a reload would change").waitFor(LIMIT);
  const rows = await part.getByRole("row").allInnerTexts();
  await page.setViewportSize({ width: 390, height: 800 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  return { before, rows, wide };
}

/** The nodes of the fleet, their plots, and where a user's sessions are. */
async function fleet(page, { nodes, silent, user }) {
  await open(page, "Fleet");
  const rows = page.locator("#fleet-nodes tr[data-url]");
  await page.waitForFunction(
    ([nodes, silent]) => {
      const texts = [...document.querySelectorAll("#fleet-nodes tr[data-url]")].map((row) => row.innerText);
      const said = texts.filter((text) => text.includes("no answer")).length;
      return texts.length === nodes && said === silent && texts.every((text) => !text.includes("not asked yet"));
    },
    [nodes, silent],
    LIMIT,
  );
  await page.waitForFunction(() => document.querySelectorAll("#fleet-plots path[d^=M]").length >= 2, null, LIMIT);
  const tiles = await page.locator("#fleet-tiles > div").allInnerTexts();
  const plots = await page.$$eval("#fleet-plots svg", (all) => all.map((svg) => svg.getAttribute("aria-label")));
  await page.locator("#fleet-search-for").fill(user);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("fleet-found").textContent.includes("found"), null, LIMIT);
  const found = await page.locator("#fleet-sessions tbody tr").allInnerTexts();
  const count = await page.locator("#fleet-found").innerText();
  const images = await page.locator("#part-fleet img").count();
  const texts = await rows.allInnerTexts();
  await page.setViewportSize({ width: 390, height: 800 });
  await page.waitForTimeout(300);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  const lines = await page.$$eval("#parts a", (all) => new Set(all.map((part) => part.offsetTop)).size);
  return { tiles, plots, found, count, images, wide, lines, rows: texts };
}

/** Runs the self-test: of the server's own URLs, or once for each of `tries`, {url, username, credential}. */
async function selfTest(page, { tries }) {
  await open(page, "Self-test");
  await page.locator(".choices input").first().waitFor(LIMIT);
  const button = page.getByRole("button", { name: "Test", exact: true });
  const done = () => page.waitForFunction(() => !document.querySelector("#self-test button.main").disabled, null, LIMIT);
  if (!tries) {
    await page.getByLabel("keep measuring").check();
    await button.click();
    await done();
    const results = await outcomes(page);
    await open(page, "Overview");
    await page.waitForFunction(
      () => document.querySelector('.plot svg[aria-label^="Round trip through two relays"]').getAttribute("aria-label").includes("and back"),
      null,
      LIMIT,
    );
    await open(page, "Self-test");
    await page.getByRole("button", { name: "Stop" }).click();
    return { results };
  }
  const others = page.locator("#self-test form details");
  // Open by itself where the server has no credential.
  if (!(await others.evaluate((details) => details.open))) {
    await page.getByText("Another URL").click();
  }
  const results = [];
  for (const { url, username, credential } of tries) {
    await page.getByLabel("URL", { exact: true }).fill(url);
    await page.getByLabel("Username", { exact: true }).fill(username);
    await page.getByLabel("Credential", { exact: true }).fill(credential);
    await button.click();
    await page.locator(".result").waitFor(LIMIT);
    await done();
    results.push(...(await outcomes(page)));
  }
  return { results };
}

function outcomes(page) {
  return page.$$eval(".result", (all) =>
    all.map((result) => ({
      url: result.dataset.url,
      outcome: result.dataset.outcome,
      text: result.innerText,
      candidates: [...result.querySelectorAll("details li")].map((item) => item.textContent),
    })),
  );
}

/** The self-test's own page: a key that is not good, then one that is, and the test. */
async function alone(page, { key, user }) {
  await page.getByLabel("Key").fill("nobody's");
  await page.getByRole("button", { name: "Begin" }).click();
  await page.locator("#trouble").waitFor(LIMIT);
  const said = await page.locator("#trouble").innerText();
  const trouble = page.locator("#trouble");
  await page.getByLabel("Key").fill(key);
  await page.getByLabel("Your name").fill("anna");
  await page.getByRole("button", { name: "Begin" }).click();
  await trouble.getByText("Your name has to begin").waitFor(LIMIT);
  const prefix = await trouble.innerText();
  // A link, as it is sent to somebody.
  await page.evaluate((hash) => {
    location.hash = hash;
  }, `key=${key}&user=${user}`);
  await page.locator(".choices input").first().waitFor(LIMIT);
  const address = page.url();
  await page.getByRole("button", { name: "Test", exact: true }).click();
  await page.locator(".result").first().waitFor(LIMIT);
  await page.waitForFunction(() => !document.querySelector("#self-test button.main").disabled, null, LIMIT);
  const results = await outcomes(page);
  const sum = page.locator("#self-test .sum");
  const summary = await sum.innerText();
  await page.getByText("Another URL").click();
  await page.getByLabel("URL", { exact: true }).fill(results[0].url);
  await page.getByLabel("Credential", { exact: true }).fill("guessed");
  await page.getByRole("button", { name: "Test", exact: true }).click();
  await page.locator(".result.bad").waitFor(LIMIT);
  const none = await sum.innerText();
  return { said, prefix, summary, none, address, results, refused: (await outcomes(page))[0], keeps: await page.getByLabel("keep measuring").count() };
}

/** Without the token the page asks for it; a wrong one is said to be wrong, the right one lets in, and a reload keeps it. */
async function locked(page, { token }) {
  const form = page.locator("#token-form");
  await form.waitFor(LIMIT);
  const field = page.getByRole("textbox", { name: "Token" });
  await field.fill("a wrong one, surely");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("token-error").textContent !== "", null, LIMIT);
  const said = await page.locator("#token-error").innerText();
  await field.fill(token);
  await page.keyboard.press("Enter");
  await form.waitFor({ state: "hidden", ...LIMIT });
  await page.reload();
  await page.waitForFunction(() => document.getElementById("state").textContent.startsWith("up"), null, LIMIT);
  return { said, isLocked: await form.isVisible() };
}

/** How often it asks while it is shown, and while it is hidden. */
async function hidden(page, { millis }) {
  await page.waitForFunction(() => document.getElementById("state").textContent.startsWith("up"), null, LIMIT);
  let asked = 0;
  page.on("request", () => {
    asked += 1;
  });
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => window.isHidden });
    window.isHidden = true;
  });
  await page.waitForTimeout(millis);
  const whileHidden = asked;
  await page.evaluate(() => {
    window.isHidden = false;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.waitForTimeout(1_000);
  return { whileHidden, afterwards: asked - whileHidden };
}
