// What this browser keeps: of each tab its own, and for a new tab what was kept last.

/** Keep a value; return whether there was room. */
export function keepAs(key, value) {
  const text = JSON.stringify(value);
  try {
    sessionStorage.setItem(key, text);
    localStorage.setItem(key, text);
    return true;
  } catch {
    return false; // full, or a private window; the page works without
  }
}

/** Return what was kept; null if there is nothing usable. */
export function keptAs(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key) ?? localStorage.getItem(key));
  } catch {
    return null;
  }
}
