// The form: says what the bundle can draw, counts tokens, and sends jobs.

import { ask } from "./api.js";
import { at, el, icon, on, put as text, toast } from "./dom.js";
import { NAMES, apply, body, copied, extra, keep, put, recall, restore } from "./fields.js";
import { bundleOf, changed, ended, look, store, watch } from "./store.js";
import { showStart } from "./start.js";
import { chip, found, hint, sentence, suggestions, wordList } from "./words.js";

let offered = ""; // which bundles and samplers the choices were made for
let counting = 0;
export const asked = new Map(); // requests of this tab by the id of their job, to be sent again

export const current = () => bundleOf(at("bundle").value);

/** Begin: put back what was typed, and answer to every change. */
export function startComposer() {
  const lost = recall();
  if (lost) toast(`The start picture “${lost}” was too large for this browser to keep. Open it again.`);
  on("form", "submit", (event) => (event.preventDefault(), draw()));
  on("form", "input", edited);
  on("bundle", "change", () => ((offered = ""), changed(), edited()));
  on("dice", "click", () => lock(randomSeed()));
  on("lock", "click", () => (extra.locked ? unlock() : lock(at("seed").value || shownSeed())));
  on("seed", "input", () => ((extra.locked = at("seed").value !== ""), showLock()));
  on("reset", "click", () => {
    for (const id of ["steps", "guidance", "sampler", "quality"]) put(id, "");
    at("weighting").checked = at("long").checked = false;
    extra.kept = {};
    edited();
  });
  watch(offer);
  showLock();
  edited();
}

/** Send what is typed; the button never waits. */
export async function draw() {
  if (at("more").querySelector(":invalid")) at("more").open = true; // else nobody sees what is wrong
  if (!at("form").reportValidity()) return;
  if ((await send(body())) && matchMedia("(max-width: 800px)").matches) at("stage").scrollIntoView();
}

/** Send a job, and show it unless another of ours is being drawn. */
export async function send(request) {
  text(at("problem"), "");
  at("draw").ariaBusy = "true";
  try {
    const job = await ask("POST", "/api/v1/jobs", request);
    if (!store.jobs.has(job.id)) store.jobs.set(job.id, job);
    asked.set(job.id, { ...request, seed: job.seeds[0] });
    if (!extra.locked) at("seed").value = job.seeds[0];
    const shown = store.jobs.get(store.focus?.job);
    if (!shown || ended(shown)) look({ job: job.id });
    changed();
    keep();
    return job;
  } catch (error) {
    text(at("problem"), error.message);
    return null;
  } finally {
    at("draw").ariaBusy = null;
  }
}

/** Set the form to a picture's options and its model, say what cannot be had, and offer to undo it. */
export function takeOver(options, { edited: fromPicture, bundle_digest: digest, bundle: name } = {}) {
  const before = copied();
  const model = store.bundles.find((one) => one.id === digest) ?? store.bundles.find((one) => one.name === name);
  if (model && model !== current()) put("bundle", model.id);
  apply(options);
  offered = "";
  changed();
  redraw();
  at("prompt").focus();
  const said = ["Settings taken over."];
  if (fromPicture) said.push("The picture that it started from is not in the file.");
  if (name && !model) said.push(`Its model, ${name}, is not here.`);
  toast(said.join(" "), "Undo", () => (restore(before), (offered = ""), changed(), redraw()));
}

/** Start from a picture: a data URL and a name. */
export function startFrom(url, name) {
  extra.start = { url, name, mask: null, strokes: [], strength: null, blend: true, blur: 2 };
  redraw();
}

export function redraw() {
  showLock();
  showStart(current(), edited);
  edited();
}

function edited() {
  at("prompt").style.height = "auto";
  at("prompt").style.height = `${at("prompt").scrollHeight + 2}px`;
  keep();
  showWords();
  showSummary();
  showKept();
  clearTimeout(counting);
  counting = setTimeout(count, 250);
}

function lock(seed) {
  at("seed").value = seed;
  extra.locked = seed !== "";
  showLock();
  keep();
}

function unlock() {
  extra.locked = false;
  showLock();
  keep();
}

/** Return the seed of the picture on the stage; a new one if there is none. */
function shownSeed() {
  return store.known.get(store.shown)?.seed ?? randomSeed();
}

