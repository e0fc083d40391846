// The public API, as this page uses it.

const KEY = "mixserve-key";
const FINAL = ["succeeded", "failed", "cancelled"];

/** A refusal, with its problem document. */
export class Problem extends Error {
  constructor(problem) {
    super(problem.detail ?? "The service refused, and did not say why.");
    this.problem = problem;
  }
}

/** Returns whether a fit has ended. */
export function hasEnded(fit) {
  return FINAL.includes(fit.status);
}

/** Keeps the API key that requests carry, for as long as this tab is open. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headersWith(headers) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
}

async function answered(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headersWith(options.headers ?? {}) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The service does not answer", detail: "Is it running, and is the network there?" });
  }
  if (answer.ok) return answer;
  if (answer.status === 401) document.dispatchEvent(new CustomEvent("key-wanted"));
  throw new Problem(await answer.json().catch(() => ({ title: `${answer.status}`, detail: `${path} answered ${answer.status}.` })));
}

/** Returns the body of a GET. @param {string} path @param {AbortSignal} [signal] */
export async function get(path, signal) {
  return (await answered(path, { signal, headers: { Accept: "application/json" } })).json();
}

/** Returns the answer to a POST of JSON, which is made once however often it is sent. */
export async function post(path, body, signal) {
  return send(path, JSON.stringify(body), "application/json", signal);
}

/** Returns the answer to a POST of bytes or text in a media type. */
export async function send(path, content, type, signal) {
  const headers = { "Content-Type": type, Accept: "application/json" };
  if (/^\/v1\/(datasets|fits|mixtures)(\?|$)/.test(path)) headers["Idempotency-Key"] = nonce();
  return (await answered(path, { method: "POST", body: content, headers, signal })).json();
}

/** Deletes what is at a path. */
export async function remove(path) {
  await answered(path, { method: "DELETE" });
}

function nonce() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Returns whether the service is ready, and what is missing where it is not. */
export async function readiness() {
  const answer = await fetch("/readyz");
  const { checks } = await answer.json();
  const wrong = Object.entries(checks ?? {}).filter(([, state]) => state !== "ok");
  return { ready: answer.ok, reason: wrong.map(([name, state]) => `${name}: ${state}`).join("; ") };
}

/**
 * Follows a fit's events from the first to the final status, over broken connections too.
 * `heard(type, data)` gets each once. Read by fetch, since an EventSource cannot carry a key.
 */
export async function follow(fitId, heard, signal) {
  let last = "";
  for (;;) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const answer = await answered(`/v1/fits/${fitId}/events`, { signal, headers });
      if (answer.status === 204) return;
      for await (const event of events(answer.body)) {
        const { data } = JSON.parse(event.data);
        last = event.id;
        heard(event.type, data);
        if (event.type === "status" && FINAL.includes(data.status)) return;
      }
    } catch (error) {
      if (signal.aborted || (error.problem?.status >= 400 && error.problem.status < 500)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (signal.aborted) return;
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 1).trim()]);
      const fields = Object.fromEntries(lines);
      if (fields.data) yield { id: fields.id, type: fields.event, data: fields.data };
    }
  }
}
