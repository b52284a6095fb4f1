// Builds the small elements that every part of the page is made of.

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

export function picture(source, { alt = "", lazy = false, blank = "" } = {}) {
  const image = element("img", { src: source, alt, loading: lazy ? "lazy" : "eager", decoding: "async" });
  const frame = element("div", { className: "frame" }, image);
  image.addEventListener("error", () => frame.replaceChildren(
    element("div", { className: "blank", textContent: blank })), { once: true });
  return frame;
}

export function problemText({ title, detail, code, retryAfter }) {
  const wait = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  return [
    element("strong", { textContent: title }),
    element("span", { textContent: `${detail}.${wait}`.replace(/\.\.+/, ".") }),
    element("br"),
    element("code", { textContent: code }),
  ];
}

export const percent = (similarity) => `${(100 * Math.max(0, similarity)).toFixed(1)} %`;
export const count = (number, noun) =>
  `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
