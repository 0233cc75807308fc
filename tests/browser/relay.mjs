// Two relay-only peer connections in one headless Chromium, driven by playwright-core.
//
// Usage: node relay.mjs, with a JSON object on stdin:
//   modules      directory whose node_modules holds playwright-core
//   home         home directory of the browser: its .pki/nssdb says which authorities it trusts
//   resolve      optional: an object of host names and the addresses that they have for the browser
//   runs         list of {name, page (the URL that it is loaded from, if its own HTTPS server at site, {port, certificate, key}, is
//                reached by another one), site, iceServers, fetch ({url, init}, in place of iceServers: where the page asks for them), bytes (a multiple of 4), video, expectRefusal, restartWhen}
//                restartWhen: a path. When the call is up, PATH.reached is made; when PATH is there, ICE is restarted, and all is
//                done again, with a result of its own in `restarted`.
// Prints one JSON object: for each run's name either what happened or {error}.

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createSecureServer } from "node:http2";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const input = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(`${input.modules}/package.json`)("playwright-core");

// A page of its own origin; localhost is a secure context, which the fake camera needs.
const answer = (request, response) => {
  response.setHeader("content-type", "text/html");
  response.end(`<!doctype html><title>relay by HTTP ${request.httpVersion}</title>`);
};
const { site } = input.runs.find((run) => run.site) ?? {};
const web = site
  ? createSecureServer({ cert: readFileSync(site.certificate), key: readFileSync(site.key), allowHTTP1: true }, answer)
  : createServer(answer);
await new Promise((listening) => web.listen(site?.port ?? 0, "127.0.0.1", listening));

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  env: { ...process.env, HOME: input.home },
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--host-resolver-rules=${Object.entries(input.resolve ?? {})
      .map(([name, address]) => `MAP ${name} ${address}`)
      .join(",")}`,
  ],
});
const results = {};
try {
  await Promise.all(
    input.runs.map(async (run) => {
      try {
        const page = await browser.newPage();
        await page.goto(run.page ?? `http://localhost:${web.address().port}/`);
        await page.exposeFunction("mayRestart", () => mayRestart(run.restartWhen));
        results[run.name] = { ...(await page.evaluate(inPage, run)), title: await page.title() };
        await page.close();
      } catch (error) {
        results[run.name] = { error: String(error.stack ?? error) };
      }
    }),
  );
} finally {
  await browser.close();
  web.close();
}
for (const { name, bytes } of input.runs) {
  results[name].expectedSha256 = createHash("sha256").update(pattern(bytes)).digest("hex");
}
console.log(JSON.stringify(results));

async function mayRestart(path) {
  writeFileSync(`${path}.reached`, "");
  while (!existsSync(path)) {
    await new Promise((later) => setTimeout(later, 20));
  }
}

// The bytes that a page sends; its twin is inside of inPage, which runs in the browser.
function pattern(length) {
  const words = new Uint32Array(length / 4);
  let state = 0x9e3779b9;
  for (let at = 0; at < words.length; at += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[at] = state;
  }
  return new Uint8Array(words.buffer);
}

