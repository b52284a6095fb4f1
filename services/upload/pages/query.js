// The query image, and the part of it to search by: drawn with a pointer or by keys.

import * as box from "./box.js";
import { byId } from "./elements.js";

const STEP = 0.02;
const KEYS = {
  ArrowLeft: { x: -STEP, y: 0 },
  ArrowRight: { x: STEP, y: 0 },
  ArrowUp: { x: 0, y: -STEP },
  ArrowDown: { x: 0, y: STEP },
};

const narrow = matchMedia("(max-width: 760px)");
const query = byId("query");
const frame = byId("query-image");
const stage = byId("stage");
const image = byId("query-picture");
const blank = byId("query-blank");
const part = byId("part");
const tools = byId("part-tools");
const ask = byId("part-search");
const whole = byId("part-whole");

let onSearch = () => {};
let drawn = null; // the edges on the screen
let searched = ""; // the box of the address, as text
let current = { address: "", fallback: null, name: "", box: "" }; // what is shown
let instead = null; // makes the address of a copy that every browser shows
let drag = null; // follows a pointer

export function whenChosen(search) {
  onSearch = search;
}

// Answers with what brings this image back.
export function keep() {
  const before = current;
  return () => show(before);
}

// `fallback` makes the address of a copy, for a browser that can't show the image itself.
export function show({ address, fallback = null, name, box: text = "" }) {
  const another = current.address !== address || current.name !== name;
  current = { address, fallback, name, box: text };
  if (another) {
    instead = fallback;
    tools.hidden = true;
    byId("query-name").textContent = name;
    image.alt = `Your query: ${name}`;
    unfold(false);
    if (address) reveal(address);
    else showBlank("The image is on another site: only Simile has looked at it.");
  }
  if (another || text !== searched) {
    searched = text;
    draw(box.parse(text));
  }
}

function reveal(address) {
  stage.hidden = false;
  blank.hidden = true;
  image.src = address;
}

function showBlank(text) {
  stage.hidden = true;
  blank.hidden = false;
  blank.textContent = text;
}

// On a narrow screen the image is a small strip until a part of it is drawn.
function unfold(unfolded) {
  query.classList.toggle("unfolded", unfolded);
}

const isStrip = () => narrow.matches && !query.classList.contains("unfolded");

function draw(edges) {
  drawn = edges;
  const waiting = edges !== null && box.format(edges) !== searched;
  part.hidden = edges === null;
  whole.hidden = edges === null;
  ask.hidden = edges !== null && !waiting;
  ask.classList.toggle("primary", waiting);
  ask.textContent = waiting ? "Search this part" : "Search a part";
  byId("part-hint").hidden = edges !== null;
  if (edges) place(edges);
}

function place({ left, top, right, bottom }) {
  const edges = { left, top, width: right - left, height: bottom - top };
  for (const [name, fraction] of Object.entries(edges)) part.style[name] = `${100 * fraction}%`;
}

function search() {
  const text = box.format(drawn);
  unfold(false);
  if (text !== searched) onSearch(text);
}

function clear() {
  const asked = searched;
  drag = null;
  unfold(false);
  draw(null);
  ask.focus();
  if (asked) onSearch("");
}

function pointOf({ clientX, clientY }) {
  const { left, top, width, height } = stage.getBoundingClientRect();
  return { x: (clientX - left) / width, y: (clientY - top) / height };
}

function gripOf(target, start) {
  const before = drawn;
  if (target.dataset.corner) {
    const [across, down] = target.dataset.corner.split(" ");
    const anchor = {
      x: before[across === "left" ? "right" : "left"],
      y: before[down === "top" ? "bottom" : "top"],
    };
    return (point) => box.spanned(anchor, point);
  }
  if (part.contains(target)) {
    return ({ x, y }) => box.moved(before, { x: x - start.x, y: y - start.y });
  }
  return (point) => box.spanned(start, point);
}

function take(event) {
  if (tools.hidden || !event.isPrimary || event.button !== 0) return;
  // Neither a text selection nor the browser's own drag of the image may begin.
  event.preventDefault();
  if (isStrip()) {
    unfold(true);
    return;
  }
  frame.setPointerCapture(event.pointerId);
  drag = { follow: gripOf(event.target, pointOf(event)), before: drawn };
}

function follow(event) {
  if (drag) draw(drag.follow(pointOf(event)));
}

function release() {
  if (!drag) return;
  const { before } = drag;
  drag = null;
  if (!drawn || drawn === before) return;
  if (!box.isLargeEnough(drawn)) {
    draw(before);
    return;
  }
  part.focus({ preventScroll: true });
  search();
}

function giveUp() {
  if (!drag) return;
  draw(drag.before);
  drag = null;
}

function press(event) {
  const step = KEYS[event.key];
  if (step) {
    draw(event.shiftKey ? box.stretched(drawn, step) : box.moved(drawn, step));
    byId("part-told").textContent = box.spoken(drawn);
  } else if (event.key === "Enter") search();
  else if (event.key === "Escape") clear();
  else return;
  event.preventDefault();
}

image.addEventListener("load", () => {
  query.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  tools.hidden = false;
});
image.addEventListener("error", async () => {
  const { address } = current;
  const make = instead;
  instead = null; // before the wait: another image may bring its own meanwhile
  const copied = await make?.().catch(() => null);
  if (address !== current.address) return; // another image is shown by now
  if (copied) reveal(copied);
  else showBlank("This image can’t be shown here, but it can be searched by.");
});
frame.addEventListener("pointerdown", take);
frame.addEventListener("pointermove", follow);
frame.addEventListener("pointerup", release);
frame.addEventListener("pointercancel", giveUp);
part.addEventListener("keydown", press);
whole.addEventListener("click", clear);
ask.addEventListener("click", () => {
  if (drawn) search();
  else {
    unfold(true);
    draw(box.CENTRED);
  }
  part.focus({ preventScroll: true });
});
