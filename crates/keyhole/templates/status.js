// Replaces the page with a newer one. Without this script the whole page reloads.
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
  // Do not refresh while the page is hidden, or while the user selects text.
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
