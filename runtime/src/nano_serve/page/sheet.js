// X/Y sheets: one picture for every pair of values of two settings, as a table.

import { SILENT, ask } from "./api.js";
import { randomSeed } from "./composer.js";
import { action, at, dialog, el, icon, on, say, toast } from "./dom.js";
import { body } from "./fields.js";
import { keepAs, keptAs } from "./memory.js";
import { ended, loadPictures, look, store, watch } from "./store.js";

const KEY = "nano-serve.sheet";
const MOST_CELLS = 64;
const AXES = {
  seed: { name: "Seed", hint: "1, 2, 3", read: whole },
  num_inference_steps: { name: "Steps", hint: "5, 10, 20", read: number },
  guidance_scale: { name: "Guidance", hint: "1, 2, 4", read: number },
  scheduler: { name: "Sampler", hint: "Euler, DPM++ 2M Karras", read: String },
  quality: { name: "Quality", hint: "exact, balanced, fast", read: String },
  prompt: { name: "Prompt", hint: "an otter; an owl", read: String, between: ";" },
  strength: { name: "Strength", hint: "0.4, 0.6, 0.8", read: number },
};

let sheet = null; // {request, across: {option, values}, down, jobs: [id or null], pictures: [id or null]}
let sending = false;

/** Begin: put back the last sheet, and fill its cells as they are drawn. */
export function startSheet() {
  sheet = keptAs(KEY);
  if (!Array.isArray(sheet?.jobs)) sheet = null; // another version kept it
  on("sheet", "click", plan);
  on("last-sheet", "click", () => look({ sheet: true }));
  watch(gather);
}

/** Return what the stage shows of the sheet: a key that changes with it, and a function that makes it. */
export function sheetView() {
  if (!sheet) return null;
  const drawn = sheet.pictures.filter(Boolean).length;
  return { key: `sheet ${sheet.made} ${sending} ${going()} ${sheet.pictures.join()}`, make: () => view(drawn) };
}

/** Ask for the axes, then draw. */
async function plan() {
  const across = axisFields("across", "Across", "seed", false);
  const down = axisFields("down", "Down", "guidance_scale", true);
  const note = el("p", { class: "problem", role: "alert" });
  const text = el("p", { class: "quiet" }, "All else is as in the form. Without a seed axis, all cells have one seed.");
  for (;;) {
    const chosen = await dialog("X/Y sheet", [across.row, down.row, text, note], [["", "Cancel"], ["go", "Draw the sheet", "main first"]]);
    if (chosen !== "go") return;
    try {
      return await begin(across.read(), down.read());
    } catch (error) {
      note.textContent = error.message;
    }
  }
}

function axisFields(id, word, option, optional) {
  const select = el("select", { id }, ...(optional ? [new Option("nothing", "")] : []),
    ...Object.entries(AXES).map(([name, axis]) => new Option(axis.name, name)));
  select.value = option;
  const values = el("input", { id: `${id}-values`, "aria-label": `Values ${word.toLowerCase()}`, placeholder: AXES[option].hint });
  select.addEventListener("change", () => {
    values.placeholder = AXES[select.value]?.hint ?? "";
    values.value = "";
    values.disabled = select.value === "";
  });
  const read = () => {
    if (!select.value) return { option: "", values: [null] };
    const axis = AXES[select.value];
    const typed = (values.value || axis.hint).split(axis.between ?? ",").map((one) => one.trim()).filter(Boolean);
    return { option: select.value, values: typed.map(axis.read) };
  };
  return { row: el("div", { class: "axis" }, el("label", { for: id }, word), select, values), read };
}

async function begin(across, down) {
  const count = across.values.length * down.values.length;
  if (across.option === down.option) throw new Error("Choose two different settings.");
  if (count > MOST_CELLS) throw new Error(`These are ${count} pictures. A sheet holds ${MOST_CELLS}.`);
  const request = { ...body(), num_images_per_prompt: 1 };
  request.seed ??= randomSeed();
  sheet = { made: Date.now(), request, across, down, jobs: Array(count).fill(null), pictures: Array(count).fill(null) };
  await sendCell(0); // what the server refuses is said in the dialog
  look({ sheet: true });
  sendRest();
}

async function sendCell(place) {
  const [x, y] = [place % sheet.across.values.length, Math.floor(place / sheet.across.values.length)];
  const asked = { ...sheet.request, [sheet.across.option]: sheet.across.values[x] };
  if (sheet.down.option) asked[sheet.down.option] = sheet.down.values[y];
  const job = await ask("POST", "/api/v1/jobs", asked);
  if (!store.jobs.has(job.id)) store.jobs.set(job.id, job);
  sheet.jobs[place] = job.id;
  keep();
}

/** Send the cells that are not sent; half of the queue stays free for other jobs. */
async function sendRest() {
  if (sending) return;
  sending = true;
  const mine = sheet;
  const rest = openCells();
  while (rest.length && mine === sheet && sending) {
    if (going() < Math.max(1, store.limits.queue / 2)) {
      try {
        await sendCell(rest[0]);
        rest.shift();
        continue;
      } catch (error) {
        if (error.status !== 429) {
          toast(error.message);
          break;
        }
      }
    }
    await new Promise((done) => setTimeout(done, 300));
  }
  sending = false;
  look(store.focus);
}

