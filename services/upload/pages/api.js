// The HTTP API as the page uses it; every failure becomes a Problem with a stable code.

import * as paths from "./paths.js";

export class Problem extends Error {
  constructor({ title = "", detail = "", code, retryAfter = null }) {
    super(detail);
    Object.assign(this, { title, detail, code, retryAfter });
  }
}

async function reach(path, options) {
  try {
    const answer = await fetch(path, options);
    if (answer.ok) return answer;
    throw await problemOf(answer);
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem({ code: "unreachable" });
  }
}

async function problemOf(answer) {
  const body = await answer.json().catch(() => ({}));
  return new Problem({
    title: body.title ?? `The server answered ${answer.status}`,
    detail: body.detail ?? "Try again in a moment.",
    code: body.code ?? `http_${answer.status}`,
    retryAfter: answer.headers.get("Retry-After"),
  });
}

const ask = async (path, options) => (await reach(path, options)).json();
const given = (parameters) => Object.entries(parameters).filter(([, value]) => value);
const query = (parameters) => new URLSearchParams(given(parameters));

function formOf(parameters, images = []) {
  const form = new FormData();
  for (const [name, value] of given(parameters)) form.append(name, value);
  for (const image of images) form.append("image", image);
  return form;
}

const sent = (image, signal) => ({
  method: "POST",
  body: image,
  headers: { "Content-Type": image.type || "application/octet-stream" },
  signal,
});

export const signIn = (key) => reach(paths.api("session"), {
  method: "POST",
  body: JSON.stringify({ key }),
  headers: { "Content-Type": "application/json" },
});
export const signOut = () => reach(paths.api("session"), { method: "DELETE" });
export const collections = () => ask(paths.api("collections"));
export const status = () => ask(paths.api("status"));
export const facets = (collection) => ask(`${paths.collectionOf(collection)}/facets`);
export const sample = (collection, count) =>
  ask(`${paths.collectionOf(collection)}/sample?count=${count}`);
export const item = (collection, id) => ask(paths.itemOf(collection, id));
export const image = async (path, signal) => (await reach(path, { signal })).blob();
export const preview = async (image) => (await reach(paths.api("preview"), sent(image))).blob();
export const similar = (collection, id, parameters, signal) =>
  ask(`${paths.itemOf(collection, id)}/similar?${query(parameters)}`, { signal });

export const search = (image, parameters, signal) =>
  ask(`${paths.api("search")}?${query(parameters)}`, sent(image, signal));

export const searchByAddress = (address, parameters, signal) =>
  ask(paths.api("search"), { method: "POST", body: formOf({ ...parameters, image_url: address }), signal });

export const searchBatch = (images, parameters, signal) =>
  ask(paths.api("search/batch"), { method: "POST", body: formOf(parameters, images), signal });