async function inPage(run) {
  const CHUNK = 64 * 1024;
  let { iceServers } = run;
  if (run.fetch) {
    const answer = await fetch(run.fetch.url, run.fetch.init).catch((error) => ({ error: String(error) }));
    if (!answer.ok) {
      return { fetched: answer.error ?? answer.status };
    }
    iceServers = (await answer.json()).iceServers;
  }
  const config = { iceServers, iceTransportPolicy: "relay" };
  const [caller, callee] = [new RTCPeerConnection(config), new RTCPeerConnection(config)];
  const candidates = [];
  const errors = [];
  const gathered = [];
  for (const [peer, other] of [
    [caller, callee],
    [callee, caller],
  ]) {
    gathered.push(
      new Promise((done) => {
        peer.onicecandidate = ({ candidate }) => {
          if (candidate === null) {
            done();
          } else if (candidate.candidate !== "") {
            candidates.push({ type: candidate.type, relayProtocol: candidate.relayProtocol, url: candidate.url });
            other.addIceCandidate(candidate).catch(() => {});
          }
        };
      }),
    );
    peer.onicecandidateerror = ({ errorCode, errorText, url }) => errors.push({ errorCode, errorText, url });
  }

  const channel = caller.createDataChannel("bytes");
  channel.binaryType = "arraybuffer";
  let stream = null;
  if (run.video) {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, frameRate: 30 } });
    stream.getTracks().forEach((track) => caller.addTrack(track, stream));
  }
  const nextDigest = receiveBytes(callee, run.bytes);
  const opened = new Promise((open) => {
    channel.onopen = () => open(true);
  });

  await negotiate();
  const result = { candidates, errors };
  if (run.expectRefusal) {
    await Promise.all(gathered);
    result.connected = false;
  } else {
    result.connected = await within(30_000, opened, false);
  }
  if (result.connected) {
    if (run.bytes) {
      await sendBytes(channel, run.bytes);
      result.receivedSha256 = await within(60_000, nextDigest(), "not all came");
    }
    if (run.video) {
      result.framesDecoded = await framesDecoded(callee);
    }
    result.pair = await selectedPair(caller);
  }
  if (result.connected && run.restartWhen) {
    await mayRestart();
    const before = result.pair.address;
    caller.restartIce();
    await negotiate();
    result.restarted = await within(30_000, pairOtherThan(before), null);
    if (result.restarted) {
      await sendBytes(channel, run.bytes);
      result.restarted.receivedSha256 = await within(60_000, nextDigest(), "not all came");
    }
  }
  stream?.getTracks().forEach((track) => track.stop());
  caller.close();
  callee.close();
  return result;

  async function negotiate() {
    await caller.setLocalDescription();
    await callee.setRemoteDescription(caller.localDescription);
    await callee.setLocalDescription();
    await caller.setRemoteDescription(callee.localDescription);
  }

  // The selected pair once both of its addresses are others than `address`, which both relays had before.
  async function pairOtherThan(address) {
    for (;;) {
      const pair = await selectedPair(caller);
      if (pair.address !== address && pair.remoteAddress !== address && pair.nominated) {
        return pair;
      }
      await new Promise((later) => setTimeout(later, 50));
    }
  }

  function within(milliseconds, promise, otherwise) {
    return Promise.race([promise, new Promise((give) => setTimeout(() => give(otherwise), milliseconds))]);
  }

  // The digests of what comes, one of each `length` bytes.
  function receiveBytes(peer, length) {
    const digests = [];
    const waiting = [];
    const next = () => (digests.length ? Promise.resolve(digests.shift()) : new Promise((give) => waiting.push(give)));
    peer.ondatachannel = ({ channel }) => {
      channel.binaryType = "arraybuffer";
      let whole = new Uint8Array(length);
      let filled = 0;
      channel.onmessage = async ({ data }) => {
        whole.set(new Uint8Array(data), filled);
        filled += data.byteLength;
        if (filled === length) {
          const done = whole;
          [whole, filled] = [new Uint8Array(length), 0];
          const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", done));
          const text = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
          (waiting.shift() ?? ((digest) => digests.push(digest)))(text);
        }
      };
    };
    return next;
  }

  async function sendBytes(channel, length) {
    const words = new Uint32Array(length / 4);
    let state = 0x9e3779b9;
    for (let at = 0; at < words.length; at += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      words[at] = state;
    }
    const bytes = new Uint8Array(words.buffer);
    channel.bufferedAmountLowThreshold = 4 * CHUNK;
    for (let start = 0; start < length; start += CHUNK) {
      if (channel.bufferedAmount > 16 * CHUNK) {
        await new Promise((low) => {
          channel.onbufferedamountlow = low;
        });
      }
      channel.send(bytes.subarray(start, Math.min(start + CHUNK, length)));
    }
  }

  // Counts of decoded frames, each larger than the one before, or fewer than four of them after 15 seconds.
  async function framesDecoded(peer) {
    const counts = [];
    const deadline = performance.now() + 15_000;
    while (counts.length < 4 && performance.now() < deadline) {
      for (const stat of (await peer.getStats()).values()) {
        const frames = stat.type === "inbound-rtp" && stat.kind === "video" ? (stat.framesDecoded ?? 0) : 0;
        if (frames > (counts.at(-1) ?? 0)) {
          counts.push(frames);
        }
      }
      await new Promise((later) => setTimeout(later, 100));
    }
    return counts;
  }

  async function selectedPair(peer) {
    const stats = await peer.getStats();
    const transport = [...stats.values()].find((stat) => stat.type === "transport");
    const pair = stats.get(transport.selectedCandidatePairId);
    const local = stats.get(pair.localCandidateId);
    const remote = stats.get(pair.remoteCandidateId);
    return {
      local: local.candidateType,
      remote: remote.candidateType,
      relayProtocol: local.relayProtocol,
      url: local.url,
      address: local.address,
      remoteAddress: remote.address,
      nominated: pair.nominated,
    };
  }
}
