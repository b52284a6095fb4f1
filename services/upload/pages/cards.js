// A card for each neighbour: its picture, how similar it is, and which file it is.

import { bar, element, link, picture, plural, similarityText } from "./elements.js";
import * as paths from "./paths.js";

// How wide a picture is on the screen, and a quarter more: an upright one fills the frame with its short side.
const SIZES = "(max-width: 760px) 56vw, 17vw";
const MAX_ATTRIBUTES = 3;
const MEANING = "Similarity: 1 is the same picture, 0 has nothing in common. It is no probability.";
const ICON = "M9 3H3v6M15 3h6v6M9 21H3v-6M15 21h6v-6";

export const fileOf = ({ path = "" }) => path.split("/").at(-1);
export const titleOf = (item) => item.label || fileOf(item) || "image";

export function card(neighbor, { collection, closeAbove, linkTo }) {
  const title = titleOf(neighbor);
  const similarity = similarityText(neighbor.similarity);
  const search = link(
    { className: "search", href: linkTo({ item: neighbor.item_id }) },
    `${title}, similarity ${similarity}: search from it`,
    picture(paths.thumbnailSources(collection, neighbor.item_id, SIZES)),
    element("div", { className: "label" },
      element("b", { textContent: title, title }),
      element("span", { textContent: similarity, title: MEANING })),
    bar(neighbor.similarity));
  const far = closeAbove !== undefined && neighbor.similarity < closeAbove;
  const made = element("li", { className: far ? "card far" : "card" },
    search, ...folded(neighbor, title, linkTo), enlarge(neighbor, title), ...fileLines(neighbor));
  made.dataset.item = neighbor.item_id;
  return made;
}

function enlarge({ item_id: item }, title) {
  const made = link({ className: "enlarge" }, `Enlarge ${title}`, icon(ICON));
  made.dataset.view = item;
  return made;
}

export function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const drawn = document.createElementNS(svg.namespaceURI, "path");
  drawn.setAttribute("d", path);
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(drawn);
  return svg;
}

function fileLines(neighbor) {
  const lines = neighbor.path ? [pathLine(neighbor.path)] : [];
  const attributes = Object.entries(neighbor.attributes);
  if (attributes.length > 0) {
    lines.push(element("p", {
      className: "line attributes",
      textContent: attributes.slice(0, MAX_ATTRIBUTES).map(([, value]) => value).join(" · "),
      title: attributes.map(([name, value]) => `${name}: ${value}`).join("\n"),
    }));
  }
  return lines;
}

// Where both don't fit the folder loses its beginning: files differ by their names.
function pathLine(path) {
  const place = path.lastIndexOf("/") + 1;
  return element("p", { className: "line path", title: path },
    element("span", { className: "folder" }, element("bdi", { dir: "ltr", textContent: path.slice(0, place) })),
    element("span", { className: "file", textContent: path.slice(place) }));
}

function folded({ item_id: item, duplicates }, title, linkTo) {
  if (duplicates.length === 0) return [];
  const amount = plural(duplicates.length, "near-duplicate");
  return [link(
    { className: "folded", href: linkTo({ item, collapse: "" }), textContent: `+${amount}` },
    `${amount} of ${title}: show them too`)];
}

export function blankCard() {
  const blank = element("li", { className: "card waiting" },
    element("div", { className: "frame" }), element("div", { className: "bar" }));
  blank.setAttribute("aria-hidden", "true");
  return blank;
}
