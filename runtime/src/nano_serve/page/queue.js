// The list of jobs that wait or are drawn, each with its progress and a way to cancel it.

import { at, el, icon, on, plural, put, say, toast } from "./dom.js";
import { ended, going, left, look, store, watch } from "./store.js";
import { again, cancel, stateOf } from "./stage.js";

const rows = new Map();
const last = new Map(); // status of each job when it was last seen

export function startQueue() {
  on("cancel-all", "click", () => going().reverse().forEach(cancel));
  on("forget-all", "click", () => left().forEach(cancel));
  watch(show);
  watch(tell);
  watch(showLeft);
}

function show() {
  const jobs = going();
  at("queue").hidden = jobs.length + left().length === 0;
  at("cancel-all").hidden = jobs.length < 2;
  put(at("queue-title"), jobs.length > 1 ? `Queue, ${jobs.length} jobs` : "Queue");
  const focused = document.activeElement;
  for (const [id, row] of rows) if (!jobs.some((job) => job.id === id)) (row.remove(), rows.delete(id));
  jobs.forEach((job, place) => {
    if (!rows.has(job.id)) rows.set(job.id, rowOf(job));
    const row = rows.get(job.id);
    if (at("jobs").children[place] !== row) at("jobs").insertBefore(row, at("jobs").children[place] ?? null);
    fill(row, job);
  });
  if (focused && !focused.isConnected) (at("jobs").querySelector(".icon") ?? at("draw")).focus();
}

/** Show what an earlier start of the server did not finish: it is drawn again only if somebody asks for it. */
function showLeft() {
  const jobs = left();
  const list = at("left").querySelector("ul");
  at("left").hidden = jobs.length === 0;
  at("forget-all").hidden = jobs.length < 2;
  if (list.dataset.ids === jobs.map((job) => job.id).join()) return;
  list.dataset.ids = jobs.map((job) => job.id).join();
  list.replaceChildren(...jobs.map((job) => el("li", { class: "left-job" },
    el("span", { class: "what", dir: "auto" }, job.options.prompt || "(no prompt)"),
    el("button", { onclick: () => again(job) }, "Draw again"),
    el("button", { class: "icon", title: `Forget: ${job.options.prompt}`, onclick: () => cancel(job) }, icon("close")))));
}

function rowOf(job) {
  const prompt = job.options.prompt || "(no prompt)";
  return el("li", {},
    el("button", { class: "row-main", title: "Show it", onclick: () => look({ job: job.id }) },
      el("span", { class: "what", dir: "auto" }, prompt), el("span", { class: "state quiet" })),
    el("button", { class: "icon", title: `Cancel: ${prompt}`, onclick: () => cancel(job) }, icon("close")),
    el("progress", { max: 1, "aria-label": `Progress: ${prompt}` }));
}

function fill(row, job) {
  const bar = row.querySelector("progress");
  const { call, calls, loading } = job.progress;
  row.classList.toggle("now", job.status === "generating");
  if (job.status === "generating" && loading) bar.removeAttribute("value");
  else bar.value = call / Math.max(1, calls);
  const many = job.seeds.length > 1 ? `${plural(job.seeds.length, "picture")} · ` : "";
  put(row.querySelector(".state"), many + stateOf(job));
}

/** Tell of ends: to screen readers always, on the page where something went wrong. Follow what is drawn. */
function tell() {
  for (const job of store.jobs.values()) {
    const before = last.get(job.id);
    last.set(job.id, job.status);
    if (before === undefined || before === job.status) continue;
    if (job.status === "completed") say(`Finished: ${job.options.prompt}`);
    if (job.status === "generating") say(`Drawing: ${job.options.prompt}`);
    if (job.status === "failed") failed(job);
    if (job.status === "cancelled" && job.pictures.length) toast(`Cancelled. ${plural(job.pictures.length, "finished picture")} kept.`);
    follow();
  }
}

/** Say why a job failed, where the stage does not. */
function failed(job) {
  if (store.focus?.job === job.id) say(`Failed: ${job.error.message}`);
  else toast(`Failed: ${job.error.message}`);
}

/** Show what is drawn now instead of a job that ended, unless there are several pictures to look at. */
function follow() {
  const shown = store.jobs.get(store.focus?.job);
  const next = going().find((one) => one.status === "generating");
  if (!shown || !ended(shown) || !next || shown.pictures.length > 1) return;
  setTimeout(() => store.focus?.job === shown.id && look({ job: next.id }), 400);
}
