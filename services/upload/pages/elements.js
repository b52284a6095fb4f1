// Builds the small elements that every part of the page is made of.

import { sentencesOf } from "./sentences.js";

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function link(properties, spoken, ...children) {
  const made = element("a", properties, ...children);
  made.setAttribute("aria-label", spoken);
  return made;
}

// `source` is an address, or what an <img> takes for several: src, srcset and sizes.
export function picture(source, { alt = "", lazy = false, blank = "" } = {}) {
  const { src, srcset = "", sizes = "" } = typeof source === "string" ? { src: source } : source;
  const image = element("img", {
    alt, loading: lazy ? "lazy" : "eager", decoding: "async", draggable: false, sizes, srcset, src,
  });
  const frame = element("div", { className: "frame" }, image);
  image.addEventListener("error", () => frame.replaceChildren(
    element("div", { className: "blank", textContent: blank })), { once: true });
  return frame;
}

export function problemText(problem) {
  const [title, advice] = sentencesOf(problem);
  return [
    element("strong", { textContent: title }),
    element("span", { textContent: advice }),
    element("br"),
    element("code", { textContent: problem.code }),
  ];
}

// A bar that is filled to this fraction.
export function bar(fraction) {
  const filled = element("i");
  filled.style.setProperty("--similarity", Math.min(1, Math.max(0, fraction)));
  return element("div", { className: "bar" }, filled);
}

export function button(text, onClick) {
  const made = element("button", { type: "button", className: "button", textContent: text });
  made.addEventListener("click", onClick);
  return made;
}

// A cosine: two digits, and no percent sign, since it is no probability.
export const similarityText = (similarity) => Math.max(0, similarity).toFixed(2);
export const count = (number, noun) =>
  `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
