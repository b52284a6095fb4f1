// The page's course: what is asked, what the address says, and what is shown next.

import * as address from "./address.js";
import * as api from "./api.js";
import * as building from "./building.js";
import { byId } from "./elements.js";
import * as filter from "./filter.js";
import { whenGiven } from "./given.js";
import * as lightbox from "./lightbox.js";
import { limitTo } from "./limits.js";
import * as options from "./options.js";
import * as query from "./query.js";
import * as question from "./question.js";
import { showBatch } from "./several.js";
import * as signIn from "./sign_in.js";
import * as store from "./store.js";
import * as uploads from "./uploads.js";
import * as view from "./view.js";

const STRIP = 24;
const NEAR_DUPLICATE = "0.25"; // angular distance
const k = byId("k");
const collection = byId("collection");
const collapse = byId("collapse");
let running = new AbortController();
let entered = ""; // the collection whose strip and facets are shown
let settled = null; // what is on the screen, by its address, and how to bring it back
let searching = false;
let returning = false; // Back was pressed by the page, not by a person
let pages = { ask: null, cursor: null };
let listed = []; // the collections as they were when last asked

const chosen = () => ({
  ...address.choicesOf(address.read()), collection: collection.value, k: k.value,
});
const linkTo = (next) => address.of({ ...chosen(), ...next });
const viewOf = (item) => address.of({ ...address.read(), view: item });

function go(next) {
  history.pushState(null, "", address.of(next));
  return show({ pushed: true });
}

const rechoose = (change) => go({ ...address.read(), ...chosen(), ...change, view: "" });

// pushed: the address is new, so that Back leads to what is on the screen now.
async function show({ pushed = false, again = false } = {}) {
  const asked = address.read();
  if (!asked.view) lightbox.hide();
  if (!again && settled?.question === address.questionOf(asked)) return comeBack(asked);
  searching = true;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  followChoices(asked);
  if (!followBuild()) return undefined;
  try {
    await Promise.all([enter(collection.value), showAsked(asked, signal)]);
    if (signal.aborted) return undefined;
    settle(asked);
    return await showEnlarged(asked);
  } catch (error) {
    return signal.aborted ? undefined : showFailure(error, asked, pushed);
  }
}

// What is asked is on the screen, or was until another search began that is not over.
function comeBack(asked) {
  if (searching) {
    searching = false;
    running.abort();
    settled.restore();
  }
  followChoices(asked);
  return showEnlarged(asked);
}

function settle(asked) {
  searching = false;
  const restores = [view.keep(), query.keep()];
  settled = {
    question: address.questionOf(asked),
    restore: () => restores.forEach((restore) => restore()),
  };
}

function showFailure(error, asked = address.read(), pushed = false) {
  searching = false;
  if (error.code === "unauthenticated") {
    settled = null;
    signIn.ask();
    return;
  }
  const earlier = pushed && settled;
  if (earlier) {
    settled.restore();
    returning = true;
    history.back();
  } else {
    settled = null;
    view.hideResults();
  }
  const retry = () => (earlier ? go(asked) : show({ again: true }));
  view.showProblem(problemOf(error), retry, Boolean(earlier));
}

const problemOf = (error) =>
  (error instanceof api.Problem ? error : new api.Problem({ code: "page", detail: String(error) }));

function followChoices(asked) {
  follow(k, asked.k);
  follow(collection, asked.collection);
  collapse.checked = Boolean(asked.collapse);
  filter.show(asked.filter);
  options.show(filter.chosenCount() + (asked.collapse ? 1 : 0));
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
  view.showStrip(name, items);
  view.linkStrip(linkTo);
  filter.offer(facets);
}

async function showAsked(asked, signal) {
  if (asked.item || asked.upload || asked.url) return showSearch(asked, signal);
  return asked.batch ? showBatch(asked, parameters(asked), linkTo, signal) : view.showStart();
}

