// The large view: a job while it is drawn, or one picture with what can be done with it.

import { ask, fetched, asSentence } from "./api.js";
import { action, at, dialog, el, icon, plural, put, say, toast } from "./dom.js";
import { asked, current, randomSeed, send, startFrom, takeOver } from "./composer.js";
import { sheetView } from "./sheet.js";
import { bundleOf, changed, ended, look, store, watch } from "./store.js";

const SIBLINGS = { count: 4, strength: 0.2 };
let shown = "";

export function startStage() {
  watch(show);
}

/** Cancel a job; what is done stays. */
export async function cancel(job) {
  try {
    await ask("DELETE", `/api/v1/jobs/${job.id}`);
    const kept = store.jobs.get(job.id)?.pictures.length ?? 0;
    say(kept ? `Cancelled. ${plural(kept, "finished picture")} kept.` : "Cancelled.");
  } catch (error) {
    toast(error.message);
  }
}

/** Draw a job that an earlier start of the server did not finish. */
export async function again(job) {
  try {
    const made = await ask("POST", `/api/v1/jobs/${job.id}/retry`);
    store.jobs.delete(job.id);
    if (!store.jobs.has(made.id)) store.jobs.set(made.id, made);
    look({ job: made.id });
  } catch (error) {
    toast(error.message);
  }
  changed();
}

/** Ask, then delete a picture. */
export async function remove(picture) {
  const content = [el("img", { class: "small", src: picture.url, alt: "" }), el("p", {}, "Its file is deleted from the disk.")];
  if ((await dialog("Delete this picture?", content, [["", "Keep it", "first"], ["yes", "Delete", "danger"]])) !== "yes") return;
  try {
    await ask("DELETE", `/api/v1/pictures/${picture.id}`);
    say("Deleted.");
  } catch (error) {
    toast(error.message);
  }
}

function show() {
  store.shown = null;
  const sheet = store.focus?.sheet && sheetView();
  if (sheet) return build(sheet.key, sheet.make);
  const job = store.jobs.get(store.focus?.job);
  const picture = store.known.get(store.focus?.picture) ?? onlyPicture(job);
  if (picture) return showPicture(picture);
  if (job) return showJob(job);
  const newest = store.pictures[0];
  return newest ? showPicture(newest) : showNothing();
}

/** Return the picture of a job that has ended with one. */
function onlyPicture(job) {
  return job && ended(job) && job.pictures.length === 1 && job.seeds.length === 1 ? job.pictures[0] : null;
}

function build(key, make) {
  if (shown === key) return;
  const inside = at("stage").contains(document.activeElement);
  shown = key;
  at("stage").replaceChildren(...make());
  if (inside) at("stage").focus({ preventScroll: true });
}

function showNothing() {
  const example = bundleOf(null)?.words?.examples[3]; // it looks best
  build(`nothing ${example}`, () => [el("div", { class: "canvas nothing alone" }, el("img", { src: "/page/icon.svg", alt: "", width: 88 }), el("p", {}, "Your first picture appears here.", el("br"), el("span", { class: "quiet" }, "Everything is drawn on this machine.")),
    example && el("button", { class: "main", onclick: () => send({ prompt: example, seed: "7" }) }, `Draw ${example}`))]);
}

function showJob(job) {
  const over = ended(job);
  const count = over ? job.pictures.length : job.seeds.length;
  build(`job ${job.id} ${over} ${count}`, () => jobView(job, over, count));
  for (const tile of at("stage").querySelectorAll(".tile")) fillTile(tile, job, over);
  const bar = at("stage").querySelector("progress");
  if (!bar) return;
  const { call, calls, loading } = job.progress;
  if (job.status === "queued" || loading) bar.removeAttribute("value");
  else bar.value = call / Math.max(1, calls);
  put(at("stage").querySelector(".state"), stateOf(job));
}

/** Return in words how far a job is. */
export function stateOf(job) {
  const { call, calls, loading, eta_seconds: eta } = job.progress;
  if (job.status === "queued") return job.queue_position ? `Waiting, number ${job.queue_position}` : "Waiting";
  if (loading) return "Loading the model…";
  const left = eta === null ? "" : `, ${eta < 1 ? "under 1 s" : `${Math.ceil(eta)} s`} left`;
  return `Step ${call} of ${calls}${left}`;
}

function jobView(job, over, count) {
  const tiles = Array.from({ length: count }, (_, place) => el("button", { class: "tile", "data-place": place, "aria-label": `Picture ${place + 1}`, disabled: true }));
  const grid = el("div", { class: "canvas tiles" }, ...tiles);
  grid.style.setProperty("--side", Math.ceil(Math.sqrt(count)));
  const prompt = el("div", {}, promptOf(job), ...notesOf(job));
  if (!over) return [grid, details(prompt, el("div", { class: "during" }, el("progress", { max: 1, "aria-label": "Progress" }), el("span", { class: "state" }), action("close", "Cancel", () => cancel(store.jobs.get(job.id)))))];
  if (job.error) return [el("div", { class: "canvas nothing" }, el("p", { class: "problem" }, asSentence(job.error.message))), details(prompt, el("div", { class: "actions" }, asked.has(job.id) && el("button", { class: "main", onclick: () => send(asked.get(job.id)) }, "Try again"), action("again", "Use settings", () => takeOver(job.options))))];
  if (job.status === "interrupted") return [el("div", { class: "canvas nothing" }, el("p", { class: "quiet" }, "Not finished when the server ended."), action("again", "Draw it again", () => again(job))), details(prompt)];
  if (count === 0) return [el("div", { class: "canvas nothing" }, el("p", { class: "quiet" }, job.status === "cancelled" ? "Cancelled before its first picture." : "Its pictures were deleted.")), details(prompt)];
  return [grid, details(prompt, el("p", { class: "quiet" }, "Choose a picture for what can be done with it."))];
}

