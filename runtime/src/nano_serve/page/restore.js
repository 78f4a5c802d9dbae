// Takes a picture that is dropped, pasted or opened: its settings, or the picture itself to start from.

import { ask, dataUrl } from "./api.js";
import { current, startFrom, takeOver } from "./composer.js";
import { at, dialog, el, toast } from "./dom.js";
import { differences } from "./fields.js";

const NAMES = {
  prompt: "Prompt", negative_prompt: "Negative prompt", num_inference_steps: "Steps", guidance_scale: "Guidance",
  scheduler: "Sampler", seed: "Seed", quality: "Quality", strength: "Strength", prompt_weighting: "Weights",
  long_prompts: "Long prompts", variation_seed: "Variation seed", variation_strength: "Variation",
  cache_interval: "Cache interval", guidance_interval: "Guidance between", image_guidance_scale: "Picture guidance",
};

export function startRestore() {
  let depth = 0;
  const over = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => over(event) && (depth++, (at("drop").hidden = false)));
  addEventListener("dragleave", (event) => over(event) && --depth <= 0 && (at("drop").hidden = true));
  addEventListener("dragover", (event) => over(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    depth = 0;
    at("drop").hidden = true;
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) (event.preventDefault(), take(file));
  });
  at("open").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", () => {
    if (at("file").files[0]) take(at("file").files[0]);
    at("file").value = "";
  });
}

/** Ask what to do with a picture, and do it. */
async function take(file) {
  if (!file.type.startsWith("image/") || document.querySelector("dialog")) return toast("Drop a PNG, JPEG or WebP picture.");
  const readable = await createImageBitmap(file).then((bitmap) => (bitmap.close(), true), () => false);
  if (!readable) return toast(`${file.name || "That"} is no picture that can be read.`);
  const url = await dataUrl(file).catch((error) => (toast(error.message), null));
  if (url === null) return;
  let found = null;
  let why = "";
  try {
    found = await ask("POST", "/api/v1/parameters", { image: url });
  } catch (error) {
    why = error.message;
  }
  const changes = found ? differences(found.options) : [];
  const choices = [["", "Cancel", "plain"]];
  if (current()?.edits) choices.push(["start", "Start from it", found ? "plain" : "main first"]);
  if (changes.length) choices.push(["settings", "Replace my settings", "main first"]);
  const chosen = await dialog(file.name || "Pasted picture", content(url, found, changes, why), choices);
  if (chosen === "settings") takeOver(found.options, found);
  if (chosen === "start") (startFrom(url, file.name || "pasted"), at("start").querySelector(".paint")?.focus());
}

function content(url, found, changes, why) {
  const image = el("img", { class: "small", src: url, alt: "The picture" });
  if (!found) return [el("div", { class: "found" }, image, el("p", {}, why))];
  const notes = [
    `Drawn by ${found.program}${found.bundle ? ` with ${found.bundle}` : ""}.`,
    changes.length ? "Its settings differ from yours:" : "Its settings are those that you have.",
  ];
  if (found.edited) notes.splice(1, 0, "It was drawn from another picture, which the file does not hold.");
  if (found.left_out.length) notes.splice(1, 0, `Cannot be repeated here: ${found.left_out.join(", ")}.`);
  const rows = changes.map(([name, now, then]) =>
    el("tr", {}, el("th", { scope: "row" }, NAMES[name] ?? name), el("td", { class: "quiet" }, now), el("td", {}, then)));
  const head = el("tr", {}, el("th", { scope: "col" }, "Setting"), el("th", { scope: "col" }, "Yours"), el("th", { scope: "col" }, "The picture's"));
  const table = changes.length ? el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Settings" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))) : null;
  return [el("div", { class: "found" }, image, el("div", {}, ...notes.map((note) => el("p", {}, note)))), table].filter(Boolean);
}
