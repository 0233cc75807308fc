// What ICE errors mean, in plain words: the codes of STUN and TURN (RFC 8489, 8656), and 701, which is the browser's own for a server that it
// did not get through to.

const BY_CODE = {
  300: "The server sends its clients to another one.",
  400: "The server does not understand the request.",
  401: "The username or the credential is wrong, or has expired.",
  403: "The server forbids it: the user, or a peer of theirs, is not allowed.",
  420: "The server does not know an option that the browser asks for.",
  437: "The server has another idea of this session than the browser; it may have been restarted.",
  438: "The server wanted a newer nonce, and the browser did not send one.",
  440: "The server has no relay of this address family (IPv4 or IPv6).",
  441: "Another user's credential than the one that the session began with.",
  442: "The server does not relay over this transport.",
  443: "The peer has another address family than the relay.",
  486: "The user has too many sessions at once, or makes them too fast.",
  487: "Both ends want to lead: try again.",
  500: "The server has an error of its own; its log says which.",
  508: "The server has no relay port left, or is about to stop.",
};

/**
 * What the browser's errors at `url` come to, each once: {errorCode, text, said}. Chromium looks the server's name up for each address
 * family of its own. Where the name lacks one of the two it says so, and need not say what came of the other: that is no name that
 * is not found. `isNameKnown` says that something else by this name has been reached; `own` is what is known of the server, see `missing`.
 */
export function troubles({ outcome, candidates, errors }, url, { isNameKnown, own }) {
  const lookups = errors.filter(isLookup);
  const others = errors.filter((error) => !isLookup(error));
  const told = new Map(others.map((error) => [meaning(error, url, own), error]));
  if (lookups.length && !others.length && !candidates.length && outcome !== "works") {
    const families = new Set(lookups.map(({ address }) => address && (address.includes(":") ? "IPv6" : "IPv4")));
    const [lacking] = families.size === 1 ? families : [];
    const isFound = lacking === "IPv6" || (lacking && isNameKnown);
    const note = `(The name has no ${lacking} address, which is no fault unless this network has nothing else.)`;
    told.set(isFound ? `${guess(url, own, isNameKnown)} ${note}` : NOT_FOUND, lookups[0]);
  }
  return [...told].map(([text, { errorCode, errorText }]) => ({ errorCode, text, said: errorText }));
}

const NOT_FOUND = "The name of the server is not found: look at the spelling and at DNS.";

function isLookup({ errorCode, errorText }) {
  return (errorCode === 701 || errorCode === 0) && /lookup|resolve|DNS/i.test(errorText ?? "");
}

/** In plain words. `url` is the one that was tried. */
function meaning({ errorCode }, url, own) {
  const known = BY_CODE[errorCode];
  if (known) {
    return known;
  }
  if (errorCode === 701 || errorCode === 0) {
    return guess(url, own);
  }
  return "An error that this page does not know.";
}

function unreached(url, isNameKnown) {
  const { host, port, transport, isTls } = parts(url);
  if (isTls) {
    return (
      `No TLS connection to port ${port}: a firewall is in between, nothing listens there, or the certificate is not one that this ` +
      "browser trusts for this name."
    );
  }
  if (transport === "udp") {
    const isName = /[a-z]/i.test(host ?? "") && !host.startsWith("[") && !isNameKnown;
    const wrong = isName ? "the name is not known in DNS or leads elsewhere" : "the address is wrong";
    return `Nothing answers on UDP port ${port}: a firewall drops UDP, ${wrong}, or the server does not listen there.`;
  }
  return `No TCP connection to port ${port}: it is closed, or a firewall is in between.`;
}

/**
 * What is not there, where the URL is of this very server and of none of its listeners. `own` has its hosts, and its listeners as
 * {transport, port}; without it nothing is known.
 */
