// Shows a build of the chosen collection, and looks again until it is over.

import * as api from "./api.js";
import { byId, count } from "./elements.js";

const FIRST_LOOK_MS = 1000;
const LAST_LOOK_MS = 8000; // a build of hours need not be looked at each second
const BACKOFF = 1.25;
const BEFORE = new Set(["drawing", "reading"]); // stages of images, before the one that takes long

let looking = 0;
let wait = FIRST_LOOK_MS;

export const usable = (collection) => Boolean(collection?.index_version);

// Calls `found` with what is listed by then; one look at a time.
export function lookAgain(found) {
  clearTimeout(looking);
  looking = setTimeout(async () => {
    wait = Math.min(LAST_LOOK_MS, wait * BACKOFF);
    try {
      found(await api.collections());
    } catch (error) {
      if (error.code === "unauthenticated") found(null);
      else lookAgain(found); // away for a moment: the state on the screen is still the last known
    }
  }, wait);
}

export function hide() {
  clearTimeout(looking);
  wait = FIRST_LOOK_MS;
  byId("building").hidden = true;
  document.body.classList.remove("unfinished");
}

export function show(collection) {
  const unfinished = !usable(collection);
  document.body.classList.toggle("unfinished", unfinished);
  byId("building").hidden = false;
  const [title, text] = words(collection, unfinished);
  byId("building-title").textContent = title;
  byId("building-told").textContent = text;
  const share = shareOf(collection?.building);
  const bar = byId("building-bar");
  bar.hidden = !collection?.building;
  bar.firstElementChild.style.setProperty("--similarity", share ?? 1);
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", Math.round(100 * share));
}

const shareOf = (build) => (build?.total ? Math.min(1, build.done / build.total) : null);

function words(collection, unfinished) {
  if (!collection) return ["There is nothing to search yet", "Build an index of your images with: simile index build FOLDER. This page shows it by itself."];
  const { name, building } = collection;
  const doing = unfinished ? "Preparing your collection" : `Updating ${name}`;
  if (!building) return [doing, ""];
  const left = building.failed ? ` ${count(building.failed, "file")} left out: no image that can be read.` : "";
  const then = unfinished ? "You can search as soon as it is done: this page shows it by itself." : "What was there before is searched meanwhile.";
  return [`${doing}: ${progressOf(building)}`, `${then}${left}`];
}

export function progressOf({ stage, done, total, eta_seconds: eta }) {
  const images = total === null ? "" : together(`${done.toLocaleString("en")} of ${count(total, "image")}`);
  if (stage !== "embedding") return images && BEFORE.has(stage) ? `${stage} ${images}` : stage;
  return eta === null ? images : `${images}, about ${duration(eta)}`;
}

// Not broken across lines.
const together = (text) => text.replaceAll(" ", "\u00a0");

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
