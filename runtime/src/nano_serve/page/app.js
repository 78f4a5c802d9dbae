// Starts the page: parts, keys, and the link to the server.

import { SILENT } from "./api.js";
import { draw, startComposer } from "./composer.js";
import { at, put } from "./dom.js";
import { startHistory } from "./history.js";
import { startQueue } from "./queue.js";
import { startRestore } from "./restore.js";
import { isSending, startSheet } from "./sheet.js";
import { cancel, startStage } from "./stage.js";
import { begin, going, store, watch } from "./store.js";

let away = false;

watch(() => {
  if (away && store.online && at("problem").textContent === SILENT) put(at("problem"), "");
  away = !store.online;
  const loaded = store.bundles.find((one) => one.state !== "idle");
  put(at("link"), store.online ? (loaded?.state === "loading" ? "Loading the model…" : "Ready") : store.refused ? "The server wants a token." : "The server does not answer. Trying again…");
  at("enter").hidden = store.online || !store.refused;
  at("link").className = `link ${store.online ? "on" : "off"} ${loaded?.state === "loading" ? "busy" : ""}`;
});

addEventListener("keydown", (event) => {
  const enter = event.key === "Enter" && (event.ctrlKey || event.metaKey || event.target.tagName !== "TEXTAREA");
  if (enter && event.repeat) return event.preventDefault(); // held down, it would fill the queue
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    draw();
  } else if (event.key === "Escape" && !event.defaultPrevented && !event.isComposing) {
    const now = going()[0];
    if (now) cancel(now);
  }
});

startComposer();
startSheet(); // before the stage, which shows what it gathers
startStage();
startQueue();
startHistory();
startRestore();
begin(isSending);
