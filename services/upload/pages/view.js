// What is on the screen: builds elements, knows no addresses and asks no server.

const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function picture(source, alt, eager) {
  return element("div", { className: "frame" },
    element("img", { src: source, alt, loading: eager ? "eager" : "lazy", decoding: "async" }));
}

const percent = (similarity) => `${(100 * Math.max(0, similarity)).toFixed(1)} %`;

function card(neighbor, address) {
  const label = neighbor.label || "no label";
  const bar = element("i");
  bar.style.setProperty("--similarity", Math.min(1, Math.max(0, neighbor.similarity)));
  const link = element("a", { className: "search", href: address },
    picture(neighbor.thumbnail_url, "", true),
    element("div", { className: "label" },
      element("b", { textContent: label }),
      element("span", { textContent: percent(neighbor.similarity) })),
    element("div", { className: "bar" }, bar));
  link.setAttribute("aria-label", `${label}, similarity ${percent(neighbor.similarity)}: search from it`);
  const original = element("a", { className: "original", href: neighbor.image_url, textContent: "Original" });
  original.setAttribute("aria-label", `Original image: ${label}`);
  return element("li", { className: "card" }, link, original);
}

export function showChoices(collections, chosen) {
  byId("collection").replaceChildren(...collections.map(({ name, count }) =>
    element("option", { value: name, textContent: `${name} (${count})`, selected: name === chosen })));
  byId("collection-choice").hidden = collections.length < 2;
}

export function showLimits({ image_max_bytes: bytes, formats }) {
  byId("limits").textContent = `${formats.join(", ")} up to ${Math.floor(bytes / 2 ** 20)} MB`;
}

export function showStrip(items, addressOf) {
  byId("strip").replaceChildren(...items.map((item) => {
    const link = element("a", { href: addressOf(item) }, picture(item.thumbnail_url, "", false));
    link.setAttribute("aria-label", `Search from ${item.label || "this image"}`);
    return element("li", {}, link);
  }));
  byId("start").hidden = items.length === 0;
}

export function showQuery(source, name) {
  const frame = byId("query-image");
  const blank = () => frame.replaceChildren(element("div", {
    className: "blank", textContent: `${name} (this browser can’t show it)` }));
  const image = element("img", { src: source, alt: `Your query: ${name}` });
  image.addEventListener("error", blank, { once: true });
  frame.replaceChildren(image);
}

export function showWaiting(k) {
  document.body.classList.add("answered");
  byId("problem").hidden = true;
  byId("result").hidden = false;
  byId("facts").textContent = "";
  byId("status").textContent = "Searching…";
  byId("grid").replaceChildren(...Array.from({ length: k }, () => {
    const blank = element("li", { className: "card waiting" },
      element("div", { className: "frame" }), element("div", { className: "bar" }));
    blank.setAttribute("aria-hidden", "true");
    return blank;
  }));
}

export function showAnswer(answer, addressOf) {
  const { neighbors, timings_ms: times } = answer;
  byId("grid").replaceChildren(...neighbors.map((neighbor) => card(neighbor, addressOf(neighbor))));
  const stages = Object.entries(times).map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`);
  byId("facts").textContent =
    [answer.collection, answer.model_id, `index ${answer.index_version}`, ...stages].join(" · ");
  byId("status").textContent = neighbors.length === 0
    ? "Nothing is near enough."
    : `${neighbors.length} similar images in ${times.total.toFixed(0)} ms.`;
  byId("result-title").focus({ preventScroll: true });
}

export function showProblem({ title, detail, code, retryAfter }) {
  const box = byId("problem");
  const wait = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  box.replaceChildren(
    element("strong", { textContent: title }),
    element("span", { textContent: `${detail}.${wait}`.replace(/\.\.+/, ".") }),
    element("br"),
    element("code", { textContent: code }));
  box.hidden = false;
  byId("result").hidden = true;
  byId("status").textContent = "";
  box.focus();
}

export function showStart() {
  document.body.classList.remove("answered");
  byId("problem").hidden = true;
  byId("result").hidden = true;
  byId("status").textContent = "";
}
