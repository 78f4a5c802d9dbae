// Requests to the server, and its stream of events.

export const SILENT = "The server does not answer. Is nano-serve still running?";
const UNSEEN = 5000; // milliseconds until a tab that nobody sees stops listening
const EVENTS = ["hello", "job", "progress", "preview", "picture", "picture_deleted", "bundle", "bye"];

/** Return the server's words as a sentence; a file or an option at its beginning stays as it is. */
export const asSentence = (words) => (/^[a-z]+[ ,’]/.test(words) ? words[0].toUpperCase() + words.slice(1) : words);

/** Send a request; return the JSON of its answer, null without one. An error holds the server's own words. */
export async function ask(method, path, body = undefined) {
  const sent = { method, headers: {} };
  if (body !== undefined) {
    sent.headers["content-type"] = "application/json";
    sent.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, sent);
  } catch {
    throw new Error(SILENT);
  }
  if (answer.status === 204) return null;
  const found = await answer.json().catch(() => null);
  if (!answer.ok) throw Object.assign(new Error(asSentence(found?.error?.message ?? `The server answered ${answer.status}.`)), { status: answer.status });
  return found;
}

/**
 * Listen for ever: the stream is opened anew whenever it ends. A browser shares six connections to a server among its
 * tabs, so one that nobody sees gives its own back, unless it is busy, and listens again when it is seen.
 */
export function listen(heard, lost, busy) {
  let source = null;
  let asleep = false;
  let unseen = 0; // timer of giving the connection back
  const close = () => (source?.close(), (source = null));
  const again = (seconds, refused = false) => (close(), lost(refused), setTimeout(open, seconds * 1000));
  const open = () => {
    if (source || asleep) return;
    source = new EventSource("/api/v1/events");
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        heard(name, JSON.parse(event.data));
        if (name === "bye") again(1);
      });
    }
    source.onerror = () => {
      close();
      ask("GET", "/api/v1/bundles").then(() => again(1), (error) => again(1.5, error.status === 401));
    };
  };
  const leave = () => {
    if (busy()) return (unseen = setTimeout(leave, UNSEEN));
    asleep = true;
    close();
  };
  const look = () => {
    clearTimeout(unseen);
    if (document.hidden) return (unseen = setTimeout(leave, UNSEEN));
    asleep = false;
    open();
  };
  document.addEventListener("visibilitychange", look);
  open();
  look();
}

/** Return a file as a data URL. */
export const dataUrl = (blob) =>
  new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });

/** Return a picture of the server as a data URL, byte for byte. */
export async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error("The picture is no longer there.");
  return dataUrl(await answer.blob());
}