export function missing(url, own) {
  const { host, port } = parts(url);
  if (!host || !own?.hosts.includes(host.toLowerCase())) {
    return null;
  }
  const wanted = transportName(url).toLowerCase();
  const at = (transport) => own.listeners.filter((listener) => listener.transport === transport);
  const isAt = (transport) => at(transport).some((listener) => listener.port === port);
  if (isAt(wanted)) {
    return null;
  }
  const shown = [...new Set(own.listeners.map((listener) => `${listener.transport} ${listener.port}`))].join(", ");
  const [encrypted, plain] = { tls: ["TLS", "tcp"], dtls: ["DTLS", "udp"] }[wanted] ?? [];
  if (!encrypted) {
    return `This server does not listen on ${wanted.toUpperCase()} port ${port}; it does on ${shown}.`;
  }
  if (isAt(plain)) {
    return `This server does not speak ${encrypted} on port ${port}, which is ${plain.toUpperCase()} there; it listens on ${shown}.`;
  }
  return `This server does not listen for ${encrypted} on port ${port}; it listens on ${shown}.`;
}

/** What a URL says: host, port, transport, whether by TLS. */
export function parts(url) {
  const found = /^(turns?|stuns?):(\[[^\]]+\]|[^:?]+)(?::(\d+))?(?:\?transport=(\w+))?$/i.exec(url) ?? [];
  const isTls = /s$/i.test(found[1] ?? "");
  const transport = (found[4] ?? (isTls ? "tcp" : "udp")).toLowerCase();
  return { host: found[2], port: found[3] ?? (isTls ? "5349" : "3478"), transport, isTls };
}

/** How a transport is called. */
export function transportName(url) {
  const { transport, isTls } = parts(url);
  return isTls ? (transport === "udp" ? "DTLS" : "TLS") : transport.toUpperCase();
}

/** What is most likely where no relay came, whether or not the browser has said why. */
export function guess(url, own, isNameKnown = false) {
  return missing(url, own) ?? unreached(url, isNameKnown);
}

/** When the time in a username of a time-limited credential has passed: since how many seconds. */
export function lateSecs(username, nowUnix) {
  const [, expires] = /^(\d{9,11}):/.exec(username ?? "") ?? [];
  const late = Math.floor(nowUnix) - Number(expires);
  return late > 0 ? late : null;
}

/** What a test came to, in a sentence. */
export function verdict(result, url) {
  switch (result.outcome) {
    case "works":
      return "Works: data went from one relay to the other and back.";
    case "gave-nothing":
      return "Does not work: the browser got no relay from this server.";
    case "not-connected":
      return "Does not work: both relays are there, but nothing comes through between them. A peer policy of the server denies it.";
    case "stopped":
      return "Stopped.";
    default: {
      const isUrl = parts(url).host;
      const form = isUrl ? "" : " A URL begins with turn: or turns:, such as turn:turn.example.org:3478";
      return `Does not work: ${result.trouble}${form}`;
    }
  }
}

/** What all tests came to, for who reads one line of it to somebody on the phone. `tried` has {url, result}. */
export function summary(tried) {
  const works = tried.filter(({ result }) => result.outcome === "works");
  if (tried.some(({ result }) => result.outcome === "stopped")) {
    return "Stopped.";
  }
  if (!works.length) {
    const isRefused = ({ result }) => result.errors.some(({ errorCode }) => errorCode === 401);
    const why = tried.every(isRefused) ? "The server is reached, and refuses the name or the password." : "Below is why.";
    return `${tried.length === 1 ? "It does not work" : `None of ${tried.length} ways works`}. ${why}`;
  }
  const all = tried.length === 1 ? "It works" : `All ${tried.length} ways work`;
  const some = works.length === 1 ? `1 of ${tried.length} ways works` : `${works.length} of ${tried.length} ways work`;
  const count = works.length === tried.length ? all : some;
  const isUdp = ({ url }) => ["UDP", "DTLS"].includes(transportName(url));
  const slower = tried.some(isUdp) && !works.some(isUdp) ? " UDP does not get through, so they may be slower." : "";
  return `${count}: calls will work from here.${slower}`;
}
