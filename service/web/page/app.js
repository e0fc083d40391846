// Starts the page: its views, whether the service is ready, and the key that it may ask for.

import { compareView, fitsView } from "../views/fits.js";
import { datasetsView, datasetView, mixturesView, mixtureView } from "../views/collections.js";
import { fitView } from "../views/fit.js";
import { newFitView } from "../views/new_fit.js";
import { readiness, useKey } from "./api.js";
import { element, notice } from "./elements.js";
import { address, route } from "./router.js";

const REFRESH_MILLISECONDS = 3000;
const find = (selector) => document.querySelector(selector);
const id = "([A-Za-z0-9_-]{1,80})";

const ROUTES = [
  [/^\/$/, newFitView],
  [/^\/fits$/, fitsView],
  [new RegExp(`^/fits/${id}$`), fitView],
  [/^\/compare$/, compareView],
  [/^\/datasets$/, datasetsView],
  [new RegExp(`^/datasets/${id}$`), datasetView],
  [/^\/mixtures$/, mixturesView],
  [new RegExp(`^/mixtures/${id}$`), mixtureView],
];

function markView() {
  const { path } = address();
  const here = path === "/compare" ? "#/fits" : `#/${path.split("/")[1]}`;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.getAttribute("href") === here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const name = document.querySelector("#views a[aria-current]")?.textContent;
  document.title = name ? `${name} · mixserve` : "mixserve";
}

function showReadiness(state, text) {
  const pill = find("#readiness");
  pill.className = `pill ${state}`;
  if (pill.textContent !== text) { pill.textContent = text; pill.title = text; }
}

async function keepReady() {
  try {
    if (!document.hidden) {
      const { ready, reason } = await readiness();
      showReadiness(ready ? "ready" : "unready", ready ? "ready" : `not ready: ${reason}`);
    }
  } catch {
    showReadiness("unready", "does not answer");
  }
  setTimeout(keepReady, REFRESH_MILLISECONDS);
}

function askForKey() {
  if (find("dialog[open]")) return;
  const input = element("input", { type: "password", autocomplete: "off", "aria-label": "API key" });
  const use = () => { useKey(input.value.trim()); dialog.close(); location.reload(); };
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") use(); });
  const dialog = element("dialog", { "aria-label": "API key", onclose: () => dialog.remove() },
    element("h2", {}, "This service asks for a key"), element("p", {}, "It is kept for this tab only, and sent to nobody but this service."), input,
    element("div", { class: "actions" }, element("button", { type: "button", onclick: use }, "Use it")));
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("key-wanted", askForKey);
find(".skip").addEventListener("click", (event) => { event.preventDefault(); find("#main").focus(); });
addEventListener("hashchange", markView);
markView();
route(find("#main"), ROUTES, (error) => {
  find("#main").replaceChildren(notice(error), element("p", {}, element("a", { href: "#/" }, "Start a new fit"), " or look at ", element("a", { href: "#/fits" }, "the fits"), "."));
});
keepReady();
