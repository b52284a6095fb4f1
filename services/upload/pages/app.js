// The page's course: what is asked, what the address says, and what is shown next.

import * as address from "./address.js";
import * as api from "./api.js";
import * as batch from "./batch.js";
import * as building from "./building.js";
import { byId, plural } from "./elements.js";
import * as filter from "./filter.js";
import * as query from "./query.js";
import * as signIn from "./sign_in.js";
import * as uploads from "./uploads.js";
import * as view from "./view.js";

const STRIP = 24;
const NEAR_DUPLICATE = "0.25"; // angular distance
const k = byId("k");
const collection = byId("collection");
const collapse = byId("collapse");
let running = new AbortController();
let entered = ""; // the collection whose strip and facets are shown
let answered = ""; // the image whose neighbours are shown
let pages = { ask: null, cursor: null };
let listed = []; // the collections as they were when last asked

const chosen = () => ({
  ...address.choicesOf(address.read()), collection: collection.value, k: k.value,
});
const linkTo = (next) => address.of({ ...chosen(), ...next });

function go(next) {
  history.pushState(null, "", address.of(next));
  return show();
}

const rechoose = (change) => go({ ...address.read(), ...chosen(), ...change });

async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = address.read();
  followChoices(asked);
  if (!followBuild()) return;
  try {
    await Promise.all([enter(collection.value), showAsked(asked, signal)]);
  } catch (error) {
    if (signal.aborted) return;
    answered = "";
    showFailure(error);
  }
}

function showFailure(error) {
  if (error.code === "unauthenticated") signIn.ask();
  else view.showProblem(problemOf(error));
}

function followChoices(asked) {
  follow(k, asked.k);
  follow(collection, asked.collection);
  collapse.checked = Boolean(asked.collapse);
  filter.show(asked.filter);
  view.linkStrip(linkTo);
}

function follow(select, value) {
  if ([...select.options].some((option) => option.value === value)) select.value = value;
}

async function enter(name) {
  if (name === entered) return;
  const [{ items }, facets] = await Promise.all([api.sample(name, STRIP), api.facets(name)]);
  if (name !== collection.value) return;
  entered = name;
  view.showStrip(items);
  view.linkStrip(linkTo);
  filter.offer(facets);
}

function problemOf(error) {
  if (error instanceof api.Problem) return error;
  return { title: "The page has a fault", detail: String(error), code: "page" };
}

async function showAsked(asked, signal) {
  if (asked.item || asked.upload) return showSearch(asked, signal);
  answered = "";
  return asked.batch ? showBatch(asked, signal) : view.showStart();
}

async function showSearch(asked, signal) {
  const { picture, ask } = asked.item ? ofItem(asked, signal) : ofUpload(asked, signal);
  const image = [asked.collection, asked.item, asked.upload].join("/");
  view.showWaiting(Number(k.value), image === answered);
  answered = image;
  const showPicture = async () => {
    const shown = await picture;
    if (!signal.aborted) query.show({ ...shown, box: asked.box });
  };
  const [answer] = await Promise.all([ask(), showPicture()]);
  if (signal.aborted) return;
  pages = { ask, cursor: answer.next_cursor };
  view.showAnswer(answer, Boolean(asked.filter), linkTo);
}

function parametersOf({ collection: name = collection.value, collapse, filter, box }) {
  return { collection: name, k: k.value, collapse, filter, box };
}

function ofItem(asked, signal) {
  const { collection: name, box, ...choices } = parametersOf(asked);
  const item = api.item(name, asked.item);
  const byItem = (cursor) => api.similar(name, asked.item, { ...choices, cursor }, signal);
  const byPart = async (cursor) => {
    const image = await sendable(await item, signal);
    return api.search(image, { collection: name, box, ...choices, cursor }, signal);
  };
  return {
    picture: item.then(({ image_url, thumbnail_url, label }) => (
      { address: image_url, copy: thumbnail_url, name: label || asked.item })),
    ask: box ? byPart : byItem,
  };
}

// A collection may hold larger images than may be sent: then the thumbnail is.
async function sendable(item, signal) {
  if (uploads.tooManyPixels(item)) return api.image(item.thumbnail_url, signal);
  const image = await api.image(item.image_url, signal);
  return uploads.tooLarge({ content: image }) ? api.image(item.thumbnail_url, signal) : image;
}

function ofUpload(asked, signal) {
  const upload = uploads.find(asked.upload);
  const problem = uploads.tooLarge(upload);
  if (problem) throw problem;
  return {
    picture: upload,
    ask: (cursor) => api.search(upload.content, { ...parametersOf(asked), cursor }, signal),
  };
}

