// The HTTP API as the page uses it; every failure becomes a Problem with title, detail and code.

export class Problem extends Error {
  constructor({ title, detail, code, retryAfter }) {
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
    throw new Problem({
      title: "Simile can’t be reached",
      detail: "Check that it is running and that you are connected, then try again.",
      code: "unreachable",
    });
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
const part = encodeURIComponent;
const given = (parameters) => Object.entries(parameters).filter(([, value]) => value);
const query = (parameters) => new URLSearchParams(given(parameters));
const itemPath = (collection, id) => `/v1/items/${part(collection)}/${part(id)}`;

export const signIn = (key) => reach("/v1/session", {
  method: "POST",
  body: JSON.stringify({ key }),
  headers: { "Content-Type": "application/json" },
});
export const signOut = () => reach("/v1/session", { method: "DELETE" });
export const collections = () => ask("/v1/collections");
export const status = () => ask("/v1/status");
export const facets = (collection) => ask(`/v1/collections/${part(collection)}/facets`);
export const sample = (collection, count) =>
  ask(`/v1/collections/${part(collection)}/sample?count=${count}`);
export const item = (collection, id) => ask(itemPath(collection, id));
export const image = async (path, signal) => (await reach(path, { signal })).blob();
export const similar = (collection, id, parameters, signal) =>
  ask(`${itemPath(collection, id)}/similar?${query(parameters)}`, { signal });

export const search = (image, parameters, signal) =>
  ask(`/v1/search?${query(parameters)}`, {
    method: "POST",
    body: image,
    headers: { "Content-Type": image.type || "application/octet-stream" },
    signal,
  });

export function searchBatch(images, parameters, signal) {
  const form = new FormData();
  for (const [name, value] of given(parameters)) form.append(name, value);
  for (const image of images) form.append("image", image);
  return ask("/v1/search/batch", { method: "POST", body: form, signal });
}
