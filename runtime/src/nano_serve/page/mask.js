// Paints a mask over a picture with mouse, pen, finger or keys. White is drawn anew.

import { el, put, say } from "./dom.js";

const KEY_STEP = 2; // pixels of the picture that an arrow key moves the brush

/** Let somebody paint; return {mask, strokes}, or null if nothing is to change. An empty mask is null. */
export function paintMask(start, width, height) {
  return new Promise((done) => {
    const painter = new Painter(start, width, height);
    const box = el("dialog", { class: "painter", "aria-labelledby": "painter-title" }, ...painter.content((value) => box.close(value)));
    box.addEventListener("close", () => {
      box.remove();
      done(box.returnValue === "take" ? painter.result() : null);
    });
    box.addEventListener("keydown", (event) => painter.key(event));
    const before = painter.strokes.length;
    box.addEventListener("cancel", (event) => painter.strokes.length !== before && event.preventDefault()); // Esc loses nothing
    document.body.append(box);
    box.showModal();
    painter.canvas.focus();
  });
}

class Painter {
  constructor(start, width, height) {
    this.strokes = structuredClone(start.strokes ?? []);
    this.undone = [];
    this.erasing = false;
    this.size = Math.max(4, Math.round(width / 8));
    this.spot = { x: width / 2, y: height / 2 };
    this.drawing = null; // pointer that paints
    this.zoom = Math.max(1, Math.round(768 / width)); // pixels of the canvas to one of the picture: a crisp brush
    this.canvas = el("canvas", { width: width * this.zoom, height: height * this.zoom, tabindex: "0", role: "application", "aria-label": "Mask. Arrow keys move the brush, Space paints, E erases, brackets change its size." });
    this.mask = el("canvas", { width, height });
    this.picture = new Image();
    this.picture.onload = () => this.paint();
    this.picture.src = start.url;
    for (const [name, run] of Object.entries({ pointerdown: this.down, pointermove: this.move, pointerup: this.up, pointercancel: this.up, pointerleave: this.leave }))
      this.canvas.addEventListener(name, run.bind(this));
  }

  content(close) {
    const tool = (word, run, given = {}) => el("button", { onclick: run, ...given }, word);
    this.brush = tool("Brush", () => this.choose(false), { "aria-pressed": "true" });
    this.eraser = tool("Eraser", () => this.choose(true), { "aria-pressed": "false" });
    this.undo = tool("Undo", () => this.back());
    this.redo = tool("Redo", () => this.forth());
    this.number = el("input", { id: "brush-size", type: "number", min: "1", max: String(this.mask.width), inputmode: "numeric", oninput: (event) => this.resize(Number(event.target.value)) });
    this.note = el("p", { class: "quiet", role: "status" });
    this.number.value = this.size;
    return [
      el("h2", { id: "painter-title" }, "Paint what is to be drawn anew"),
      el("div", { class: "tools", role: "toolbar", "aria-label": "Tools" }, this.brush, this.eraser,
        el("span", { class: "size" }, el("label", { for: "brush-size" }, "Size"), this.number), this.undo, this.redo, tool("Clear", () => this.clear()), tool("Invert", () => this.invert())),
      el("div", { class: "easel" }, this.canvas), this.note,
      el("p", { class: "buttons" }, tool("Cancel", () => close("")), el("button", { class: "main", onclick: () => close("take") }, "Use this mask")),
    ];
  }

  choose(erasing) {
    this.erasing = erasing;
    this.brush.ariaPressed = !erasing;
    this.eraser.ariaPressed = erasing;
    say(erasing ? "Eraser" : "Brush");
    this.paint();
  }

  resize(size) {
    this.size = Math.max(1, Math.min(this.mask.width, Math.round(size) || 1));
    if (document.activeElement !== this.number) this.number.value = this.size;
    this.paint();
  }

