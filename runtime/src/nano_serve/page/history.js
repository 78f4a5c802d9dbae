// All finished pictures, the newest first.

import { at, el, on, plural, put, toast } from "./dom.js";
import { remove } from "./stage.js";
import { loadPictures, look, store, watch } from "./store.js";

const items = new Map();

export function startHistory() {
  on("older", "click", () => loadPictures(true).catch((error) => toast(error.message)));
  on("history", "keydown", moved);
  watch(show);
}

function show() {
  const pictures = store.pictures;
  at("empty").hidden = pictures.length > 0;
  at("older").hidden = store.older === null;
  put(at("total"), pictures.length ? `${plural(pictures.length, "picture")}${store.older ? ", and older ones" : ""}` : "");
  const there = new Set(pictures.map((one) => one.id));
  for (const [id, item] of items) {
    if (there.has(id)) continue;
    if (item.contains(document.activeElement)) (item.nextSibling ?? item.previousSibling)?.firstChild.focus(); // keys go on
    item.remove();
    items.delete(id);
  }
  pictures.forEach((picture, place) => {
    if (!items.has(picture.id)) items.set(picture.id, itemOf(picture));
    const item = items.get(picture.id);
    if (at("history").children[place] !== item) at("history").insertBefore(item, at("history").children[place] ?? null);
    item.firstChild.ariaCurrent = store.shown === picture.id;
  });
}

function itemOf(picture) {
  const image = el("img", { src: picture.url, alt: picture.options.prompt || "Picture", width: picture.width, height: picture.height, loading: "lazy", decoding: "async" });
  const open = () => (look({ picture: picture.id }), at("stage").scrollIntoView({ block: "nearest" }));
  return el("li", {}, el("button", { title: `${picture.options.prompt}, seed ${picture.seed}`, "data-id": picture.id, onclick: open }, image));
}

/** Arrow keys go from picture to picture; Delete asks. */
function moved(event) {
  const buttons = [...at("history").querySelectorAll("button")];
  const place = buttons.indexOf(document.activeElement);
  if (place < 0) return;
  const columns = getComputedStyle(at("history")).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  if (event.key in steps) {
    event.preventDefault();
    buttons[Math.max(0, Math.min(buttons.length - 1, place + steps[event.key]))].focus();
  } else if (event.key === "Delete") {
    remove(store.known.get(buttons[place].dataset.id));
  }
}
