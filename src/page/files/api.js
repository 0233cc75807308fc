// The admin API. The token, if there is one, goes along in a header, never in a cookie: no other page can use it.

const KEPT_AS = "turnstone-token";
const LIMIT_MILLIS = 12_000;

/** Why there is no answer: `status` is 0 where the server was not reached. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let token = sessionStorage.getItem(KEPT_AS);

/** Takes the token out of the address (#token=…), where `serve --dev` puts it. Returns whether there was one. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    keepToken(given);
    history.replaceState(null, "", location.pathname);
  }
  return Boolean(given);
}

export function keepToken(given) {
  token = given;
  sessionStorage.setItem(KEPT_AS, given);
}

/** The answer to a request. `query` has the parameters; those without a value are left out. */
export async function ask(path, { method = "GET", query = {} } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = given.length ? `?${new URLSearchParams(given)}` : "";
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  let body;
  try {
    const signal = AbortSignal.timeout(LIMIT_MILLIS);
    // Where the page is: a proxy may show it under a path.
    response = await fetch(`.${path}${text}`, { method, headers, signal, credentials: "omit", cache: "no-store" });
    body = await response.json();
  } catch (error) {
    throw new ApiError(response?.status ?? 0, error.name === "TimeoutError" ? "the server does not answer" : "the server is not reached");
  }
  if (!response.ok) {
    throw new ApiError(response.status, body?.error?.message ?? `answer ${response.status}`);
  }
  return body;
}
