// The start picture of a job, its mask, and how far to go from it.

import { action, at, el, icon } from "./dom.js";
import { extra } from "./fields.js";
import { paintMask } from "./mask.js";

/** Show the start picture, if there is one. `edited` is called when something about it changes. */
export function showStart(bundle, edited) {
  const place = at("start");
  const start = extra.start;
  place.hidden = start === null;
  if (start === null) return place.replaceChildren();
  const again = () => (showStart(bundle, edited), edited());
  const remove = () => ((extra.start = null), again(), at("prompt").focus());
  const paint = async () => {
    const made = await paintMask(start, bundle.width, bundle.height);
    if (made) Object.assign(start, made);
    again();
    place.querySelector(".paint")?.focus();
  };
  const strength = el("input", {
    id: "strength", type: "number", min: "0.01", max: "1", step: "any", inputmode: "decimal",
    placeholder: start.mask ? "1" : "0.8",
    oninput: (event) => (start.strength = event.target.value === "" ? null : Number(event.target.value)),
  });
  strength.value = start.strength ?? "";
  const blend = el("input", { id: "blend", type: "checkbox", onchange: (event) => (start.blend = event.target.checked) });
  blend.checked = start.blend;
  const picture = el("span", { class: "thumb" }, el("img", { src: start.url, alt: `Start picture: ${start.name}` }),
    start.mask && el("img", { class: "mask", src: start.mask, alt: "Painted mask" }));
  const gone = el("button", { class: "icon", title: "Remove the start picture", onclick: remove }, icon("close"));
  const body = bundle?.edits === false
    ? [el("p", { class: "warn" }, "This model cannot start from a picture; it is left out.")]
    : [
        action("brush", start.mask ? "Change the mask" : "Paint a mask", paint, "paint"),
        el("div", { class: "field" }, el("label", { for: "strength" }, "Strength"), strength),
        start.mask && el("label", { class: "tick" }, blend, "Leave the rest untouched"),
      ];
  return place.replaceChildren(picture, el("div", { class: "about" }, el("div", { class: "head" }, el("span", {}, "Start picture"), gone), ...body.filter(Boolean)));
}
