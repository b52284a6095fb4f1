// What is on the screen around the query image: knows no addresses and asks no server.

import { byId, element, link, percent, picture, plural, problemText } from "./elements.js";

const PLACES = ["result", "batch"];
const grid = byId("grid");

function card(neighbor, linkTo) {
  const label = neighbor.label || "no label";
  const similarity = percent(neighbor.similarity);
  const bar = element("i");
  bar.style.setProperty("--similarity", Math.min(1, Math.max(0, neighbor.similarity)));
  const search = link(
    { className: "search", href: linkTo({ item: neighbor.item_id }) },
    `${label}, similarity ${similarity}: search from it`,
    picture(neighbor.thumbnail_url),
    element("div", { className: "label" },
      element("b", { textContent: label }),
      element("span", { textContent: similarity })),
    element("div", { className: "bar" }, bar));
  const original = link(
    { className: "original", href: neighbor.image_url, textContent: "Original" },
    `Original image: ${label}`);
  return element("li", { className: "card" }, search, ...folded(neighbor, label, linkTo), original);
}

function folded({ item_id: item, duplicates }, label, linkTo) {
  if (duplicates.length === 0) return [];
  const amount = plural(duplicates.length, "near-duplicate");
  return [link(
    { className: "folded", href: linkTo({ item, collapse: "" }), textContent: `+${amount}` },
    `${amount} of ${label}: show them too`)];
}

function blankCard() {
  const blank = element("li", { className: "card waiting" },
    element("div", { className: "frame" }), element("div", { className: "bar" }));
  blank.setAttribute("aria-hidden", "true");
  return blank;
}

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

export function showChoices(collections, chosen) {
  const shown = ({ count, index_version: version }) => (version ? count : "being prepared");
  byId("collection").replaceChildren(...collections.map((one) => element("option", {
    value: one.name, textContent: `${one.name} (${shown(one)})`, selected: one.name === chosen,
  })));
  byId("collection-choice").hidden = collections.length < 2;
}

export function showLimits({ image_max_bytes: bytes, formats }) {
  byId("limits").textContent = `${formats.join(", ")} up to ${Math.floor(bytes / 2 ** 20)} MB`;
}

export function showStrip(items) {
  byId("strip").replaceChildren(...items.map((item) => {
    const start = link({}, `Search from ${item.label || "this image"}`,
      picture(item.thumbnail_url, { lazy: true }));
    start.dataset.item = item.item_id;
    return element("li", {}, start);
  }));
  byId("start").hidden = items.length === 0;
}

export function linkStrip(linkTo) {
  for (const start of byId("strip").querySelectorAll("a")) {
    start.href = linkTo({ item: start.dataset.item });
  }
}

export function showWaiting(k, again) {
  reveal("result");
  announce("Searching…");
  byId("more").hidden = true;
  // The answer to the same image asked differently replaces the one that is there.
  if (again && grid.childElementCount > 0) {
    grid.setAttribute("aria-busy", "true");
    return;
  }
  byId("empty").hidden = true;
  byId("facts").textContent = "";
  grid.removeAttribute("aria-busy");
  grid.replaceChildren(...Array.from({ length: k }, blankCard));
}

export function showAnswer(answer, filtered, linkTo) {
  grid.removeAttribute("aria-busy");
  grid.replaceChildren(...answer.neighbors.map((neighbor) => card(neighbor, linkTo)));
  showEmpty(answer, filtered);
  showEnd(answer, filtered);
  focusOn(byId("result-title"));
}

export function addAnswer(answer, filtered, linkTo) {
  const added = answer.neighbors.map((neighbor) => card(neighbor, linkTo));
  grid.append(...added);
  showEnd(answer, filtered);
  added[0]?.querySelector(".search").focus();
}

function showEmpty({ neighbors, matching }, filtered) {
  byId("empty").hidden = neighbors.length > 0;
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

function showEnd(answer, filtered) {
  const { timings_ms: times, matching } = answer;
  const count = grid.childElementCount;
  const passing = filtered ? ` of ${matching} that pass the filter` : "";
  announce(count === 0 ? byId("empty-title").textContent + "."
    : `${plural(count, "similar image")}${passing} in ${times.total.toFixed(0)} ms.`);
  const stages = Object.entries(times).map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`);
  byId("facts").textContent =
    [answer.collection, answer.model_id, `index ${answer.index_version}`, ...stages].join(" · ");
  byId("more").hidden = !answer.next_cursor;
  byId("more-problem").hidden = true;
  byId("more-button").textContent = "Show more";
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
  reveal("batch");
}

export function focusBatch() {
  focusOn(byId("batch-title"));
}

export function showProblem(problem) {
  const box = byId("problem");
  box.replaceChildren(...problemText(problem));
  for (const id of PLACES) byId(id).hidden = true;
  box.hidden = false;
  announce("");
  box.focus();
}

export function showStart() {
  reveal("start");
  announce("");
}
