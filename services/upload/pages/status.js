// The status page: asks how this replica is, every few seconds, and shows it.

import * as api from "./api.js";
import { byId, element, problemText } from "./elements.js";
import * as signIn from "./sign_in.js";

const PERIOD_MS = 5000;
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const follow = byId("follow");
let timer = 0;

function age(seconds) {
  const [unit, name] = UNITS.find(([size]) => seconds >= size) ?? UNITS.at(-1);
  return `${Math.max(0, Math.floor(seconds / unit))} ${name}`;
}

const since = (unixMs) => age((Date.now() - unixMs) / 1000);
const number = (value) => value.toLocaleString("en");
const share = (value) => (value === null ? "–" : value.toFixed(4));
const digits = (value) => (value >= 10 || value === 0 ? value.toFixed(0) : value.toPrecision(2));

function time(ms) {
  if (ms === null) return "–";
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${digits(ms)} ms`;
}

// A screen reader announces only changes, not the same text every five seconds.
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function showVerdict({ live, ready, failing, replica, version, started_unix_ms: started, window_seconds: window }) {
  setText("status", ready ? "Ready" : live ? "Not ready" : "Stuck: only a restart helps");
  byId("verdict").classList.toggle("failing", !ready);
  byId("reasons").replaceChildren(...Object.entries(failing).map(([name, reason]) =>
    element("li", { textContent: `${name}: ${reason}` })));
  byId("reasons").hidden = ready;
  byId("facts").textContent = `Replica ${replica} · version ${version} · up for ${since(started)}`
    + ` · numbers of the last ${age(window)}`;
}

function figure(name, value, note = "", wrong = false) {
  const definition = element("dd", { textContent: value, className: wrong ? "wrong" : "" });
  if (note) definition.append(element("small", { textContent: note }));
  return element("div", {}, element("dt", { textContent: name }), definition);
}

function showNumbers({ queries, canary }) {
  const { by_code: codes, in_flight: flying, in_flight_limit: limit } = queries;
  byId("numbers").replaceChildren(
    figure("Queries", `${digits(queries.per_second)}/s`),
    figure("Half within", time(queries.p50_ms)),
    figure("99 % within", time(queries.p99_ms)),
    figure("In flight", number(flying), `of ${number(limit)}`),
    canaryFigure(canary));
  fill("codes", ["Outcome", "Queries", "Share"], Object.entries(codes).map(([code, count]) =>
    [code, number(count), `${(100 * count / sum(Object.values(codes))).toFixed(1)} %`]),
  "No queries yet");
}

function canaryFigure({ by_code: codes, success_unix_ms: success }) {
  const { ok = 0, ...failed } = codes;
  const names = Object.keys(failed);
  const last = success === null ? "none was answered yet" : `the last ${since(success)} ago`;
  if (names.length > 0) {
    return figure("Canaries", `${sum(Object.values(failed))} failed`, `${names.join(", ")}; right: ${last}`, true);
  }
  return figure("Canaries", ok > 0 ? `${ok} right` : "–", last);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function fill(id, heads, rows, none) {
  const side = (place) => (place === 0 ? "" : "number");
  const head = element("tr", {}, ...heads.map((text, place) =>
    element("th", { textContent: text, scope: "col", className: side(place) })));
  const lines = rows.map(([name, ...cells]) => element("tr", {},
    element("th", { textContent: name, scope: "row" }),
    ...cells.map((text) => element("td", { textContent: text, className: "number" }))));
  const empty = element("tr", {}, element("td", { textContent: none, className: "none", colSpan: heads.length }));
  byId(id).replaceChildren(
    element("thead", {}, head), element("tbody", {}, ...(lines.length > 0 ? lines : [empty])));
}

function show(status) {
  showVerdict(status);
  showNumbers(status);
  fill("stages", ["Stage", "Mean", "Half within", "99 % within"], status.stages.map((one) =>
    [one.stage, time(one.mean_ms), time(one.p50_ms), time(one.p99_ms)]), "No answered queries yet");
  fill("queues", ["Queue", "Messages"], Object.entries(status.queues).map(([queue, count]) =>
    [queue, number(count)]), "Not known: the broker is unavailable");
  fill("collections", ["Collection", "Images", "Recall", "Promised", "Built", "Index version"],
    status.collections.map((one) => [
      one.name, number(one.count), share(one.recall), share(one.recall_target),
      one.created_unix_ms === null ? "–" : `${since(one.created_unix_ms)} ago`,
      one.building === null ? one.index_version : `${one.index_version ?? "none"}, another is being built`,
    ]), "There is nothing to search yet");
  byId("board").hidden = false;
  showProblem(null);
}

function showProblem(problem) {
  const box = byId("problem");
  box.hidden = problem === null;
  const parts = problem === null ? [] : problemText(problem);
  const text = parts.map((part) => part.textContent).join("");
  if (box.textContent !== text) box.replaceChildren(...parts);
}

async function refresh() {
  clearTimeout(timer);
  try {
    show(await api.status());
  } catch (error) {
    if (error.code === "unauthenticated") return signIn.ask();
    if (error.code === "forbidden") return signIn.ask(error);
    byId("board").hidden = true;
    showProblem(error instanceof api.Problem ? error
      : { title: "The page has a fault", detail: String(error), code: "page" });
  }
  again();
}

function again() {
  clearTimeout(timer);
  if (follow.checked && !document.hidden) timer = setTimeout(refresh, PERIOD_MS);
}

follow.addEventListener("change", () => (follow.checked ? refresh() : again()));
document.addEventListener("visibilitychange", () => {
  if (follow.checked && !document.hidden) refresh();
});
byId("choices").addEventListener("submit", (event) => event.preventDefault());
signIn.whenSignedIn(refresh);
refresh();
