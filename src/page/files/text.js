// Numbers and times as people read them.

const STEPS = ["", "k", "M", "G", "T"];

function scaled(value, base, unit) {
  let at = 0;
  while (value >= base && at < STEPS.length - 1) {
    value /= base;
    at += 1;
  }
  const digits = value >= 100 || (at === 0 && Number.isInteger(value)) ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${STEPS[at]}${unit}`;
}

export const bitRate = (bitsPerSecond) => scaled(bitsPerSecond, 1000, "bit/s");
export const bytes = (count) => scaled(count, 1000, "B");

export function count(value) {
  return Math.round(value).toLocaleString("en");
}

/** A rate that may be less than one. */
export function rate(value) {
  return value === 0 ? "0" : value < 10 ? value.toFixed(1) : count(value);
}

export function micros(value) {
  if (value === null || value === undefined) {
    return "–";
  }
  if (value < 1000) {
    return `${Math.round(value)} µs`;
  }
  const millis = value / 1000;
  return millis < 1000 ? `${millis.toFixed(millis < 10 ? 2 : millis < 100 ? 1 : 0)} ms` : `${(millis / 1000).toFixed(2)} s`;
}

export function span(secs) {
  const parts = [
    [Math.floor(secs / 86400), "d"],
    [Math.floor(secs / 3600) % 24, "h"],
    [Math.floor(secs / 60) % 60, "min"],
    [Math.floor(secs) % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  return first < 0 ? "0 s" : parts.slice(first, first + 2).map(([value, unit]) => `${value} ${unit}`).join(" ");
}

export function clock(unixSecs) {
  return new Date(unixSecs * 1000).toLocaleTimeString("en-GB");
}

export function day(unixSecs) {
  return new Date(unixSecs * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
}

/** A word of a command, which can be pasted into a shell whatever a client is called. */
export function word(text) {
  return /^[\w.:@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
