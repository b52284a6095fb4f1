// Several images at once: a row each, with the image and what is most similar to it.

import { fileOf, titleOf } from "./cards.js";
import { byId, element, link, picture, problemText, similarityText } from "./elements.js";
import * as paths from "./paths.js";

const PLACES = 10;
const SIZES = "(max-width: 760px) 36vw, 10vw";

export function showRows(uploads, linkTo) {
  byId("rows").replaceChildren(...uploads.map((upload) => row(upload, linkTo)));
}

function row({ id, name, address }, linkTo) {
  const query = link({ className: "row-query", href: linkTo({ upload: id }) }, `${name}: search by it alone`,
    picture(address, { blank: "no preview" }),
    element("b", { textContent: name, title: name }));
  return element("li", { className: "row" }, query, waiting());
}

function waiting() {
  const strip = element("ol", { className: "row-found waiting" }, ...Array.from({ length: PLACES }, () =>
    element("li", {}, element("div", { className: "frame" }))));
  strip.setAttribute("aria-hidden", "true");
  return strip;
}

export function showOutcome(place, upload, outcome, linkTo) {
  byId("rows").children[place].lastElementChild.replaceWith(found(upload, outcome, linkTo));
}

function found({ name, content }, { answer, problem }, linkTo) {
  if (problem) {
    return element("div", { className: "problem" }, ...problemText({ ...problem, file: name, size: content.size }));
  }
  if (answer.neighbors.length === 0) {
    return element("p", { className: "row-empty", textContent: "Nothing passes the filter." });
  }
  return element("ol", { className: "row-found" }, ...answer.neighbors.map((neighbor) =>
    element("li", {}, neighborLink(neighbor, answer.collection, linkTo))));
}

function neighborLink(neighbor, collection, linkTo) {
  const title = titleOf(neighbor);
  const made = link({ className: "search", href: linkTo({ item: neighbor.item_id }) },
    `${title}, similarity ${similarityText(neighbor.similarity)}: search from it`,
    picture(paths.thumbnailSources(collection, neighbor.item_id, SIZES), { lazy: true }),
    element("span", { textContent: title }));
  made.title = neighbor.path ?? fileOf(neighbor);
  return made;
}
