// Building blocks of a page. Text is always set as text, never as HTML.

/**
 * Returns an element with attributes and children; strings among them become text, null and false nothing.
 * An attribute that is true is there, one that is false or null is not, `on…` is a listener.
 * @param {string} name @param {object} attributes @param {...(Node|string|null|false)} children
 */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

let ids = 0;

/** Returns a card with a title. `tools` stand at its right. */
export function card(title, note, tools, ...children) {
  const id = `card-${(ids += 1)}`;
  return element("section", { class: "card", "aria-labelledby": id },
    element("header", {}, element("div", {}, element("h2", { id }, title), note && element("p", {}, note)), tools), ...children);
}

/**
 * Returns a table in a region that scrolls by itself.
 * A column is {title, cell: item => text or node, number?, wide?: left out on narrow screens, head?: heads its row}.
 */
export function table(label, columns, items, rowClass = () => "") {
  const kind = (column) => [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null;
  const head = element("tr", {}, columns.map((column) => element("th", { scope: "col", class: kind(column) }, column.title)));
  const rows = items.map((item) => element("tr", { class: rowClass(item) || null }, columns.map((column) =>
    element(column.head ? "th" : "td", { class: kind(column), scope: column.head ? "row" : null }, column.cell(item)))));
  return element("div", { class: "table", tabindex: "0", role: "group", "aria-label": label },
    element("table", {}, element("thead", {}, head), element("tbody", {}, rows)));
}

/** Returns a list of figures: [name, value, small note?] each. */
export function figures(pairs) {
  return element("dl", { class: "figures" }, pairs.map(([name, value, note]) => element("div", {},
    element("dt", {}, name), element("dd", {}, value, note && element("small", {}, ` ${note}`)))));
}

/** Returns a control with its label, and a hint under it. */
export function field(label, control, hint) {
  return element("label", { class: "field" }, element("span", {}, label), control, hint && element("small", {}, hint));
}

/** Returns a select. Choices are [value, text] each. */
export function select(choices, value, attributes = {}) {
  return element("select", attributes, choices.map(([key, text]) =>
    element("option", { value: key, selected: String(key) === String(value) }, text)));
}

/** Returns radio buttons that look like one control; `choose(value)` is called with what is chosen. */
export function segments(legend, choices, value, choose) {
  const name = `choice-${(ids += 1)}`;
  return element("fieldset", { class: "segments" }, element("legend", { class: "hidden" }, legend),
    choices.map(([key, text]) => element("label", {}, element("input", {
      type: "radio", name, value: key, checked: key === value, onchange: () => choose(key),
    }), text)));
}

/** Returns the pill of a fit's status. */
export function pill(status) {
  return element("span", { class: `pill ${status}` }, status);
}

/** Returns a swatch in the colour of component k. */
export function swatch(k) {
  return element("span", { class: `swatch k${k % 8}`, "aria-hidden": "true" });
}

/** Returns what stands where there is nothing yet. */
export function empty(title, text, action) {
  return element("div", { class: "empty" }, element("strong", {}, title), element("span", {}, text), action);
}

/** Returns what stands while something is fetched. */
export function loading(text = "Loading") {
  return element("p", { class: "loading", role: "status" }, text);
}

const TITLES = { 404: "That is not there", 409: "That does not go now", 413: "That is too large", 415: "That format is not read", 422: "That cannot be accepted", 429: "Too much at once", 503: "Not just now" };

/** Returns an error for people: a problem document with its places, or any other error. */
export function notice(error) {
  const { title, status, detail, errors, request_id: requestId } = error.problem ?? {};
  return element("div", { class: "notice bad", role: "alert", tabindex: "-1" },
    element("strong", {}, TITLES[status] ?? title ?? "That did not work"), detail ?? error.message,
    errors?.length ? element("ul", {}, errors.map(({ pointer, message }) =>
      element("li", {}, pointer && element("code", {}, pointer), pointer && " ", message))) : null,
    requestId && element("small", {}, `Request ${requestId}`));
}

/** Asks in a dialog; resolves with whether it was confirmed. */
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const answer = (value) => () => dialog.close(value);
    const dialog = element("dialog", { "aria-label": title, onclose: () => { resolve(dialog.returnValue === "yes"); dialog.remove(); } },
      element("h2", {}, title), element("p", {}, text),
      element("div", { class: "actions" },
        element("button", { type: "button", class: "plain", onclick: answer("no") }, "Keep it"),
        element("button", { type: "button", class: "danger", onclick: answer("yes") }, action)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Lets the browser save a file. */
export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