const isGoing = (id) => store.jobs.has(id) && !ended(store.jobs.get(id));

/** Return how many cells wait or are drawn. */
const going = () => sheet.jobs.filter(isGoing).length;

/** Return the cells that have no picture and get none: never sent, failed, cancelled, or lost with the server. */
const openCells = () => sheet.pictures.flatMap((picture, place) => (picture || isGoing(sheet.jobs[place]) ? [] : [place]));

/** Return whether cells are yet to be sent. */
export const isSending = () => sending;

/** Stop a sheet: what waits is cancelled, what is drawn stays. */
function stop() {
  sending = false;
  for (const id of sheet.jobs) if (isGoing(id)) ask("DELETE", `/api/v1/jobs/${id}`).catch(() => {});
  say("The sheet is stopped.");
}

function gather() {
  at("last-sheet").hidden = sheet === null;
  if (!sheet) return;
  let news = false;
  sheet.jobs.forEach((id, place) => {
    const before = sheet.pictures[place];
    const picture = store.jobs.get(id)?.pictures[0]?.id ?? (store.gone.has(before) ? null : before);
    if (before !== picture) (sheet.pictures[place] = picture), (news = true);
  });
  if (news) keep();
}

function keep() {
  const lost = sheet.lost || Boolean(sheet.request.image); // the rest cannot be drawn after a reload
  keepAs(KEY, { ...sheet, lost, request: { ...sheet.request, image: undefined, mask_image: undefined } });
}

function view(drawn) {
  const { across, down } = sheet;
  const wide = across.values.length;
  const cell = (x, y) => {
    const id = sheet.pictures[y * wide + x];
    const what = [label(across, x), label(down, y)].filter(Boolean).join(", ");
    if (!id) return el("td", {}, el("span", { class: "tile" }));
    return el("td", {}, el("button", { class: "tile", title: what, onclick: () => show(id) }, el("img", { src: `/api/v1/pictures/${id}`, alt: what })));
  };
  const head = el("tr", {}, el("td", {}), ...across.values.map((_, x) => el("th", { scope: "col" }, label(across, x))));
  const rows = down.values.map((_, y) => el("tr", {}, el("th", { scope: "row" }, label(down, y)), ...across.values.map((__, x) => cell(x, y))));
  const table = el("table", { class: "sheet" }, el("thead", {}, head), el("tbody", {}, ...rows));
  table.style.setProperty("--wide", wide);
  const missing = openCells().length > 0 && !sheet.lost && !sending;
  return [
    el("div", { class: "scroll alone", tabindex: "0", role: "group", "aria-label": "X/Y sheet" }, table),
    el("div", { class: "actions alone" },
      el("span", { class: "quiet" }, `${drawn} of ${sheet.pictures.length} drawn`),
      (sending || going() > 0) && action("close", "Stop", stop),
      missing && action("again", "Draw the rest", sendRest),
      drawn > 0 && el("button", { onclick: download }, icon("save"), "Download the sheet")),
  ];
}

/** Show a picture of the sheet, which may be older than those that are known. */
async function show(id) {
  try {
    while (!store.known.has(id) && store.older) await loadPictures(true);
  } catch (error) {
    return toast(error.message);
  }
  if (store.known.has(id)) look({ picture: id });
  else toast("The picture is no longer there.");
}

function label({ option, values }, place) {
  if (!option) return "";
  return option === "prompt" || option === "scheduler" ? String(values[place]) : `${AXES[option].name} ${values[place]}`;
}

/** Save the table as one picture. */
async function download() {
  const { across, down } = sheet;
  const wide = across.values.length;
  const images = await Promise.all(sheet.pictures.map(load));
  const some = images.find(Boolean);
  if (!some) return toast(SILENT);
  const [w, h] = [some.naturalWidth, some.naturalHeight];
  const [left, top] = [down.option ? 130 : 0, 28];
  const canvas = el("canvas", { width: left + wide * (w + 4), height: top + down.values.length * (h + 4) });
  const ink = canvas.getContext("2d");
  ink.fillStyle = "#fff";
  ink.fillRect(0, 0, canvas.width, canvas.height);
  ink.fillStyle = "#111";
  ink.font = "13px sans-serif";
  ink.textBaseline = "middle";
  across.values.forEach((_, x) => ink.fillText(label(across, x), left + x * (w + 4) + 4, top / 2, w - 8));
  down.values.forEach((_, y) => ink.fillText(label(down, y), 4, top + y * (h + 4) + h / 2, left - 8));
  images.forEach((image, place) => image && ink.drawImage(image, left + (place % wide) * (w + 4), top + Math.floor(place / wide) * (h + 4)));
  el("a", { href: canvas.toDataURL("image/png"), download: "sheet.png" }).click();
}

function load(id) {
  return new Promise((done) => {
    if (!id) return done(null);
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => done(null);
    image.src = `/api/v1/pictures/${id}`;
  });
}

function number(typed) {
  if (!Number.isFinite(Number(typed))) throw new Error(`“${typed}” is not a number.`);
  return Number(typed);
}

function whole(typed) {
  if (!/^[0-9]{1,20}$/.test(typed)) throw new Error(`“${typed}” is not a whole number.`);
  return typed;
}