async function showMore() {
  const { signal } = running;
  view.showMoreWaiting();
  try {
    const answer = await pages.ask(pages.cursor);
    if (signal.aborted) return;
    pages.cursor = answer.next_cursor;
    view.addAnswer(answer, Boolean(address.read().filter), linkTo);
  } catch (error) {
    if (!signal.aborted) showMoreProblem(problemOf(error));
  }
}

function showMoreProblem(problem) {
  if (problem.code !== "cursor_expired") {
    view.showMoreProblem(problem, "Try again");
    return;
  }
  pages.cursor = null;
  view.showMoreProblem({
    title: "The collection has changed meanwhile",
    detail: "What comes next can only be found by a new search.",
    code: problem.code,
  }, "Start again");
}

async function showBatch(asked, signal) {
  const given = asked.batch.split(",").map((id) => uploads.find(id));
  view.showBatch();
  view.announce(`Searching by ${plural(given.length, "image")}…`);
  batch.showRows(given, linkTo);
  let failed = 0;
  const showOutcome = (upload, outcome) => {
    failed += outcome.problem ? 1 : 0;
    batch.showOutcome(given.indexOf(upload), outcome, linkTo);
  };
  for (const upload of given.filter(uploads.tooLarge)) {
    showOutcome(upload, { problem: uploads.tooLarge(upload) });
  }
  for (const request of uploads.inRequests(given.filter((upload) => !uploads.tooLarge(upload)))) {
    const images = request.map(({ content }) => content);
    const { results } = await api.searchBatch(images, parametersOf(asked), signal);
    if (signal.aborted) return;
    request.forEach((upload, place) => showOutcome(upload, results[place]));
  }
  view.announce(batchTold(given.length, failed, Number(asked.given)));
  view.focusBatch();
}

function batchTold(count, failed, given) {
  const sentences = [`Searched by ${plural(count - failed, "image")}.`];
  if (failed) sentences.push(`${failed} could not be.`);
  if (given > count) sentences.push(`Of the ${given} given, only the first ${count} were taken: no more go at once.`);
  return sentences.join(" ");
}

function take(files) {
  const taken = [...files].slice(0, uploads.mostAtOnce()).map((file) => uploads.keep(file));
  if (taken.length === 1) go({ ...chosen(), upload: taken[0] });
  else if (taken.length > 1) go({ ...chosen(), batch: taken.join(","), given: files.length });
}

for (const id of ["file", "photo"]) {
  byId(id).addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = "";
  });
}
addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files);
});
addEventListener("popstate", show);
addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/?'], #home");
  if (!link || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  show();
  scrollTo({ top: 0 });
});
k.addEventListener("change", () => rechoose({ k: k.value }));
collapse.addEventListener("change", () =>
  rechoose({ collapse: collapse.checked ? NEAR_DUPLICATE : "" }));
collection.addEventListener("change", () => {
  // An item and a filter belong to their collection; an uploaded image can be asked of another.
  const { item, box, ...asked } = address.read();
  go({ ...asked, ...chosen(), filter: "", box: item ? "" : box });
});
filter.whenChosen((text) => rechoose({ filter: text }));
query.whenChosen((text) => rechoose({ box: text }));
byId("choices").addEventListener("submit", (event) => event.preventDefault());
byId("more-button").addEventListener("click", () => {
  if (pages.cursor) {
    showMore();
    return;
  }
  scrollTo({ top: 0 });
  show();
});

const named = (name) => listed.find((one) => one.name === name);

function adopt(known) {
  listed = known.collections;
  const wanted = collection.value || address.read().collection || known.default_collection;
  view.showChoices(listed, wanted);
}

// Shows the build of the chosen collection, if there is one; false while nothing can be searched.
function followBuild() {
  const current = named(collection.value);
  if (building.usable(current) && !current.building) building.hide();
  else {
    building.show(current);
    building.lookAgain(lookedAgain);
  }
  return building.usable(current);
}

async function lookedAgain(known) {
  if (known === null) return signIn.ask();
  const before = named(collection.value);
  adopt(known);
  const now = named(collection.value);
  if (!followBuild() || now.index_version === before?.index_version) return undefined;
  entered = "";
  if (building.usable(before)) return enter(now.name).catch(showFailure); // the screen stays as it is
  await show();
  if (!address.read().item) view.announce("Your collection is ready.");
  return undefined;
}

async function start() {
  try {
    const known = await api.collections();
    uploads.limitTo(known.limits);
    view.showLimits(known.limits);
    adopt(known);
    await show();
  } catch (error) {
    showFailure(error);
  }
}

signIn.whenSignedIn(start);
start();
