// The first page: whether the service is ready, what it holds, and the gold demo.

import { call, readiness } from "./api.js";
import { runDemo } from "./demo.js";
import { ago, bytes, element, fillTable, shown } from "./elements.js";

const REFRESH_MILLISECONDS = 2000;
const SHOWN = 10;
const find = (selector) => document.querySelector(selector);
const link = (path, text) => element("a", { href: path }, text);
const short = (id) => `…${id.slice(-6)}`;
const either = (value) => (Array.isArray(value) ? value.join(", ") : value);

const LISTS = [
  {
    table: "#fits", path: `/v1/fits?page_size=${SHOWN}`, empty: "None yet. The button above makes one.",
    columns: [
      { title: "Fit", cell: (fit) => link(`/v1/fits/${fit.id}`, short(fit.id)) },
      { title: "Status", cell: (fit) => element("span", { class: `pill ${fit.status}` }, fit.status) },
      { title: "Components", cell: (fit) => either(fit.result?.n_components ?? fit.request.n_components) },
      { title: "Covariances", cell: (fit) => either(fit.result?.covariance_type ?? fit.request.covariance_type) },
      { title: "Log-likelihood", number: true, cell: (fit) => shown(fit.result?.log_likelihood ?? fit.progress?.log_likelihood, 2) },
      { title: "BIC", number: true, cell: (fit) => shown(fit.result?.bic, 2) },
      { title: "Seconds", number: true, cell: (fit) => shown(fit.result?.elapsed_seconds ?? fit.progress?.elapsed_seconds, 2) },
      { title: "Asked for", cell: (fit) => ago(fit.created_at) },
    ],
  },
  {
    table: "#datasets", path: `/v1/datasets?page_size=${SHOWN}`, empty: "None yet.",
    columns: [
      { title: "Dataset", cell: (dataset) => link(`/v1/datasets/${dataset.id}`, dataset.name ?? short(dataset.id)) },
      { title: "Source", cell: (dataset) => dataset.source },
      { title: "Points", number: true, cell: (dataset) => dataset.n_samples.toLocaleString("en") },
      { title: "Features", number: true, cell: (dataset) => dataset.n_features },
      { title: "Made", cell: (dataset) => ago(dataset.created_at) },
    ],
  },
  {
    table: "#mixtures", path: `/v1/mixtures?page_size=${SHOWN}`, empty: "None yet.",
    columns: [
      { title: "Mixture", cell: (mixture) => link(`/v1/mixtures/${mixture.id}`, mixture.name ?? short(mixture.id)) },
      { title: "Components", number: true, cell: (mixture) => mixture.n_components },
      { title: "Features", number: true, cell: (mixture) => mixture.n_features },
      { title: "Covariances", cell: (mixture) => mixture.covariance_type },
      { title: "Made", cell: (mixture) => ago(mixture.created_at) },
    ],
  },
  {
    table: "#workers", path: "/v1/workers", empty: "None has been heard of. Start one with: mixserve worker",
    columns: [
      { title: "Machine", cell: (worker) => worker.hostname },
      { title: "Device", cell: (worker) => `${worker.device.type}: ${worker.device.name}` },
      { title: "Memory", number: true, cell: (worker) => bytes(worker.device.memory_bytes) },
      { title: "Works on", cell: (worker) => worker.running_fit_ids.map(short).join(", ") || "nothing" },
      { title: "Started", cell: (worker) => ago(worker.started_at) },
    ],
  },
];

function showReadiness(state, text, title = "") {
  const pill = find("#readiness");
  pill.className = `pill ${state}`;
  pill.title = title;
  if (pill.textContent !== text) pill.textContent = text;
}

async function refresh() {
  try {
    const { ready, reason } = await readiness();
    showReadiness(ready ? "ready" : "unready", ready ? "ready" : `not ready: ${reason}`, reason);
    await Promise.all(LISTS.map(async (list) => {
      fillTable(find(list.table), list.columns, (await call(list.path)).items, list.empty);
    }));
  } catch (error) {
    showReadiness("unready", "does not answer", error.message);
  }
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, REFRESH_MILLISECONDS);
}

find("#demo-start").addEventListener("click", async ({ currentTarget: button }) => {
  const status = find("#demo-status");
  const say = (text, wrong = false) => {
    status.textContent = text;
    status.classList.toggle("problem", wrong);
  };
  button.disabled = true;
  try {
    await runDemo(say);
    await refresh();
  } catch (error) {
    say(`That did not work: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
});

keepFresh();
