// The page's course: what is asked, what the address says, and what is shown next.

import * as api from "./api.js";
import * as view from "./view.js";

const STRIP = 24;
const k = document.getElementById("k");
const collection = document.getElementById("collection");
// Uploaded images live as long as this page; the address names them for Back and Forward.
const uploads = new Map();
let limits = { image_max_bytes: Infinity, formats: [] };
let running = new AbortController();

const addressOf = (state) => `/?${new URLSearchParams(state)}`;
const state = () => Object.fromEntries(new URLSearchParams(location.search));
const chosen = () => ({ collection: collection.value, k: k.value });

function go(next) {
  history.pushState(null, "", addressOf(next));
  return show();
}

async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = state();
  if (asked.k && [...k.options].some((option) => option.value === asked.k)) k.value = asked.k;
  const named = asked.collection && asked.collection !== collection.value;
  if (named && [...collection.options].some((option) => option.value === asked.collection)) {
    collection.value = asked.collection;
    showStrip();
  }
  try {
    if (asked.item) await showItem(asked, signal);
    else if (asked.upload) await showUpload(asked, signal);
    else view.showStart();
  } catch (error) {
    if (error.name !== "AbortError") view.showProblem(problemOf(error));
  }
}

function problemOf(error) {
  if (error instanceof api.Problem) return error;
  return { title: "The page has a fault", detail: String(error), code: "page" };
}

async function showItem({ item: id, collection: name = collection.value }, signal) {
  view.showWaiting(Number(k.value));
  const [item, answer] = await Promise.all([api.item(name, id), api.similar(name, id, k.value, signal)]);
  if (signal.aborted) return;
  view.showQuery(item.image_url, item.label || id);
  showAnswer(answer);
}

async function showUpload({ upload }, signal) {
  const file = uploads.get(upload);
  if (!file) {
    throw new api.Problem({
      title: "That image is no longer here",
      detail: "An uploaded image is kept only while the page is open: choose it again.",
      code: "upload_gone",
    });
  }
  if (file.size > limits.image_max_bytes) {
    throw new api.Problem({
      title: "The image has too many bytes",
      detail: `It has ${(file.size / 2 ** 20).toFixed(1)} MB; ${Math.floor(limits.image_max_bytes / 2 ** 20)} MB are accepted: send a smaller one.`,
      code: "image_too_large",
    });
  }
  view.showQuery(file.address, file.name);
  view.showWaiting(Number(k.value));
  const answer = await api.search(collection.value, file.content, k.value, signal);
  if (!signal.aborted) showAnswer(answer);
}

function showAnswer(answer) {
  view.showAnswer(answer, ({ item_id: item }) =>
    addressOf({ collection: answer.collection, k: k.value, item }));
}

async function showStrip() {
  if (!collection.value) return view.showStrip([], addressOf);
  const { collection: name, items } = await api.sample(collection.value, STRIP);
  view.showStrip(items, ({ item_id: item }) => addressOf({ collection: name, k: k.value, item }));
}

function take(file) {
  if (!file) return;
  const upload = String(uploads.size + 1);
  uploads.set(upload, {
    content: file, size: file.size, name: file.name || "pasted image", address: URL.createObjectURL(file),
  });
  go({ ...chosen(), upload });
}

for (const id of ["file", "photo"]) {
  document.getElementById(id).addEventListener("change", ({ target }) => {
    take(target.files[0]);
    target.value = "";
  });
}
addEventListener("paste", ({ clipboardData }) => take(clipboardData.files[0]));
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
  take(event.dataTransfer.files[0]);
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
collection.addEventListener("change", () => {
  showStrip().catch((error) => view.showProblem(problemOf(error)));
  // An item belongs to its collection; an uploaded image can be asked of another.
  const { upload } = state();
  go(upload ? { ...chosen(), upload } : chosen());
});
document.getElementById("choices").addEventListener("submit", (event) => event.preventDefault());

function rechoose(change) {
  const now = state();
  if (now.item || now.upload) go({ ...now, ...change });
}

async function start() {
  try {
    const known = await api.collections();
    limits = known.limits;
    view.showLimits(limits);
    view.showChoices(known.collections, state().collection);
    if (known.collections.length === 0) {
      throw new api.Problem({
        title: "There is nothing to search yet",
        detail: "Build an index of your images with: simile index build FOLDER",
        code: "no_index",
      });
    }
    await Promise.all([show(), showStrip()]);
  } catch (error) {
    view.showProblem(problemOf(error));
  }
}

start();
