// The filter: what the collection's labels and attributes let a person choose, as checkboxes.

import { byId, element } from "./elements.js";

const LABEL = ""; // the label's facet among those of the attributes, whose names are not empty

const panel = byId("filter");
const groups = byId("facets");
let onChange = () => {};
let asked = {}; // facet -> values chosen in the address

export function whenChosen(change) {
  onChange = change;
}

export const chosenCount = () => Object.values(asked).flat().length;

// `label_values` and `attribute_values` count all values: of many, only the most common are offered.
export function offer({ labels, attributes, label_values: labelCount, attribute_values: counts = {} }) {
  const named = (values) => values.filter(({ value }) => value);
  const facets = Object.entries(attributes);
  if (named(labels).length > 1) facets.unshift([LABEL, labels]);
  const totalOf = (facet) => (facet === LABEL ? labelCount : counts[facet]);
  groups.replaceChildren(...facets.map(([facet, values]) =>
    group(facet, named(values), totalOf(facet) > values.length ? totalOf(facet) : 0)));
  render();
}

export function show(text) {
  asked = parse(text);
  render();
}

function parse(text) {
  try {
    const { label = [], attributes = {} } = JSON.parse(text);
    return Object.fromEntries(Object.entries({ [LABEL]: label, ...attributes })
      .map(([facet, values]) => [facet, [values].flat().map(String)]));
  } catch {
    return {};
  }
}

function format() {
  const facets = [...groups.children].map((one) => [
    one.dataset.facet,
    [...one.querySelectorAll(":checked")].map(({ value }) => value),
  ]).filter(([, values]) => values.length > 0);
  const label = facets.find(([facet]) => facet === LABEL)?.[1];
  const attributes = facets.filter(([facet]) => facet !== LABEL);
  if (facets.length === 0) return "";
  return JSON.stringify({
    ...(label && { label }),
    ...(attributes.length > 0 && { attributes: Object.fromEntries(attributes) }),
  });
}

function group(facet, values, total = 0) {
  const rest = total ? `The ${values.length} most common of ${total.toLocaleString("en")} are shown.` : "";
  const made = element("fieldset", {},
    element("legend", { textContent: facet || "Label" }),
    element("div", { className: "chips" }, ...values.map(chip)),
    ...(rest ? [element("p", { className: "hint", textContent: rest })] : []));
  made.dataset.facet = facet;
  return made;
}

function chip({ value, count }) {
  return element("label", { className: "chip" },
    element("input", { type: "checkbox", value }),
    element("span", { textContent: value }),
    ...(count === undefined ? [] : [" ", element("small", { textContent: count })]));
}

function render() {
  for (const [facet, values] of Object.entries(asked)) values.forEach((value) => include(facet, value));
  for (const one of groups.children) {
    const values = asked[one.dataset.facet] ?? [];
    for (const box of one.querySelectorAll("input")) box.checked = values.includes(box.value);
  }
  const chosen = Object.values(asked).flat();
  byId("filter-summary").textContent = summary(chosen);
  byId("filter-clear").hidden = chosen.length === 0;
  panel.hidden = groups.childElementCount === 0;
}

// A linked filter may name what is too rare to be offered.
function include(facet, value) {
  let one = [...groups.children].find(({ dataset }) => dataset.facet === facet);
  if (!one) groups.append(one = group(facet, []));
  const known = [...one.querySelectorAll("input")].some((box) => box.value === value);
  if (!known) one.querySelector(".chips").append(chip({ value }));
}

function summary(chosen) {
  if (chosen.length === 0) return "Filter";
  return chosen.length === 1 ? `Filter: ${chosen[0]}` : `Filter: ${chosen.length} chosen`;
}

groups.addEventListener("change", () => onChange(format()));
for (const id of ["filter-clear", "empty-clear"]) {
  byId(id).addEventListener("click", () => {
    byId("filter-summary").focus();
    onChange("");
  });
}
panel.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !panel.open) return;
  event.preventDefault(); // the choices around it stay open
  panel.open = false;
  byId("filter-summary").focus();
});
addEventListener("click", ({ target }) => {
  if (!panel.contains(target)) panel.open = false;
});
