// Says what a bundle can draw, while somebody types. Only the built-in demo has a list of words.

import { el } from "./dom.js";

const SENTENCE = /^an? (\w+)(?: on an? (\w+)(?: background)?)?$/;
const WORDS = /[\p{L}\p{N}_]+/gu; // of any script
const MOST = 6;

const article = (word) => (/^[aeiou]/.test(word) && word !== "unicorn" ? "an" : "a");

/** Return the sentence that the demo was taught for a thing on a colour. */
export const sentence = (thing, colour) => `${article(thing)} ${thing} on ${article(colour)} ${colour} background`;

/** Return the thing and the colour in a prompt, each null if there is none. */
export function found(prompt, words) {
  const typed = prompt.toLowerCase().match(WORDS) ?? [];
  return {
    thing: typed.find((word) => words.things.includes(word)) ?? null,
    colour: typed.find((word) => words.colours.includes(word)) ?? null,
  };
}

/** Return what to say about a prompt: {text, warn}. */
export function hint(prompt, words) {
  const text = prompt.trim().toLowerCase().replace(/[.!]+$/, "");
  if (!text) return { text: `This demo draws ${words.things.length} things on ${words.colours.length} colours.`, warn: false };
  const match = SENTENCE.exec(text);
  if (match && words.things.includes(match[1]) && (!match[2] || words.colours.includes(match[2])))
    return { text: "", warn: false };
  const known = new Set(["a", "an", "the", "on", "background", ...words.things, ...words.colours]);
  const all = [...new Set(text.match(WORDS) ?? [])];
  const unknown = all.slice(0, -1).concat(beginsOne(all.at(-1), words) ? [] : all.slice(-1)).filter((word) => !known.has(word));
  const { thing, colour } = found(text, words);
  if (unknown.length) return { text: `The demo was not taught ${unknown.slice(0, 3).map((word) => `\u2068“${word}”\u2069`).join(", ")}.`, warn: true };
  return { text: thing || colour ? "It was taught whole sentences:" : "", warn: false };
}

/** Return prompts to offer: of words that begin like the last one typed, else the examples. */
export function suggestions(prompt, words) {
  const last = /(\w+)$/.exec(prompt.toLowerCase())?.[1];
  const { thing, colour } = found(prompt, words);
  if (!prompt.trim()) return words.examples.slice(0, MOST);
  if (!last) return [];
  const things = words.things.filter((word) => word.startsWith(last) && word !== last);
  if (!things.length && hint(prompt, words).text) return [sentence(thing ?? "otter", colour ?? "teal")];
  if (things.length && last.length > 1) return things.slice(0, MOST).map((one) => sentence(one, colour ?? "teal"));
  const colours = words.colours.filter((word) => word.startsWith(last) && word !== last);
  return thing && last.length > 1 ? colours.map((one) => sentence(thing, one)) : [];
}

/** Return a suggestion as a button: a dot in its colour, and few words. */
export function chip(prompt, words, choose) {
  const { thing, colour } = found(prompt, words);
  const button = el("button", { class: "chip swatch", title: prompt, onclick: () => choose(prompt) }, `${thing} on ${colour}`);
  return tinted(button, colour);
}

function tinted(button, colour) {
  button.style.setProperty("--swatch", colour === "teal" ? "#1fa39b" : colour);
  return button;
}

/** Return the whole list: buttons for colours and things. */
export function wordList(words, choose) {
  const swatch = (colour) => tinted(el("button", { class: "swatch", onclick: () => choose({ colour }) }, colour), colour);
  const thing = (word) => el("button", { class: "word", onclick: () => choose({ thing: word }) }, word);
  return [
    el("div", { class: "chips", role: "group", "aria-label": "Colours" }, ...words.colours.map(swatch)),
    el("div", { class: "chips things", role: "group", "aria-label": "Things" }, ...words.things.map(thing)),
  ];
}

function beginsOne(word, words) {
  return [...words.things, ...words.colours, "background"].some((one) => one.startsWith(word));
}