  /** Return where on the picture the pointer is, whatever the page's zoom. */
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * this.mask.width, y: ((event.clientY - box.top) / box.height) * this.mask.height };
  }

  down(event) {
    if (this.drawing !== null || event.button > 0) return;
    this.drawing = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.spot = this.point(event);
    this.add({ erase: this.erasing || event.buttons === 32, size: this.size, points: [this.spot] });
    event.preventDefault();
    this.canvas.focus();
  }

  move(event) {
    this.spot = this.point(event);
    if (event.pointerId === this.drawing) {
      const all = event.getCoalescedEvents?.() ?? [];
      this.strokes.at(-1).points.push(...(all.length ? all : [event]).map((one) => this.point(one)));
    }
    this.paint();
  }

  up(event) {
    if (event.pointerId === this.drawing) this.drawing = null;
  }

  leave() {
    if (this.drawing === null) this.paint(false);
  }

  key(event) {
    if (event.target === this.number) return;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    const redo = (event.ctrlKey || event.metaKey) && (event.key.toLowerCase() === "y" || (undo && event.shiftKey));
    if (redo) this.forth();
    else if (undo) this.back();
    else if (event.key === "e") this.choose(!this.erasing);
    else if (event.key === "[") this.resize(this.size - 2);
    else if (event.key === "]") this.resize(this.size + 2);
    else if (event.target === this.canvas && event.key in steps) {
      const [dx, dy] = steps[event.key];
      const limit = (value, most) => Math.max(0, Math.min(most, value));
      this.spot = { x: limit(this.spot.x + dx * KEY_STEP, this.mask.width), y: limit(this.spot.y + dy * KEY_STEP, this.mask.height) };
      this.paint();
    } else if (event.target === this.canvas && event.key === " ") this.add({ erase: this.erasing, size: this.size, points: [{ ...this.spot }] });
    else return;
    event.preventDefault();
  }

  add(stroke) {
    this.strokes.push(stroke);
    this.undone = [];
    this.paint();
  }

  back() {
    if (this.strokes.length) this.undone.push(this.strokes.pop());
    this.paint();
  }

  forth() {
    if (this.undone.length) this.strokes.push(this.undone.pop());
    this.paint();
  }

  clear() {
    this.add({ clear: true });
  }

  invert() {
    this.add({ invert: true });
  }

  /** Draw the mask, then the picture under it, then the brush. */
  paint(brush = true) {
    const { width, height } = this.mask;
    const on = this.mask.getContext("2d", { willReadFrequently: true });
    on.globalCompositeOperation = "source-over";
    on.clearRect(0, 0, width, height);
    for (const stroke of this.strokes) draw(on, stroke, width, height);
    const to = this.canvas.getContext("2d");
    to.setTransform(this.zoom, 0, 0, this.zoom, 0, 0);
    to.clearRect(0, 0, width, height);
    if (this.picture.naturalWidth) cover(to, this.picture, width, height);
    to.save();
    to.globalAlpha = 0.62;
    to.drawImage(tinted(this.mask), 0, 0);
    to.restore();
    if (brush) ring(to, this.spot, this.size, this.erasing, 2 / this.zoom);
    if (this.undo) this.label();
  }

  label() {
    this.undo.disabled = this.strokes.length === 0;
    this.redo.disabled = this.undone.length === 0;
    const share = Math.round(100 * covered(this.mask));
    put(this.note, share ? `${share} % of the picture is drawn anew; the rest stays.` : "Nothing is painted yet.");
  }

  /** Return the mask as a PNG, white on black. */
  result() {
    if (covered(this.mask) === 0) return { mask: null, strokes: [] };
    const { width, height } = this.mask;
    const out = el("canvas", { width, height });
    const on = out.getContext("2d");
    on.drawImage(tinted(this.mask, "#fff"), 0, 0);
    on.globalCompositeOperation = "destination-over";
    on.fillRect(0, 0, width, height);
    return { mask: out.toDataURL("image/png"), strokes: this.strokes };
  }
}

function draw(on, stroke, width, height) {
  on.globalCompositeOperation = stroke.erase || stroke.clear ? "destination-out" : stroke.invert ? "xor" : "source-over";
  on.fillStyle = on.strokeStyle = "#000";
  if (stroke.clear || stroke.invert) return on.fillRect(0, 0, width, height);
  on.lineCap = on.lineJoin = "round";
  on.lineWidth = stroke.size;
  on.beginPath();
  const [first, ...rest] = stroke.points;
  on.moveTo(first.x, first.y);
  for (const point of rest.length ? rest : [{ x: first.x + 0.01, y: first.y }]) on.lineTo(point.x, point.y);
  return on.stroke();
}

/** Draw a picture as the server does: scaled to cover, cropped around its centre. */
function cover(on, picture, width, height) {
  const scale = Math.max(width / picture.naturalWidth, height / picture.naturalHeight);
  const [w, h] = [picture.naturalWidth * scale, picture.naturalHeight * scale];
  on.imageSmoothingQuality = "high";
  on.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
}

/** Return a mask in one colour. */
function tinted(mask, colour = "#ff5d73") {
  const made = el("canvas", { width: mask.width, height: mask.height });
  const on = made.getContext("2d");
  on.drawImage(mask, 0, 0);
  on.globalCompositeOperation = "source-in";
  on.fillStyle = colour;
  on.fillRect(0, 0, mask.width, mask.height);
  return made;
}

function ring(on, spot, size, erasing, line) {
  on.beginPath();
  on.arc(spot.x, spot.y, size / 2, 0, 7);
  on.lineWidth = line;
  on.strokeStyle = erasing ? "#fff" : "#111";
  on.stroke();
  on.setLineDash([3 * line, 3 * line]);
  on.strokeStyle = erasing ? "#111" : "#fff";
  on.stroke();
  on.setLineDash([]);
}

/** Return the share of a mask that is painted. */
function covered(mask) {
  const { data } = mask.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, mask.width, mask.height);
  let count = 0;
  for (let place = 3; place < data.length; place += 4) if (data[place] > 127) count++;
  return count / (data.length / 4);
}
