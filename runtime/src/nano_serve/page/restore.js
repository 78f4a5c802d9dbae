// Takes a picture that is dropped, pasted or opened: its settings, or the picture itself to start from.

import { ask, dataUrl } from "./api.js";
import { current, startFrom, takeOver } from "./composer.js";
import { at, dialog, el, on, toast } from "./dom.js";
import { NAMES, differences } from "./fields.js";

const MOST_SENT = 20e6; // bytes of a file that the server looks into
const MOST_KEPT = 1e6; // of one to start from; of a larger one, pixels that are not drawn from are left out
const MOST_PIXELS = 1.2e6; // more than is drawn

export function startRestore() {
  let depth = 0;
  const over = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => over(event) && (depth++, (at("drop").hidden = isAsking())));
  addEventListener("dragleave", (event) => over(event) && --depth <= 0 && (at("drop").hidden = true));
  addEventListener("dragover", (event) => over(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    depth = 0;
    at("drop").hidden = true;
    const [first, second] = event.dataTransfer.files;
    if (second) toast("One picture at a time: only the first is opened.");
    if (first) take(first);
  });
  addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) (event.preventDefault(), take(file));
  });
  on("open", "click", () => at("file").click());
  on("file", "change", () => {
    if (at("file").files[0]) take(at("file").files[0]);
    at("file").value = "";
  });
}

/** Return whether a dialog is open: one question at a time. */
const isAsking = () => document.querySelector("dialog") !== null;

/** Ask what to do with a picture, and do it. */
async function take(file) {
  if (isAsking()) return;
  if (!/png|jpeg|webp/.test(file.type)) return toast("Only PNG, JPEG and WebP pictures are read.");
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return toast(`${file.name || "That"} is no picture that can be read.`);
  let [found, url, why] = [null, null, "It is too large to look for its settings."];
  try {
    url = file.size > MOST_SENT ? null : await dataUrl(file);
    found = url && (await ask("POST", "/api/v1/parameters", { image: url }));
  } catch (error) {
    why = error.message;
  }
  if (!url || (file.size > MOST_KEPT && bitmap.width * bitmap.height > MOST_PIXELS)) url = smaller(bitmap);
  bitmap.close();
  if (isAsking()) return;
  const changes = found ? differences(found.options) : [];
  const choices = [["", "Cancel"]];
  if (current()?.edits) choices.push(["start", "Start from it", found ? "" : "main first"]);
  if (changes.length) choices.push(["settings", "Replace my settings", "main first"]);
  const chosen = await dialog(file.name || "Pasted picture", content(url, found, changes, why), choices);
  if (chosen === "settings") takeOver(found.options, found);
  if (chosen === "start") (startFrom(url, file.name || "pasted"), at("start").querySelector(".paint")?.focus());
}

/** Return a picture as a data URL of fewer pixels. */
function smaller(bitmap) {
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const canvas = el("canvas", { width: Math.ceil(bitmap.width * scale), height: Math.ceil(bitmap.height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/webp", 0.92);
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
    el("tr", {}, el("th", { scope: "row" }, NAMES[name] ?? name), el("td", { class: "quiet", dir: "auto" }, now), el("td", { dir: "auto" }, then)));
  const head = el("tr", {}, el("th", { scope: "col" }, "Setting"), el("th", { scope: "col" }, "Yours"), el("th", { scope: "col" }, "The picture's"));
  const table = changes.length ? el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Settings" }, el("table", { class: "compared" }, el("thead", {}, head), el("tbody", {}, ...rows))) : null;
  return [el("div", { class: "found" }, image, el("div", {}, ...notes.map((note) => el("p", {}, note)))), table].filter(Boolean);
}