async function showSearch(asked, signal) {
  view.showWaiting(Number(k.value));
  const { picture, ask } = await question.of(asked, parameters(asked), signal);
  const showPicture = async () => {
    const shown = await picture;
    if (!signal.aborted) query.show({ ...shown, box: asked.box });
  };
  const [answer] = await Promise.all([ask(), showPicture()]);
  if (signal.aborted) return;
  pages = { ask, cursor: answer.next_cursor };
  view.showAnswer(answer, context(asked));
}

const context = (asked) => ({ filtered: Boolean(asked.filter), linkTo, viewOf });
const parameters = ({ collection: name = collection.value, collapse: fold, filter: passing, box }) =>
  ({ collection: name, k: k.value, collapse: fold, filter: passing, box });

async function showEnlarged({ view: wanted, collection: name = collection.value }) {
  if (!wanted) return;
  const neighbors = view.neighbors();
  const found = neighbors.find((one) => one.item_id === wanted);
  try {
    const item = found ?? await api.item(name, wanted);
    lightbox.show(item, neighbors, name, linkTo({ item: wanted }));
  } catch (error) {
    view.showProblem(problemOf(error), () => show({ again: true }), true);
  }
}

async function showMore() {
  const { signal } = running;
  view.showMoreWaiting();
  try {
    const answer = await pages.ask(pages.cursor);
    if (signal.aborted) return;
    pages.cursor = answer.next_cursor;
    view.addAnswer(answer, context(address.read()));
    settle(address.read());
  } catch (error) {
    if (!signal.aborted) showMoreProblem(problemOf(error));
  }
}

function showMoreProblem(problem) {
  const expired = problem.code === "cursor_expired";
  if (expired) pages.cursor = null;
  view.showMoreProblem(problem, expired ? "Start again" : "Try again");
}

function take(files) {
  const taken = [...files].slice(0, uploads.maxAtOnce()).map((file) => uploads.keep(file));
  if (taken.length === 1) go({ ...chosen(), upload: taken[0] });
  else if (taken.length > 1) go({ ...chosen(), batch: taken.join(","), given: files.length });
}

whenGiven({
  onFiles: take,
  onAddress: (url) => go({ ...chosen(), url }),
  onLink: (url) => openLink(url),
  onNothing: () => view.showProblem(new api.Problem({ code: "no_image_given" }), null, true),
});

function openLink(href, { enlarged = false } = {}) {
  history.pushState(enlarged ? { enlarged } : null, "", href);
  show({ pushed: true });
  if (!enlarged) scrollTo({ top: 0 });
}

addEventListener("popstate", () => {
  if (!returning) {
    show();
    return;
  }
  returning = false;
  history.replaceState(history.state, "", settled.question);
  followChoices(address.read());
});
addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || link.download || !address.isOwn(link)) return;
  if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  openLink(link.href, { enlarged: Boolean(link.dataset.view) });
});
lightbox.whenWished({
  move: (item) => {
    history.replaceState(history.state, "", viewOf(item));
    show();
  },
  close: () => {
    const asked = address.read();
    if (!asked.view) return;
    if (history.state?.enlarged) history.back();
    else history.replaceState(null, "", address.of({ ...asked, view: "" }));
  },
});
k.addEventListener("change", () => rechoose({ k: k.value }));
collapse.addEventListener("change", () =>
  rechoose({ collapse: collapse.checked ? NEAR_DUPLICATE : "" }));
collection.addEventListener("change", () => {
  // An item and a filter belong to their collection; an uploaded image can be asked of another.
  const { item, box, view: enlarged, ...asked } = address.read();
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
  show({ again: true });
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
  await show({ again: true });
  if (!address.read().item) view.announce("Your collection is ready.");
  return undefined;
}

async function start() {
  store.prune();
  try {
    const known = await api.collections();
    limitTo(known.limits);
    view.showLimits();
    adopt(known);
    await show({ again: true });
  } catch (error) {
    showFailure(error);
  }
}

signIn.whenSignedIn(start);
start();
