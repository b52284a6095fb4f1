// One result enlarged, over the page: which file it is, its attributes, and the ones before and after it.
//
// The address decides what is enlarged, so that Back closes it; this module says what a person wants.

import { fileOf, titleOf } from "./cards.js";
import { byId, element, similarityText } from "./elements.js";
import * as paths from "./paths.js";

const MAGNIFIED = 2; // a small image is not blown up beyond this
const SWIPE = 48; // pixels across before a touch is meant as a swipe

const dialog = byId("lightbox");
const image = byId("lightbox-picture");
let wishes = { move() {}, close() {} };
let list = [];
let place = -1;
let touched = null;

export function whenWished(given) {
  wishes = given;
}

// Shows an item; `neighbors` are those that it can be left for.
export function show(item, neighbors, collection, searchLink) {
  list = neighbors;
  place = neighbors.findIndex((one) => one.item_id === item.item_id);
  fill(item, collection, searchLink);
  if (!dialog.open) dialog.showModal();
}

function fill(item, collection, searchLink) {
  const title = titleOf(item);
  Object.assign(image, { alt: title, src: paths.largeOf(collection, item.item_id) });
  byId("lightbox-title").textContent = title;
  byId("lightbox-path").textContent = item.path ?? "";
  byId("lightbox-facts").replaceChildren(...facts(item));
  byId("lightbox-search").href = searchLink;
  const download = byId("lightbox-download");
  download.href = paths.imageOf(collection, item.item_id);
  download.download = fileOf(item) || item.item_id;
  byId("lightbox-place").textContent = place < 0 ? "" : `${place + 1} of ${list.length}`;
  enable("lightbox-before", place > 0);
  enable("lightbox-after", place >= 0 && place < list.length - 1);
}

// Not by `disabled`, which would take the focus away from a button that was just pressed.
const enable = (id, able) => byId(id).setAttribute("aria-disabled", String(!able));

function facts(item) {
  const similarity = item.similarity === undefined ? [] : [["similarity", similarityText(item.similarity)]];
  const size = item.width ? [["size", `${item.width} × ${item.height}`]] : [];
  return [...similarity, ...size, ...Object.entries(item.attributes ?? {})].map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value })));
}

export function hide() {
  if (dialog.open) dialog.close();
}

function step(by) {
  const next = list[place + by];
  if (place >= 0 && next) wishes.move(next.item_id);
}

image.addEventListener("load", () => {
  image.style.setProperty("--widest", `${MAGNIFIED * image.naturalWidth}px`);
  image.style.setProperty("--tallest", `${MAGNIFIED * image.naturalHeight}px`);
});
dialog.addEventListener("close", () => {
  // The focus goes to the card that was looked at last, not to that which was opened first.
  const left = list[place]?.item_id;
  byId("grid").querySelector(`[data-item="${left}"] .enlarge`)?.focus();
  wishes.close();
});
dialog.addEventListener("keydown", ({ key }) => {
  if (key === "ArrowLeft") step(-1);
  if (key === "ArrowRight") step(1);
});
dialog.addEventListener("click", ({ target }) => {
  if (target === dialog) dialog.close(); // beside everything
});
byId("lightbox-close").addEventListener("click", () => dialog.close());
byId("lightbox-before").addEventListener("click", () => step(-1));
byId("lightbox-after").addEventListener("click", () => step(1));
dialog.addEventListener("touchstart", ({ touches }) => {
  touched = touches.length === 1 ? { x: touches[0].clientX, y: touches[0].clientY } : null;
}, { passive: true });
dialog.addEventListener("touchend", ({ changedTouches: [end] }) => {
  if (!touched) return;
  const [across, down] = [end.clientX - touched.x, end.clientY - touched.y];
  touched = null;
  if (Math.abs(across) > SWIPE && Math.abs(across) > 2 * Math.abs(down)) step(across < 0 ? 1 : -1);
});
