// What is on the screen around the query image: knows no addresses and asks no server.

import { blankCard, card, titleOf } from "./cards.js";
import { button, byId, element, link, picture, plural, problemText } from "./elements.js";
import { formatNames, limits, megabytes } from "./limits.js";
import * as paths from "./paths.js";
import { worthRetrying } from "./sentences.js";

const PLACES = ["result", "batch"];
const STRIP_SIZES = "(max-width: 760px) 42vw, 13vw";
const KEPT = ["empty", "more", "far", "details", "empty-clear"];
const grid = byId("grid");
let shown = { neighbors: [] }; // the neighbours on the screen

export const neighbors = () => shown.neighbors;

function reveal(place) {
  document.body.classList.toggle("answered", place !== "start");
  for (const id of PLACES) byId(id).hidden = id !== place;
  byId("problem").hidden = true;
}

export function announce(text) {
  byId("status").textContent = text;
}

// A choice may be one of several: whoever is choosing is left where they are.
function focusOn(title) {
  const choosing = document.activeElement?.closest("#choices, #query");
  if (!choosing) title.focus({ preventScroll: true });
}

// Answers with what brings this screen back, after a search that failed.
export function keep() {
  const place = PLACES.find((id) => !byId(id).hidden) ?? "start";
  const [cards, rows] = [grid, byId("rows")].map((list) => [...list.children]);
  const hidden = KEPT.map((id) => [id, byId(id).hidden]);
  const [before, text] = [shown, byId("status").textContent];
  return () => {
    reveal(place);
    grid.removeAttribute("aria-busy");
    grid.replaceChildren(...cards);
    byId("rows").replaceChildren(...rows);
    for (const [id, was] of hidden) byId(id).hidden = was;
    shown = before;
    announce(text);
  };
}

export function showChoices(collections, chosen) {
  const counted = ({ count, index_version: version }) => (version ? count : "being prepared");
  byId("collection").replaceChildren(...collections.map((one) => element("option", {
    value: one.name, textContent: `${one.name} (${counted(one)})`, selected: one.name === chosen,
  })));
  byId("collection-choice").hidden = collections.length < 2;
}

export function showLimits() {
  byId("limits").textContent = `${formatNames()} up to ${megabytes(limits().image_max_bytes)}`;
}

export function showStrip(collection, items) {
  byId("strip").replaceChildren(...items.map((item) => {
    const start = link({}, `Search from ${item.label || "this image"}`,
      picture(paths.thumbnailSources(collection, item.item_id, STRIP_SIZES), { lazy: true }));
    start.dataset.item = item.item_id;
    start.title = item.path ?? titleOf(item);
    return element("li", {}, start);
  }));
  byId("start").hidden = items.length === 0;
}

export function linkStrip(linkTo) {
  for (const start of byId("strip").querySelectorAll("a")) {
    start.href = linkTo({ item: start.dataset.item });
  }
}

export function showWaiting(k) {
  reveal("result");
  announce("Searching…");
  byId("more").hidden = true;
  // What was found before stays until there is something in its place.
  if (neighbors().length > 0) {
    grid.setAttribute("aria-busy", "true");
    return;
  }
  for (const id of ["empty", "far", "details"]) byId(id).hidden = true;
  grid.replaceChildren(...Array.from({ length: k }, blankCard));
}

export function showAnswer(answer, context) {
  grid.removeAttribute("aria-busy");
  shown = { neighbors: [] };
  grid.replaceChildren(...cardsOf(answer, context));
  showEmpty(answer, context.filtered);
  byId("far").hidden = !answer.no_close_match || answer.neighbors.length === 0;
  showEnd(answer, context.filtered);
  focusOn(byId("result-title"));
}

export function addAnswer(answer, context) {
  const added = cardsOf(answer, context);
  grid.append(...added);
  showEnd(answer, context.filtered);
  added[0]?.querySelector(".search").focus();
}

function cardsOf(answer, { linkTo, viewOf }) {
  const context = { collection: answer.collection, closeAbove: answer.close_above ?? undefined, linkTo };
  shown = { neighbors: [...shown.neighbors, ...answer.neighbors] };
  return answer.neighbors.map((neighbor) => {
    const made = card(neighbor, context);
    made.querySelector(".enlarge").href = viewOf(neighbor.item_id);
    return made;
  });
}

function showEmpty({ neighbors: found, matching }, filtered) {
  byId("empty").hidden = found.length > 0;
  byId("empty-clear").hidden = !filtered;
  const [title, advice] = emptiness(filtered, matching);
  byId("empty-title").textContent = title;
  byId("empty-advice").textContent = advice;
}

function emptiness(filtered, matching) {
  if (!filtered) return ["Nothing is near enough", "Try another image."];
  const title = matching > 0 ? "No other image passes the filter" : "No image passes the filter";
  return [title, "Loosen it, or search without it."];
}

// The shortest time shown is a hundredth: 0.00 s would read as an error.
const seconds = (ms) => `${Math.max(0.01, ms / 1000).toFixed(2)} s`;

function showEnd(answer, filtered) {
  const { timings_ms: times, matching } = answer;
  const amount = neighbors().length;
  const passing = filtered ? ` of ${matching} that pass the filter` : "";
  announce(amount === 0 ? `${byId("empty-title").textContent}.`
    : `${plural(amount, "result")}${passing}, ${seconds(times.total)}`);
  showDetails(answer);
  byId("more").hidden = !answer.next_cursor;
  byId("more-problem").hidden = true;
  byId("more-button").textContent = "Show more";
}

function showDetails({ collection, model_id: model, index_version: version, timings_ms: times }) {
  const stages = Object.entries(times).map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`);
  const facts = [["Collection", collection], ["Model", model], ["Index version", version], ["Time", stages.join(" · ")]];
  byId("facts").replaceChildren(...facts.map(([name, value]) => element("div", {},
    element("dt", { textContent: name }), element("dd", { textContent: value }))));
  byId("details").hidden = false;
}

export function showMoreWaiting() {
  announce("Searching…");
  byId("more-problem").hidden = true;
}

export function showMoreProblem(problem, wayOn) {
  byId("more-problem").replaceChildren(...problemText(problem));
  byId("more-problem").hidden = false;
  byId("more-button").textContent = wayOn;
  announce("");
}

export function showBatch() {
  shown = { neighbors: [] };
  grid.replaceChildren();
  reveal("batch");
}

export function focusBatch() {
  focusOn(byId("batch-title"));
}

export function hideResults() {
  for (const id of PLACES) byId(id).hidden = true;
  announce("");
}

// `retry` asks again what failed; where an earlier result is still there, the problem can be put away.
export function showProblem(problem, retry, earlier) {
  const box = byId("problem");
  const close = () => {
    box.hidden = true;
    byId("result-title").focus({ preventScroll: true });
  };
  const buttons = [
    ...(worthRetrying(problem) ? [button("Try again", retry)] : []),
    ...(earlier ? [button("Close", close)] : []),
  ];
  box.replaceChildren(...problemText(problem), element("div", { className: "ways-on" }, ...buttons));
  box.hidden = false;
  box.focus();
}

export function showStart() {
  reveal("start");
  shown = { neighbors: [] };
  grid.replaceChildren();
  announce("");
}
