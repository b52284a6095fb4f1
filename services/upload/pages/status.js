// The status page: asks how this replica is, every few seconds, and shows it.

import * as api from "./api.js";
import { progressOf } from "./building.js";
import { bar, byId, element, problemText } from "./elements.js";
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

// A cell is text, or an element. On a narrow screen each row is a list, and a cell is named by its column.
function fill(id, heads, rows, none) {
  const side = (place) => (place === 0 ? "" : "number");
  const head = row(...heads.map((text, place) =>
    cell("th", text, { scope: "col", role: "columnheader", className: side(place) })));
  const lines = rows.map(([name, ...cells]) => row(
    cell("th", name, { scope: "row", role: "rowheader" }),
    ...cells.map((content, place) => named(heads[place + 1], cell("td", content, { role: "cell", className: "number" })))));
  const empty = row(cell("td", none, { role: "cell", className: "none", colSpan: heads.length }));
  const table = byId(id);
  table.setAttribute("role", "table"); // as a list it would be none to a screen reader
  table.replaceChildren(
    element("thead", { role: "rowgroup" }, head),
    element("tbody", { role: "rowgroup" }, ...(lines.length > 0 ? lines : [empty])));
}

const row = (...cells) => element("tr", { role: "row" }, ...cells);
const cell = (tag, content, properties) => element(tag, properties, content);

function named(name, made) {
  made.dataset.column = name;
  return made;
}

function show(status) {
  showVerdict(status);
  showNumbers(status);
  fill("stages", ["Stage", "Mean", "Half within", "99 % within"], status.stages.map((one) =>
    [one.stage, time(one.mean_ms), time(one.p50_ms), time(one.p99_ms)]), "No answered queries yet");
  fill("queues", ["Queue", "Messages"], Object.entries(status.queues).map(([queue, count]) =>
    [queue, number(count)]), "Not known: the broker is unavailable");
  fill("collections", ["Collection", "State", "Images", "Live recall", "Recall at build", "Promised"],
    status.collections.map((one) => [
      one.name, stateOf(one), number(one.count), liveRecall(status.live_recall[one.name]),
      share(one.recall), share(one.recall_target),
    ]), "There is nothing to search yet");
  fill("versions", ["Collection", "Version", "State", "Images", "Recall", "Built"],
    status.versions.map((one) => [
      one.collection, one.index_version, one.active ? "answers" : "kept", number(one.count),
      share(one.recall), `${since(one.created_unix_ms)} ago`,
    ]), "No version yet");
  byId("board").hidden = false;
  showProblem(null);
}

function stateOf({ index_version: version, building }) {
  if (building === null) return "ready";
  const text = `${version ? "answers, next one" : "first build"}: ${progressOf(building)}`;
  const parts = [text, ...(building.total ? [bar(building.done / building.total)] : [])];
  return element("div", { className: "state" }, ...parts);
}

const liveRecall = (live) =>
  (live ? `${share(live.recall)} of ${number(live.neighbors)}` : "–");

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
