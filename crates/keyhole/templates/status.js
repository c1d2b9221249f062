// Puts a new page in the place of the old one. Without this the page reloads as a whole.
"use strict";

const quiet = matchMedia("(prefers-reduced-motion: reduce)");
const stale = document.getElementById("stale");
const pace = document.getElementById("pace");
let reached = new Date();

function seconds() {
  return quiet.matches ? 10 : 2;
}

async function refresh() {
  const reply = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (!reply.ok) throw new Error(reply.statusText);
  const next = new DOMParser().parseFromString(await reply.text(), "text/html");
  const page = next.getElementById("page");
  if (!page) throw new Error("not a status page");
  document.title = next.title;
  document.getElementById("page").replaceWith(page);
  reached = new Date();
  stale.hidden = true;
  pace.textContent = `· Renewed every ${seconds()} s.`;
}

async function again() {
  // Nothing changes under the eyes of who selects something, or for nobody.
  const selects = getSelection() && !getSelection().isCollapsed;
  if (!document.hidden && !selects) {
    try {
      await refresh();
    } catch {
      stale.textContent = `The node was not reached since ${reached.toLocaleTimeString()}.`;
      stale.hidden = false;
    }
  }
  setTimeout(again, seconds() * 1000);
}

setTimeout(again, seconds() * 1000);
