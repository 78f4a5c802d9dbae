// Requests to the server, and its stream of events.

export const SILENT = "The server does not answer. Is nano-serve still running?";
const EVENTS = ["hello", "job", "progress", "preview", "picture", "picture_deleted", "bundle", "bye"];

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
  if (!answer.ok) throw Object.assign(new Error(found?.error?.message ?? `The server answered ${answer.status}.`), { status: answer.status });
  return found;
}

/** Listen for ever: the stream is opened anew whenever it ends. */
export function listen(heard, lost) {
  const source = new EventSource("/api/v1/events");
  const again = (seconds, why = null) => (source.close(), lost(why), setTimeout(() => listen(heard, lost), seconds * 1000));
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      heard(name, JSON.parse(event.data));
      if (name === "bye") again(1);
    });
  }
  source.onerror = () => {
    source.close();
    ask("GET", "/api/v1/bundles").then(() => again(1), (error) => again(1.5, error.status === 401 ? error.message : null));
  };
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
