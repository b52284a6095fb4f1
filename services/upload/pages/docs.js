// The page of the API: shows what openapi.json describes, and finds routes by their words.

import { byId, element } from "./elements.js";
import { curlOf } from "./docs_curl.js";
import { refName, valueOf } from "./docs_schema.js";

const PROBLEM = "application/problem+json";
const ANSWER = "application/json";

// Text in backticks becomes code.
function prose(text = "") {
  return text.split("`").map((part, place) =>
    (place % 2 === 1 ? element("code", { textContent: part }) : part));
}

function field(name, kind, ...meaning) {
  const term = element("dt", {}, element("code", { textContent: name }), element("span", {}, ...kind));
  return meaning.length > 0 ? [term, element("dd", {}, ...meaning)] : [term];
}

function fields(list) {
  return element("dl", { className: "fields" }, ...list.flat());
}

function block(title, ...content) {
  return content.length > 0 ? [element("h3", { textContent: title }), ...content] : [];
}

const preformatted = (text) => element("pre", { textContent: text });
const json = (value) => preformatted(JSON.stringify(value, null, 2));

function resolve(api, found) {
  const name = refName(found);
  const part = found.$ref?.split("/").at(-2);
  return name === null ? found : api.components[part][name];
}

function parameterField(api, parameter) {
  const { name, in: where, required, description, schema } = resolve(api, parameter);
  const needed = required ? ", required" : "";
  return field(name, [`${where}${needed} · `, ...valueOf(schema)], ...prose(description));
}

function propertyFields(schema) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, property]) =>
    field(name, [...valueOf(property), required.has(name) ? "" : ", optional"], ...prose(property.description)));
}

function bodyParts(api, body) {
  if (!body) return [];
  const kinds = Object.entries(body.content).map(([type, { schema }]) => {
    const name = element("code", { textContent: type });
    const form = schema.$ref && api.components.schemas[refName(schema)];
    return [element("p", {}, name, ": ", ...valueOf(schema)), ...(form ? [fields(propertyFields(form))] : [])];
  });
  return block("Body", element("p", {}, ...prose(body.description)), ...kinds.flat());
}

function codeLinks(response) {
  const examples = response.content?.[PROBLEM]?.examples ?? {};
  return Object.keys(examples).flatMap((code, place) => [
    place === 0 ? "" : ", ",
    element("a", { href: `#code-${code}` }, element("code", { textContent: code })),
  ]);
}

function answerField(api, [status, given]) {
  const response = resolve(api, given);
  const kinds = Object.entries(response.content ?? {});
  const codes = codeLinks(response);
  const [type, { schema } = {}] = kinds[0] ?? [];
  const shown = codes.length > 0 ? codes : type ? [`${type} · `, ...valueOf(schema)] : ["no body"];
  return field(status, shown, ...prose(response.description));
}

function operationDetails(api, { method, path, operation }) {
  const success = operation.responses["200"]?.content?.[ANSWER];
  const parameters = (operation.parameters ?? []).map((one) => parameterField(api, one));
  const answers = Object.entries(operation.responses).map((one) => answerField(api, one));
  return element("details", { id: operation.operationId, className: "operation" },
    element("summary", {},
      element("span", { className: "method", textContent: method.toUpperCase() }),
      element("code", { textContent: path }),
      element("span", { textContent: operation.summary })),
    element("div", { className: "body" },
      element("p", {}, ...prose(operation.description)),
      ...(parameters.length > 0 ? block("Parameters", fields(parameters)) : []),
      ...bodyParts(api, operation.requestBody),
      ...block("With curl", preformatted(curlOf(api, method, path, operation, new URL("./", location).href))),
      ...block("Answers", fields(answers)),
      ...(success?.example ? block("Example of an answer", json(success.example)) : [])));
}

function operationsOf(api) {
  return Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method, path, operation })));
}

function showOperations(api) {
  const operations = operationsOf(api);
  byId("operations").append(...api.tags.map(({ name }) => element("section", {},
    element("h2", { textContent: name }),
    ...operations.filter(({ operation }) => operation.tags[0] === name)
      .map((one) => operationDetails(api, one)))));
}

function showErrors(api) {
  const list = Object.values(api.components.responses).flatMap((response) =>
    Object.entries(response.content[PROBLEM].examples).map(([code, { summary, value }]) => {
      const again = response.headers["Retry-After"] ? " · Retry-After" : "";
      const [term, meaning] = field(code, [`${value.status}${again} · ${summary}`], value.detail);
      term.id = `code-${code}`;
      return [term, meaning];
    }));
  byId("codes").append(...list.flat());
  byId("errors").hidden = false;
}

function showSchemas(api) {
  byId("schemas").append(...Object.entries(api.components.schemas).map(([name, schema]) =>
    element("details", { id: `schema-${name}` },
      element("summary", {}, element("code", { textContent: name })),
      element("div", { className: "body" },
        element("p", {}, ...prose(schema.description)),
        ...(schema.properties ? [fields(propertyFields(schema))] : [element("p", {}, ...valueOf(schema))])))));
  byId("schemas").hidden = false;
}

function find() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = [...document.querySelectorAll(".operation")];
  for (const one of all) {
    const text = one.textContent.toLowerCase();
    one.hidden = !words.every((word) => text.includes(word));
  }
  for (const section of byId("operations").children) {
    section.hidden = !section.querySelector(".operation:not([hidden])");
  }
  const left = all.filter((one) => !one.hidden).length;
  byId("found").textContent = words.length > 0 ? `${left} of ${all.length} routes` : "";
}

// A link to a schema or a route opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
}

async function start() {
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
    const api = await answer.json();
    byId("introduction").replaceChildren(...prose(`${api.info.summary} ${api.info.description}`));
    showOperations(api);
    showErrors(api);
    showSchemas(api);
    openTarget();
    find();
  } catch (error) {
    byId("problem").textContent = `The description of the API can’t be loaded (${error.message}). Reload the page.`;
    byId("problem").hidden = false;
  }
}

byId("find").addEventListener("input", find);
addEventListener("hashchange", openTarget);
start();
