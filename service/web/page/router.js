// Addresses of views: `#/fits/ID?features=0,1`. Whatever a view shows can be sent to somebody as a link.

let current = new AbortController();

/** Returns the path and the parameters of the address. */
export function address() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  return { path: path || "/", query: new URLSearchParams(query) };
}

/** Goes to a view. */
export function go(path) {
  location.hash = path;
}

/** Puts a choice made within a view into its address, without drawing it again or a step back. */
export function remember(name, value) {
  const { path, query } = address();
  if (value === null || value === undefined || value === "") query.delete(name);
  else query.set(name, value);
  const text = query.toString().replaceAll("%2C", ",");
  history.replaceState(null, "", `#${path}${text && `?${text}`}`);
}

/**
 * Shows the view of the address now and whenever it changes. A route is [pattern, view]; a view gets the main
 * element, the parts of its path, its parameters and a signal that says when it is left.
 */
export function route(main, routes, failed) {
  async function show() {
    current.abort();
    current = new AbortController();
    const { signal } = current;
    const { path, query } = address();
    const found = routes.map(([pattern, view]) => [path.match(pattern), view]).find(([match]) => match);
    scrollTo(0, 0);
    try {
      if (!found) throw new Error("There is no such view. The menu above has them all.");
      await found[1](main, found[0].slice(1), query, signal);
    } catch (error) {
      if (!signal.aborted) failed(error);
    }
  }
  addEventListener("hashchange", () => { show(); main.focus({ preventScroll: true }); });
  show();
}
