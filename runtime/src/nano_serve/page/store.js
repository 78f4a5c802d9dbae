// What the server has told: jobs, pictures, bundles. Everything shown is drawn from here.

import { ask, listen } from "./api.js";

export const store = {
  online: false,
  refused: false, // the server wants another token
  jobs: new Map(),
  pictures: [],
  older: null, // where the next page of pictures begins
  bundles: [],
  samplers: [],
  limits: { pictures: 100, queue: 16 },
  focus: null, // {job} or {picture}: what the stage is to show
  shown: null, // id of the picture on the stage
  known: new Map(), // pictures that were ever told of, by id
  gone: new Set(), // ids of pictures that were deleted
};
const PAGE = 60; // pictures that are asked for at once
const MOST = 200; // that the server gives at once
const CALM = 100; // milliseconds between two frames that show how far a drawing is
const ENDED = new Set(["completed", "failed", "cancelled", "interrupted"]);
const watchers = [];
let news = []; // pictures told of since the newest page was asked for
let planned = false;
let later = 0; // timer of the next of those frames
let shownAt = -CALM; // when the last one was

export const ended = (job) => ENDED.has(job.status);

/** Call a function after every change, once a frame. */
export const watch = (run) => watchers.push(run);

/** Note that something changed. A hidden tab draws nothing, but keeps up. */
export function changed() {
  if (planned) return;
  planned = true;
  const run = () => ((planned = false), watchers.forEach((each) => each()));
  if (document.hidden) setTimeout(run, 200);
  else requestAnimationFrame(run);
}

/** Note that a drawing is further: a small model tells that forty times a second, and each frame takes time from it. */
function further() {
  const left = shownAt + CALM - performance.now();
  if (left > 0) return (later ||= setTimeout(() => ((later = 0), further()), left));
  shownAt = performance.now();
  changed();
}

/** Show a job or a picture on the stage. */
export function look(focus) {
  store.focus = focus;
  changed();
}

/** Return jobs that wait or are drawn, in the order of their turn. */
export const going = () =>
  [...store.jobs.values()]
    .filter((job) => !ended(job))
    .sort((a, b) => a.queue_position - b.queue_position || a.created - b.created);

/** Return jobs that an earlier start of the server did not finish. */
export const left = () => [...store.jobs.values()].filter((job) => job.status === "interrupted");

export const bundleOf = (id) => store.bundles.find((one) => one.id === id) ?? store.bundles[0];

/**
 * Load a page of pictures: the newest, as many as are shown, or those before the oldest that is shown. What is drawn or
 * deleted while the page is on its way counts, too.
 */
export async function loadPictures(more = false) {
  const shown = store.pictures;
  const limit = more ? PAGE : Math.min(Math.max(shown.length, PAGE), MOST);
  if (!more) news = [];
  const page = await ask("GET", `/api/v1/pictures?limit=${limit}${more ? `&before=${store.older}` : ""}`);
  const before = more ? store.pictures : news;
  const there = new Set([...before.map((one) => one.id), ...store.gone]);
  const found = page.pictures.filter((one) => !there.has(one.id));
  found.forEach((one) => store.known.set(one.id, one));
  store.pictures = [...before, ...found];
  store.older = page.next;
  const oldest = page.next ? page.pictures.at(-1)?.created ?? Infinity : 0;
  const now = new Set(store.pictures.map((one) => one.id));
  if (!more) shown.filter((one) => one.created > oldest && !now.has(one.id)).forEach((one) => forget(one.id));
  changed();
}

/** Take a picture that was deleted off the page. */
function forget(id) {
  const place = store.pictures.findIndex((one) => one.id === id);
  store.pictures = store.pictures.filter((one) => one.id !== id);
  news = news.filter((one) => one.id !== id);
  store.known.delete(id);
  store.gone.add(id);
  for (const job of store.jobs.values()) job.pictures = job.pictures.filter((one) => one.id !== id);
  const next = store.pictures[Math.min(place, store.pictures.length - 1)];
  if (store.focus?.picture === id) store.focus = next ? { picture: next.id } : null;
  if (store.older === id) store.older = store.pictures.at(-1)?.id ?? null; // older ones are asked for from there
}

/** Begin to listen; a tab goes on while it is `busy`, also where nobody sees it. */
export function begin(busy) {
  listen(
    (name, data) => {
      heard[name]?.(data);
      if (name === "progress" || name === "preview") return further();
      shownAt = -CALM; // what comes first after this is shown at once
      changed();
    },
    (refused) => (Object.assign(store, { online: false, refused }), changed()),
    busy,
  );
}

const heard = {
  hello(data) {
    const jobs = new Map(data.jobs.map((job) => [job.id, job]));
    Object.assign(store, { online: true, jobs, bundles: data.bundles, samplers: data.samplers, limits: data.limits });
    if (store.focus === null && going().length) store.focus = { job: going()[0].id };
    const newest = data.jobs.find((job) => job.status !== "interrupted");
    if (store.focus === null && newest?.status === "failed") store.focus = { job: newest.id }; // else its reason was lost
    loadPictures().catch(() => {});
  },
  job(job) {
    store.jobs.set(job.id, job);
  },
  progress({ job: id, ...progress }) {
    const job = store.jobs.get(id);
    if (job && !ended(job)) Object.assign(job, { progress, status: "generating", queue_position: 0 });
  },
  preview({ job: id, picture, image }) {
    const job = store.jobs.get(id);
    if (!job || ended(job)) return;
    job.previews = [...job.previews.filter((one) => one.picture !== picture), { picture, image }];
  },
  picture(picture) {
    store.known.set(picture.id, picture);
    news.unshift(picture);
    if (!store.pictures.some((one) => one.id === picture.id)) store.pictures.unshift(picture);
  },
  picture_deleted({ id }) {
    forget(id);
  },
  bundle(bundle) {
    store.bundles = store.bundles.map((one) => (one.id === bundle.id ? bundle : one));
  },
};
