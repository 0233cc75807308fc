// Headless Firefox, driven over WebDriver BiDi, which it speaks by itself.

import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";

// Nothing is asked of anybody on the Internet.
const QUIET = {
  "app.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "toolkit.telemetry.reportingpolicy.firstRun": false,
};

/**
 * Starts Firefox with a profile in this folder and these preferences, for so long at most. `modules` is a directory whose
 * node_modules holds ws. Returns a function that sends a command and has its result, and one that ends it.
 */
export async function firefox({ modules, home, preferences, limitMillis }) {
  const lines = Object.entries({ ...QUIET, ...preferences }).map(
    ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`,
  );
  writeFileSync(`${home}/user.js`, lines.join("\n"));
  const arguments_ = ["--headless", "--no-remote", "--profile", home, "--remote-debugging-port", "0", "about:blank"];
  const browser = spawn("firefox-esr", arguments_, { env: { ...process.env, HOME: home }, stdio: ["ignore", "ignore", "pipe"] });
  const giveUp = setTimeout(() => browser.kill(), limitMillis);
  const end = () => {
    clearTimeout(giveUp);
    browser.kill();
  };
  try {
    const bidi = await connect(createRequire(`${modules}/package.json`)("ws"), await listening(browser));
    await bidi("session.new", { capabilities: {} });
    return { bidi, end };
  } catch (error) {
    end();
    throw error;
  }
}

/** The address that Firefox says it listens at. */
async function listening(browser) {
  let said = "";
  for await (const chunk of browser.stderr) {
    said += chunk;
    const found = /WebDriver BiDi listening on (ws:\/\/\S+)/.exec(said);
    if (found) {
      browser.stderr.resume();
      return `${found[1]}/session`;
    }
  }
  throw new Error(`Firefox has ended: ${said}`);
}

/** A function that sends a command and has its result. */
async function connect(WebSocket, address) {
  const socket = new WebSocket(address);
  await new Promise((open, fail) => {
    socket.onopen = open;
    socket.onerror = () => fail(new Error(`no connection to ${address}`));
  });
  const waiting = new Map();
  const command = (method, params) =>
    new Promise((resolve, reject) => {
      const id = waiting.size + 1;
      waiting.set(id, { resolve, reject });
      socket.send(JSON.stringify({ id, method, params }));
    });
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "event") {
      command.heard?.(message);
    } else if (message.type === "success") {
      waiting.get(message.id).resolve(message.result);
    } else {
      waiting.get(message.id).reject(new Error(`${message.error}: ${message.message}`));
    }
  };
  return command;
}