export const randomSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

function showLock() {
  const button = at("lock");
  button.ariaPressed = extra.locked;
  button.title = extra.locked ? "Seed is kept. Click for a new one every time" : "Keep this seed";
  button.replaceChildren(icon(extra.locked ? "lock" : "open"));
  at("seed").classList.toggle("loose", !extra.locked);
}

/** Fill the choices when bundles or samplers become known or change. */
function offer() {
  const bundle = current();
  if (!bundle) return;
  const stamp = JSON.stringify([store.bundles.map((one) => [one.id, one.title]), bundle.id, store.samplers.length]);
  if (stamp === offered) return;
  offered = stamp;
  const names = store.bundles.map((one) => one.name);
  const unique = new Set(names).size === names.length;
  fill("bundle", store.bundles.map((one) => [one.id, unique ? one.name : one.title]), bundle.id);
  const own = store.samplers.find((one) => one.name === bundle.scheduler)?.label ?? bundle.scheduler;
  fill("sampler", [["", `${own} (default)`], ...store.samplers.map((one) => [one.name, one.label])]);
  fill("quality", bundle.qualities.map((name) => [name === "exact" ? "" : name, name === "exact" ? "exact (default)" : name]));
  at("steps").placeholder = bundle.num_inference_steps;
  at("guidance").placeholder = bundle.guidance_scale;
  at("count").max = store.limits.pictures;
  const words = at("words");
  words.hidden = bundle.words === null;
  if (bundle.words) {
    text(words.querySelector("summary"), "All that it can draw");
    words.querySelector("div").replaceChildren(...wordList(bundle.words, chooseWord));
  }
  redraw();
}

function fill(id, choices, value = at(id).value) {
  at(id).replaceChildren(...choices.map(([name, label]) => new Option(label, name)));
  at(id).value = value;
  if (at(id).selectedIndex < 0) at(id).selectedIndex = 0;
}

function chooseWord({ thing, colour }) {
  const words = current().words;
  const now = found(at("prompt").value, words);
  at("prompt").value = sentence(thing ?? now.thing ?? "otter", colour ?? now.colour ?? "teal");
  edited();
}

function showWords() {
  const words = current()?.words;
  const prompt = at("prompt").value;
  const said = words ? hint(prompt, words) : { text: "", warn: false };
  text(at("hint"), said.text);
  at("hint").className = said.warn ? "warn" : "quiet";
  const offers = words ? suggestions(prompt, words) : [];
  const choose = (one) => ((at("prompt").value = one), at("prompt").focus(), edited());
  at("suggestions").replaceChildren(...offers.map((one) => chip(one, words, choose)));
}

function showSummary() {
  const set = ["steps", "guidance", "sampler", "quality"].filter((id) => at(id).value);
  const shown = set.map((id) => (id === "steps" ? `${at(id).value} steps` : id === "guidance" ? `guidance ${at(id).value}` : at(id).selectedOptions[0]?.text));
  text(at("summary"), shown.length ? shown.join(", ") : "steps, sampler, guidance, quality");
}

function showKept() {
  const drop = (name) => (delete extra.kept[name], edited());
  const button = ([name, value]) =>
    el("button", { class: "chip", "aria-label": `Leave out ${NAMES[name]}`, onclick: () => drop(name) }, `${NAMES[name]} ${value}`, icon("close"));
  at("kept").replaceChildren(...Object.entries(extra.kept).map(button));
}

async function count() {
  const bundle = current();
  if (!bundle) return;
  const sent = { prompt: at("prompt").value, bundle: bundle.id, prompt_weighting: at("weighting").checked, long_prompts: at("long").checked };
  try {
    const found = await ask("POST", "/api/v1/tokens", sent);
    if (sent.prompt !== at("prompt").value) return;
    at("tokens").replaceChildren(`${found.count} / ${found.limit}`, el("span", { class: "unseen" }, " tokens"));
    at("tokens").classList.toggle("warn", found.cut !== "");
    at("cut").hidden = found.cut === "";
    at("cut").replaceChildren("Not read: ", el("s", { dir: "auto" }, found.cut));
  } catch {
    at("tokens").replaceChildren();
  }
}
