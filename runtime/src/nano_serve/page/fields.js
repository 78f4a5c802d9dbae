// The form's values: kept in this browser, read for a request, and set from a picture's options.

import { at } from "./dom.js";
import { keepAs, keptAs } from "./memory.js";
import { bundleOf } from "./store.js";

const KEY = "nano-serve.fields";
const MOST_KEPT = 1500000; // characters of a start picture that this browser is asked to keep
const TEXTS = { prompt: "prompt", negative: "negative_prompt" };
const NUMBERS = { count: "num_images_per_prompt", steps: "num_inference_steps", guidance: "guidance_scale" };
const CHOICES = { sampler: "scheduler", quality: "quality" };
const TICKS = { weighting: "prompt_weighting", long: "long_prompts" };
const NAMED = { ...TEXTS, ...NUMBERS, ...CHOICES };
const KEPT = ["cache_interval", "guidance_interval", "variation_seed", "variation_strength", "image_guidance_scale"];

export const NAMES = {
  prompt: "Prompt", negative_prompt: "Negative prompt", num_inference_steps: "Steps", guidance_scale: "Guidance",
  scheduler: "Sampler", seed: "Seed", quality: "Quality", strength: "Strength", prompt_weighting: "Weights",
  long_prompts: "Long prompts", variation_seed: "Variation seed", variation_strength: "Variation",
  cache_interval: "Cache interval", guidance_interval: "Guidance between", image_guidance_scale: "Picture guidance",
};

const PLAIN = { seed: "random", negative_prompt: "none", prompt_weighting: false, long_prompts: false, quality: "exact", cache_interval: 1, guidance_interval: "0,1" };

const defaultsOf = ({ num_inference_steps, guidance_scale, scheduler }) => ({ num_inference_steps, guidance_scale, scheduler });

export const extra = {
  locked: false,
  kept: {}, // options of a picture that have no field
  start: null, // {url, name, mask, strokes, strength, blend, blur}
};

/** Return everything that is typed, to be kept. */
function typed() {
  const found = { bundle: at("bundle").value, seed: at("seed").value, ...extra };
  for (const id of Object.keys(NAMED)) found[id] = at(id).value;
  for (const id of Object.keys(TICKS)) found[id] = at(id).checked;
  return found;
}

/** Keep what is typed. A start picture that is too large for that is left out. */
export function keep() {
  const found = typed();
  const without = { ...found, start: null, left: found.start?.name };
  if ((found.start?.url.length ?? 0) > MOST_KEPT || !keepAs(KEY, found)) keepAs(KEY, without);
}

/** Put back what was typed when the page was last open; return the name of a start picture that was not kept. */
export function recall() {
  const found = keptAs(KEY) ?? {};
  for (const id of [...Object.keys(NAMED), "seed", "bundle"]) if (typeof found[id] === "string") put(id, found[id]);
  for (const id of Object.keys(TICKS)) at(id).checked = found[id] === true;
  if (found.locked === true) extra.locked = true;
  if (found.kept && typeof found.kept === "object") extra.kept = found.kept;
  if (typeof found.start?.url === "string") extra.start = found.start;
  return found.left ?? null;
}

/** Return the body of a request: only what is set. */
export function body() {
  const sent = { prompt: at("prompt").value, bundle: at("bundle").value || null, ...extra.kept };
  if (at("negative").value.trim()) sent.negative_prompt = at("negative").value;
  for (const [id, name] of Object.entries(NUMBERS)) if (at(id).value !== "") sent[name] = Number(at(id).value);
  for (const [id, name] of Object.entries(CHOICES)) if (at(id).value) sent[name] = at(id).value;
  for (const [id, name] of Object.entries(TICKS)) if (at(id).checked) sent[name] = true;
  if (extra.locked && at("seed").value) sent.seed = at("seed").value;
  const start = extra.start;
  if (start && bundleOf(sent.bundle)?.edits) {
    sent.image = start.url;
    if (start.mask) sent.mask_image = start.mask;
    if (start.strength !== null) sent.strength = start.strength;
    if (start.mask && start.blend) Object.assign(sent, { keep_unmasked: true, mask_blur: start.blur ?? 0 });
  }
  return sent;
}

/** Return the options that a picture would change, as [name, now, then]. */
export function differences(options) {
  const now = body();
  const names = new Set([...Object.keys(options), ...Object.keys(now)]);
  for (const name of ["bundle", "image", "mask_image", "num_images_per_prompt", "keep_unmasked", "mask_blur"]) names.delete(name);
  const own = { ...PLAIN, ...defaultsOf(bundleOf(now.bundle)) };
  const shown = (value, name) => String((value ?? "") === "" ? own[name] ?? "default" : value);
  return [...names].map((name) => [name, shown(now[name], name), shown(options[name], name)]).filter(([, a, b]) => a !== b);
}

/** Set the form to a picture's options; what it leaves out takes the default. */
export function apply(options) {
  for (const [id, name] of Object.entries(NAMED)) if (id !== "count") put(id, options[name] ?? "");
  for (const [id, name] of Object.entries(TICKS)) at(id).checked = options[name] === true;
  if (options.seed !== undefined) {
    put("seed", String(options.seed));
    extra.locked = true;
  }
  extra.kept = Object.fromEntries(KEPT.filter((name) => isSet(options, name)).map((name) => [name, options[name]]));
  if (extra.start && options.strength !== undefined) extra.start.strength = options.strength;
}

/** Set one field; a choice that is not offered yet is added, so that nothing is lost before the server answers. */
export function put(id, value) {
  const field = at(id);
  if (field.tagName === "SELECT" && ![...field.options].some((one) => one.value === String(value)))
    field.add(new Option(String(value), String(value)));
  field.value = String(value);
}

/** Return a copy of the form, for undoing. */
export const copied = () => structuredClone(typed());

/** Put a copy back. */
export function restore(copy) {
  for (const id of [...Object.keys(NAMED), "seed", "bundle"]) put(id, copy[id]);
  for (const id of Object.keys(TICKS)) at(id).checked = copy[id];
  Object.assign(extra, { locked: copy.locked, kept: copy.kept, start: copy.start });
}

function isSet(options, name) {
  const value = options[name];
  if (value === undefined || value === null) return false;
  if (name === "cache_interval") return value !== 1;
  if (name === "guidance_interval") return value[0] > 0 || value[1] < 1;
  return true;
}
