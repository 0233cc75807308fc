// The overview: figures of the last quarter of an hour, as tiles and plots.

import { ask } from "./api.js";
import { byId, make, say } from "./dom.js";
import { SERIES_MAX, plot } from "./plot.js";
import { bitRate, count, micros, plural, rate } from "./text.js";

const TRANSPORTS = ["udp", "tcp", "tls", "dtls"];
/** The first request of every client, and a nonce that is renewed: both are how the protocol goes. */
const NORMAL = ["missing-integrity", "stale-nonce"];
const ROUND_TRIPS_MAX = 900;
const SPAN_MIN_SECS = 120;

const samples = [];
const roundTrips = [];
let spanMax = 900;
let instance = null;

const plots = {
  sessions: plot({ title: "Sessions", shape: "area", unit: count, least: 4 }),
  rates: plot({ title: "Bit rate", shape: "line", unit: bitRate, least: 1000 }),
  refusals: plot({ title: "Refusals a minute, by reason", shape: "bar", unit: rate, least: 10 }),
  times: plot({ title: "Time in the server", shape: "line", unit: micros, least: 100, empty: "no packets yet" }),
  clients: plot({
    title: "Round trip to clients over TCP and TLS",
    shape: "line",
    unit: micros,
    least: 1000,
    empty: "no client over TCP or TLS",
  }),
  roundTrip: plot({
    title: "Round trip through two relays",
    shape: "line",
    unit: micros,
    least: 1000,
    empty: "measured by the self-test, in this browser",
  }),
};
const tiles = {};

export function start() {
  byId("plots").append(...Object.values(plots).map(({ figure }) => figure));
  const names = { sessions: "Sessions", toPeers: "To peers", toClients: "To clients", refusals: "Refusals", relay: "Relay time", ports: "Relay ports" };
  for (const [key, name] of Object.entries(names)) {
    const [value, more] = [make("span", {}, "–"), make("small")];
    tiles[key] = [value, more];
    byId("tiles").append(make("div", {}, make("dt", {}, name), make("dd", {}, value, more)));
  }
}

/** Asks for what is new. */
export async function refresh(status) {
  if (instance !== status.instance) {
    // Another run of the server counts from the beginning.
    instance = status.instance;
    samples.length = 0;
  }
  const history = await ask("/v1/history", { query: { after: samples.at(-1)?.number } });
  samples.push(...history.samples);
  spanMax = history.interval_secs * history.samples_max;
  samples.splice(0, Math.max(0, samples.length - history.samples_max));
  showTiles(status);
  showPlots();
}

/** A round trip that the self-test has measured, in microseconds. */
export function addRoundTrip(value) {
  roundTrips.push([Date.now() / 1000, value]);
  roundTrips.splice(0, Math.max(0, roundTrips.length - ROUND_TRIPS_MAX));
  showRoundTrips();
}

function tile(key, value, more) {
  say(tiles[key][0], value);
  say(tiles[key][1], more);
}

const bits = (sample, key) => (sample[key].bytes * 8) / sample.secs;
const packets = (sample, key) => `${count(sample[key].packets / sample.secs)} packets/s`;

function showTiles(status) {
  const transports = TRANSPORTS.filter((name) => status.allocations_by_transport[name] > 0);
  const by = transports.map((name) => `${name} ${count(status.allocations_by_transport[name])}`).join(", ");
  tile("sessions", count(status.allocations), by || `${plural(status.connections, "connection")}`);
  const ports = Object.values(status.ports);
  const ofAll = (key) => ports.reduce((sum, of) => sum + of[key], 0);
  tile("ports", count(ofAll("used")), `of ${count(ofAll("total"))}`);
  const last = samples.at(-1);
  if (!last) {
    return;
  }
  tile("toPeers", bitRate(bits(last, "to_peers")), packets(last, "to_peers"));
  tile("toClients", bitRate(bits(last, "to_clients")), packets(last, "to_clients"));
  const minutes = samples.slice(-12);
  const [first] = [...refusals(minutes)];
  const sum = [...refusals(minutes).values()].reduce((sum, number) => sum + number, 0);
  tile("refusals", count(sum), first ? first[0] : "in the last minute");
  const relay = samples.findLast((sample) => sample.relay_micros)?.relay_micros;
  tile("relay", micros(relay?.p50), relay ? `99 %: ${micros(relay.p99)}` : "no packets yet");
}

/** How many there were of each reason, the most first; without what is normal. */
function refusals(of) {
  const sums = new Map();
  for (const { refused } of of) {
    for (const [reason, number] of Object.entries(refused).filter(([reason]) => !NORMAL.includes(reason))) {
      sums.set(reason, (sums.get(reason) ?? 0) + number);
    }
  }
  return new Map([...sums].sort((one, other) => other[1] - one[1]));
}

function showPlots() {
  const times = samples.map((sample) => sample.at_unix);
  const span = spanOf(times);
  const of = (name, value) => ({ name, values: samples.map(value) });
  const used = TRANSPORTS.filter((name) => name === "udp" || samples.some((sample) => sample.allocations[name] > 0));
  plots.sessions.set(used.map((name) => of(name, (sample) => sample.allocations[name] ?? 0)), times, span);
  const rates = [
    of("to peers", (sample) => bits(sample, "to_peers")),
    of("to clients", (sample) => bits(sample, "to_clients")),
  ];
  plots.rates.set(rates, times, span);
  const reasons = [...refusals(samples).keys()];
  const named = reasons.length > SERIES_MAX ? reasons.slice(0, SERIES_MAX - 1) : reasons;
  const aMinute = (sample, wanted) => {
    const counted = Object.entries(sample.refused).filter(([reason]) => wanted(reason));
    return (counted.reduce((sum, [, number]) => sum + number, 0) * 60) / sample.secs;
  };
  const series = named.map((name) => of(name, (sample) => aMinute(sample, (reason) => reason === name)));
  if (named.length < reasons.length) {
    const rest = (reason) => !named.includes(reason) && !NORMAL.includes(reason);
    series.push(of("others", (sample) => aMinute(sample, rest)));
  }
  plots.refusals.set(series, times, span);
  const lines = [
    of("packet, median", (sample) => sample.relay_micros?.p50 ?? null),
    of("packet, 99 %", (sample) => sample.relay_micros?.p99 ?? null),
    of("new session, median", (sample) => sample.setup_micros?.p50 ?? null),
  ];
  plots.times.set(lines, times, span);
  const measured = samples.some((sample) => sample.round_trip_micros);
  const trips = [
    of("median", (sample) => sample.round_trip_micros?.p50 ?? null),
    of("99 %", (sample) => sample.round_trip_micros?.p99 ?? null),
  ];
  plots.clients.set(measured ? trips : [], times, span);
  showRoundTrips();
}

/** What is shown of a plot: all that there is, and not too little. */
function spanOf(times) {
  return Math.max(SPAN_MIN_SECS, Math.min(spanMax, (times.at(-1) ?? 0) - (times[0] ?? 0)));
}

function showRoundTrips() {
  const values = roundTrips.map(([, value]) => value);
  const times = roundTrips.map(([time]) => time);
  plots.roundTrip.set(values.length ? [{ name: "from this browser and back", values }] : [], times, spanOf(times));
}
