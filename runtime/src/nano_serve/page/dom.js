// Small helpers for the document: elements, messages, questions.

export const at = (id) => document.getElementById(id);
export const on = (id, event, run) => at(id).addEventListener(event, run);

/** Return a new element: attributes and listeners ("onclick") by name, then children; text stays text. No button submits. */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  if (tag === "button") made.type = "button";
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && (value ?? null) !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter(Boolean));
  return made;
}

/** Return a symbol of index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Return a button with a symbol and a word. */
export const action = (symbol, word, onclick, kind = null) =>
  el("button", { class: kind, onclick }, icon(symbol), word);

/** Set an element's text only where it differs, so that nothing is read out twice. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell a screen reader. */
export function say(text) {
  put(at("said"), text);
}

/** Show a message for some seconds, with an action if there is one. */
export function toast(text, word = null, act = null) {
  if (!act && [...at("toasts").children].some((one) => one.textContent === text)) return;
  const note = el("p", { class: "toast" }, text);
  const shown = setTimeout(() => note.remove(), act ? 15000 : 6000);
  if (act) {
    const run = () => (clearTimeout(shown), note.remove(), act());
    note.append(el("button", { onclick: run }, word));
  }
  at("toasts").append(note);
}

/** Open a dialog; it closes with the value of the button that is pressed, or "" by Esc. */
export function dialog(title, content, buttons) {
  return new Promise((done) => {
    const head = el("h2", { id: "dialog-title" }, title);
    const feet = buttons.map(([value, word, kind]) =>
      el("button", { class: kind, value, onclick: () => box.close(value) }, word));
    const box = el("dialog", { "aria-labelledby": "dialog-title" }, head, ...content, el("p", { class: "buttons" }, ...feet));
    box.addEventListener("close", () => (box.remove(), done(box.returnValue)));
    document.body.append(box);
    box.showModal();
    (feet.find((button) => button.className.includes("first")) ?? feet[0]).focus();
  });
}

export const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