function fillTile(tile, job, over) {
  const place = Number(tile.dataset.place);
  const picture = over ? job.pictures[place] : job.pictures.find((one) => one.index === place);
  const preview = job.previews.find((one) => one.picture === place);
  const source = picture?.url ?? preview?.image ?? null;
  let image = tile.querySelector("img");
  if (source === null) return image?.remove();
  if (!image) tile.append((image = el("img", { draggable: "false" })));
  if (image.getAttribute("src") !== source) image.src = source;
  image.className = picture ? "" : "soft";
  image.alt = picture ? `Picture ${place + 1}, seed ${picture.seed}` : `Preview of picture ${place + 1}`;
  tile.disabled = !picture;
  tile.onclick = picture ? () => (store.known.set(picture.id, picture), look({ picture: picture.id })) : null;
}

function showPicture(picture) {
  store.shown = picture.id;
  build(`picture ${picture.id} ${siblingsOf(picture).length} ${current()?.edits}`, () => pictureView(picture));
}

const siblingsOf = (picture) => store.jobs.get(picture.job)?.pictures ?? [];

function pictureView(picture) {
  const { options, drawn_by: by } = picture;
  const image = el("img", { src: picture.url, alt: options.prompt || "Picture", width: picture.width, height: picture.height });
  const sampler = store.samplers.find((one) => one.name === options.scheduler)?.label ?? options.scheduler;
  const facts = [
    ["Seed", picture.seed], ["Steps", options.num_inference_steps], ["Sampler", sampler], ["Guidance", options.guidance_scale],
    ["Negative", options.negative_prompt], ["Strength", options.strength], ["Variation", options.variation_strength],
    ["Size", `${picture.width} × ${picture.height}`], ["Model", by.bundle],
  ].filter(([, value]) => value !== undefined && value !== null && value !== "");
  const all = siblingsOf(picture);
  const back = all.length > 1 && action("kin", `All ${all.length} of this job`, () => look({ job: picture.job }));
  return [
    el("div", { class: "canvas" }, image),
    details(promptOf(picture),
    ...notesOf(store.jobs.get(picture.job)),
    el("dl", { class: "facts" }, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value))))),
    el("div", { class: "actions" },
      el("a", { class: "button", href: picture.url, download: fileName(picture) }, icon("save"), "Download"),
      action("again", "Use settings", () => takeOver(options, by)),
      canVary(picture) && action("kin", "Siblings", () => vary(picture)),
      current()?.edits && action("brush", "Start from it", () => edit(picture)),
      back,
      action("bin", "Delete", () => remove(picture), "danger-text")),
    drawnFrom(by)),
  ];
}

/** Return what of a prompt is not drawn as it was written; what the demo was not taught stands below the prompt. */
const notesOf = (job) => (job?.notes ?? []).filter((one) => !one.startsWith("the demo was ")).map((one) => el("p", { class: "note warn", dir: "auto" }, asSentence(one) + (one.endsWith("…") ? "" : ".")));

/** Return the prompt of a job or picture; a long one scrolls. */
const promptOf = ({ options }) => el("p", { class: "prompt", dir: "auto", ...(options.prompt?.length > 150 && { tabindex: "0", role: "group", "aria-label": "Prompt" }) }, options.prompt || "(no prompt)");

const details = (...parts) => el("div", { class: "details" }, ...parts);

function drawnFrom(by) {
  const said = [by.edited && `Drawn from another picture${by.masked ? ", with a mask" : ""}.`, by.interrupted_after && `Stopped after ${plural(by.interrupted_after, "step")}.`];
  return said.some(Boolean) && el("p", { class: "quiet" }, said.filter(Boolean).join(" "));
}

const canVary = (picture) => !picture.drawn_by.edited && store.bundles.some((one) => one.id === picture.drawn_by.bundle_digest);

/** Draw pictures that are close to one. */
async function vary(picture) {
  const request = { ...picture.options, num_images_per_prompt: SIBLINGS.count, variation_seed: randomSeed(), variation_strength: SIBLINGS.strength, bundle: picture.drawn_by.bundle_digest };
  const job = await send(request);
  if (job) look({ job: job.id });
}

async function edit(picture) {
  try {
    startFrom(await fetched(picture.url), picture.options.prompt ?? "a picture");
    if (!at("prompt").value) at("prompt").value = picture.options.prompt ?? "";
    at("start").querySelector(".paint")?.focus();
    changed();
  } catch (error) {
    toast(error.message);
  }
}

function fileName(picture) {
  const words = (picture.options.prompt ?? "").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  return `${words.join("-").slice(0, 40)}-${picture.seed}.png`;
}
