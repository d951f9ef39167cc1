// Fetches the page anew every two seconds and puts its content in place of the
// old. What is on the page is made, and escaped, by the director alone.
"use strict";

const every = 2000;
const stale = document.getElementById("stale");
let answered = Date.now();

async function refresh() {
  const response = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Error(`the director answers ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const next = fresh.querySelector("main");
  if (!next) throw new Error("the answer is not this page");
  document.title = fresh.title;
  document.querySelector("main").replaceWith(next);
}

async function turn() {
  // A selection would be lost, and a page nobody sees needs no news.
  if (!document.hidden && getSelection().isCollapsed) {
    try {
      await refresh();
      answered = Date.now();
      stale.hidden = true;
    } catch (err) {
      const seconds = Math.round((Date.now() - answered) / 1000);
      stale.textContent = `No answer from this director for ${seconds} s: what you see is old.`;
      stale.hidden = false;
    }
  }
  setTimeout(turn, every);
}

setTimeout(turn, every);
