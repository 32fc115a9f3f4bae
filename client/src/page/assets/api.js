// Calls to the endpoint that served this page, with the key where there is one, and what went wrong in words.

const KEY_NAME = "gristmill-key";

/** The key of this tab, or null. */
export function key() {
  return sessionStorage.getItem(KEY_NAME);
}

/** Keeps the key for as long as the tab is open; null forgets it. */
export function setKey(text) {
  if (text === null) {
    sessionStorage.removeItem(KEY_NAME);
  } else {
    sessionStorage.setItem(KEY_NAME, text);
  }
}

/** A request that did not get what it asked for. */
export class CallError extends Error {
  /** @param {{status: number, code: string, message: string, requestId?: string, retryAfter?: string}} told */
  constructor({ status, code, message, requestId = "", retryAfter = "" }) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  /** Whether a key, or another key, would help. */
  get needsKey() {
    return this.status === 401;
  }
}

/** Calls the endpoint. Throws a `CallError` where it says no or nothing. */
export async function call(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (key() !== null) {
    headers.authorization = `Bearer ${key()}`;
  }
  if (body !== undefined) {
    headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new CallError({ status: 0, code: "unreachable", message: "" });
  }
  if (!response.ok) {
    throw await refusal(response);
  }
  return response;
}

async function refusal(response) {
  const told = await response.json().catch(() => ({}));
  return new CallError({
    status: response.status,
    code: String(told.error?.code ?? "unknown"),
    message: String(told.error?.message ?? `the endpoint answered with status ${response.status}`),
    requestId: response.headers.get("x-request-id") ?? "",
    retryAfter: response.headers.get("retry-after") ?? "",
  });
}

/** The error that an event of a stream tells of. */
export function eventError(error, requestId) {
  return new CallError({
    status: 200,
    code: String(error.code ?? "unknown"),
    message: String(error.message ?? "the answer broke off"),
    requestId,
  });
}

const advice = {
  unreachable: "The client does not answer. Is it still running? It is started with: gristmill client serve",
  invalid_api_key: "This endpoint asks for a key, and none that fits was shown. Enter one above.",
  insufficient_credits: "There are not enough credits left. \"gristmill client balance\" tells what you have.",
  budget_exhausted: "The price is above what you allow, or a budget that you have set is used up.",
  no_provider_available: "Nobody serves this at the moment. Providers come and go: try again in a while, " +
    "or choose another model.",
  model_not_found: "Nobody offers this model any more. Choose another one.",
  provider_failed: "No provider that was asked could answer. Asking again may reach others.",
  provider_timeout: "The provider took too long. Asking again may reach a faster one.",
  coordinator_unavailable: "The coordinator does not answer, and without it no new provider can be paid.",
  coordinator_distrusted: "The coordinator was caught lying, so nothing more is paid through it.",
  rate_limit_exceeded: "Too much was asked for at once.",
  context_length_exceeded: "The prompt is too long for this model. Shorten it, or choose one with a longer context.",
  broken_stream: "The answer broke off.",
};

/** What went wrong, what to do, and what to quote when asking for help. */
export function inWords(error) {
  if (!(error instanceof CallError)) {
    return `Something went wrong in this page: ${error.message}`;
  }
  const lines = [advice[error.code] ?? "The request was not answered."];
  if (error.message !== "") {
    lines.push(`The endpoint says: ${error.message}`);
  }
  if (error.retryAfter !== "") {
    lines.push(`Trying again makes sense after ${error.retryAfter} s.`);
  }
  if (error.requestId !== "") {
    lines.push(`Request ${error.requestId}, code ${error.code}`);
  }
  return lines.join("\n");
}
