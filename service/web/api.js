// The public API, as this page uses it.

/** Returns the body of an answer; throws an Error with the problem's detail for any other. */
export async function call(path, body, headers = {}) {
  const options = body === undefined
    ? { headers }
    : { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const content = await answer.json();
  if (answer.ok) return content;
  throw new Error(content.detail ?? `${path} answered ${answer.status}`);
}

/** Returns whether the service is ready, and what is missing where it is not. */
export async function readiness() {
  const answer = await fetch("/readyz");
  const { checks } = await answer.json();
  const wrong = Object.entries(checks ?? {}).filter(([, state]) => state !== "ok");
  return { ready: answer.ok, reason: wrong.map(([name, state]) => `${name}: ${state}`).join("; ") };
}

/** Follows a fit's events to their end; resolves with the fit. `onProgress` gets the data of progress events. */
export function follow(fit, onProgress) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`/v1/fits/${fit.id}/events`);
    source.addEventListener("progress", (event) => onProgress(JSON.parse(event.data).data));
    source.addEventListener("status", (event) => {
      if (!["succeeded", "failed", "cancelled"].includes(JSON.parse(event.data).data.status)) return;
      source.close();
      call(`/v1/fits/${fit.id}`).then(resolve, reject);
    });
    source.addEventListener("error", () => {
      // The browser reconnects by itself, unless the server refused.
      if (source.readyState === EventSource.CLOSED) reject(new Error("the fit's events could not be read"));
    });
  });
}
