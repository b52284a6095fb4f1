// Several images at once: a row each, with the image and what is most similar to it.

import { byId, element, link, percent, picture, problemText } from "./elements.js";

const PLACES = 10;

export function showRows(uploads, linkTo) {
  byId("rows").replaceChildren(...uploads.map((upload) => row(upload, linkTo)));
}

function row({ id, name, address }, linkTo) {
  const query = link({ className: "row-query", href: linkTo({ upload: id }) }, `${name}: search by it alone`,
    picture(address, { blank: "no preview" }),
    element("b", { textContent: name }));
  return element("li", { className: "row" }, query, waiting());
}

function waiting() {
  const strip = element("ol", { className: "row-found waiting" }, ...Array.from({ length: PLACES }, () =>
    element("li", {}, element("div", { className: "frame" }))));
  strip.setAttribute("aria-hidden", "true");
  return strip;
}

export function showOutcome(place, outcome, linkTo) {
  byId("rows").children[place].lastElementChild.replaceWith(found(outcome, linkTo));
}

function found({ answer, problem }, linkTo) {
  if (problem) return element("div", { className: "problem" }, ...problemText(problem));
  if (answer.neighbors.length === 0) {
    return element("p", { className: "row-empty", textContent: "Nothing passes the filter." });
  }
  return element("ol", { className: "row-found" },
    ...answer.neighbors.map((neighbor) => element("li", {}, neighborLink(neighbor, linkTo))));
}

function neighborLink({ item_id: item, label, similarity, thumbnail_url: thumbnail }, linkTo) {
  const named = label || "no label";
  return link({ className: "search", href: linkTo({ item }) },
    `${named}, similarity ${percent(similarity)}: search from it`,
    picture(thumbnail, { lazy: true }),
    element("span", { textContent: named }));
}
