// One test of one URL: two peer connections in this browser that may only use relays, and a data channel between them.

const GATHER_MILLIS = 12_000;
const CONNECT_MILLIS = 12_000;
const PINGS = 20;
const PING_MILLIS = 3_000;
/** How long nothing at all may arrive of what has been sent: SCTP waits a second for what was lost, then two, then four. */
const STALL_MILLIS = 10_000;
const SEND_MILLIS = 1_500;
const SEND_BYTES_MAX = 32 << 20;
const CHUNK_BYTES = 16 * 1024;
const BUFFERED_MAX = 256 * 1024;

/**
 * Tests a server: {url, username, credential}. `step(text)` hears how far it is; `signal` ends it early. Never throws. `outcome` is
 * works, gave-nothing, not-connected, stopped, or failed, which has `trouble`. What works and is asked to stay is left open: `pair`.
 */
export async function test(server, { step, signal, stays = () => false }) {
  const result = { outcome: "failed", candidates: [], errors: [], startedUnix: Date.now() / 1000 };
  let pair = null;
  try {
    pair = new Pair(server, result);
    step("asking for two relays");
    await pair.negotiate();
    await until(pair.gathered, GATHER_MILLIS, signal);
    if (!result.candidates.length) {
      result.outcome = "gave-nothing";
      return result;
    }
    step("connecting the two relays");
    result.outcome = "not-connected";
    if (!(await until(pair.opened, CONNECT_MILLIS, signal))) {
      return result;
    }
    step("measuring the round trip");
    const trips = [];
    for (let number = 0; number < PINGS; number += 1) {
      trips.push(await pair.ping(signal));
    }
    trips.sort((one, other) => one - other);
    result.roundTrip = { least: trips[0], middle: trips[PINGS / 2], most: trips.at(-1) };
    step("measuring the throughput");
    result.bitsPerSecond = await pair.send(signal);
    result.used = await pair.used();
    result.outcome = "works";
    if (stays()) {
      result.pair = pair;
      pair = null;
    }
  } catch (error) {
    result.outcome = signal.aborted ? "stopped" : "failed";
    result.trouble = error.message;
  } finally {
    pair?.close();
  }
  return result;
}

/** Resolves to what `promise` does, to undefined after some time; rejects when it is stopped. */
function until(promise, millis, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, millis);
    const stop = () => reject(new Error("stopped"));
    if (signal.aborted) {
      stop();
    }
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    });
  });
}

class Pair {
  constructor({ url, username, credential }, result) {
    const config = { iceServers: [{ urls: [url], username, credential }], iceTransportPolicy: "relay" };
    this.caller = new RTCPeerConnection(config);
    this.callee = new RTCPeerConnection(config);
    this.gathered = Promise.all([
      this.#gathers(this.caller, this.callee, result),
      this.#gathers(this.callee, this.caller, result),
    ]);
    this.channel = this.caller.createDataChannel("self-test");
    this.channel.binaryType = "arraybuffer";
    this.opened = new Promise((open) => {
      this.channel.addEventListener("open", () => open(true));
    });
    this.received = 0;
    this.callee.addEventListener("datachannel", ({ channel }) => {
      channel.binaryType = "arraybuffer";
      channel.addEventListener("message", ({ data }) => {
        if (typeof data === "string") {
          // A ping comes back as it is.
          channel.send(data);
        } else {
          this.received += data.byteLength;
          this.lastReceived = performance.now();
          this.firstReceived ??= this.lastReceived;
        }
      });
    });
  }

  #gathers(own, other, result) {
    const started = performance.now();
    own.addEventListener("icecandidateerror", ({ errorCode, errorText, address }) => {
      const isSame = (known) => known.errorCode === errorCode && known.errorText === errorText && known.address === address;
      const isKnown = result.errors.some(isSame);
      if (!isKnown) {
        result.errors.push({ errorCode, errorText, address });
      }
    });
    return new Promise((done) => {
      own.addEventListener("icegatheringstatechange", () => {
        if (own.iceGatheringState === "complete") {
          done();
        }
      });
      own.addEventListener("icecandidate", ({ candidate }) => {
        if (!candidate?.candidate) {
          return;
        }
        const { type, address, port, protocol } = candidate;
        const millis = performance.now() - started;
        result.candidates.push({ type, address, port, protocol, millis });
        other.addIceCandidate(candidate).catch(() => {});
      });
    });
  }

  async negotiate() {
    await this.caller.setLocalDescription();
    await this.callee.setRemoteDescription(this.caller.localDescription);
    await this.callee.setLocalDescription();
    await this.caller.setRemoteDescription(this.callee.localDescription);
  }

  /** How long a small message takes to the other end and back, in milliseconds. */
  ping(signal) {
    return this.#echo(PING_MILLIS, () => false, signal);
  }

  /** The same behind what was sent before: on a slow connection that takes its time, and is waited for as long as it arrives. */
  pingBehind(signal) {
    let heard = this.lastReceived;
    const goesOn = () => {
      const hasMore = this.lastReceived !== heard;
      heard = this.lastReceived;
      return hasMore;
    };
    return this.#echo(STALL_MILLIS, goesOn, signal);
  }

  async #echo(patienceMillis, goesOn, signal) {
    const started = performance.now();
    const mark = String(started);
    const back = new Promise((resolve) => {
      const hear = ({ data }) => {
        if (data === mark) {
          this.channel.removeEventListener("message", hear);
          resolve(performance.now() - started);
        }
      };
      this.channel.addEventListener("message", hear);
    });
    this.channel.send(mark);
    let millis;
    do {
      millis = await until(back, patienceMillis, signal);
    } while (millis === undefined && goesOn());
    if (millis === undefined) {
      throw new Error(`the connection was there, and then no answer came within ${patienceMillis / 1000} seconds`);
    }
    return millis;
  }

  /** Sends for a while; what arrives a second, in bits. */
  async send(signal) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const end = performance.now() + SEND_MILLIS;
    this.received = 0;
    this.firstReceived = undefined;
    this.channel.bufferedAmountLowThreshold = BUFFERED_MAX / 2;
    let sent = 0;
    while (performance.now() < end && sent < SEND_BYTES_MAX) {
      if (this.channel.bufferedAmount > BUFFERED_MAX) {
        const low = new Promise((resolve) => {
          this.channel.addEventListener("bufferedamountlow", resolve, { once: true });
        });
        await until(low, SEND_MILLIS, signal);
        continue;
      }
      this.channel.send(chunk);
      sent += CHUNK_BYTES;
    }
    // What is under way counts, too.
    await this.pingBehind(signal);
    const secs = (this.lastReceived - this.firstReceived) / 1000;
    return secs > 0 ? (this.received * 8) / secs : 0;
  }

  /** The candidates that are used, as the browser says. */
  async used() {
    const stats = await this.caller.getStats();
    const all = [...stats.values()];
    const transport = all.find(({ type }) => type === "transport");
    const chosen =
      stats.get(transport?.selectedCandidatePairId) ??
      all.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
    const [local, remote] = [stats.get(chosen?.localCandidateId), stats.get(chosen?.remoteCandidateId)];
    return { relayProtocol: local?.relayProtocol ?? null, local: shown(local), remote: shown(remote) };
  }

  close() {
    this.caller.close();
    this.callee.close();
  }
}

function shown(candidate) {
  return candidate ? `${candidate.address}:${candidate.port} (${candidate.candidateType})` : null;
}
