// The HTTP API as the page uses it; every failure becomes a Problem with title, detail and code.

export class Problem extends Error {
  constructor({ title, detail, code, retryAfter }) {
    super(detail);
    Object.assign(this, { title, detail, code, retryAfter });
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "Simile can’t be reached",
      detail: "Check that it is running and that you are connected, then try again.",
      code: "unreachable",
    });
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw new Problem({
    title: body.title ?? `The server answered ${answer.status}`,
    detail: body.detail ?? "Try again in a moment.",
    code: body.code ?? `http_${answer.status}`,
    retryAfter: answer.headers.get("Retry-After"),
  });
}

const part = encodeURIComponent;

export const collections = () => ask("/v1/collections");
export const sample = (collection, count) => ask(`/v1/collections/${part(collection)}/sample?count=${count}`);
export const item = (collection, id) => ask(`/v1/items/${part(collection)}/${part(id)}`);
export const similar = (collection, id, k, signal) =>
  ask(`/v1/items/${part(collection)}/${part(id)}/similar?k=${k}`, { signal });
export const search = (collection, image, k, signal) =>
  ask(`/v1/search?collection=${part(collection)}&k=${k}`, {
    method: "POST",
    body: image,
    headers: { "Content-Type": image.type || "application/octet-stream" },
    signal,
  });
