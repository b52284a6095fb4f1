// Where this Simile is: its pages and its API may be behind the path prefix of a proxy.

export const BASE = new URL("..", import.meta.url).pathname;

const part = encodeURIComponent;
const SMALL = 320;
const SIZES = [SMALL, 640, 1280];
const LARGE = [1280, 2048];

export const api = (path) => `${BASE}v1/${path}`;
export const itemOf = (collection, id) => api(`items/${part(collection)}/${part(id)}`);
export const collectionOf = (name) => api(`collections/${part(name)}`);
export const imageOf = (collection, id) => `${itemOf(collection, id)}/image`;
export const thumbnailOf = (collection, id, size = SMALL) =>
  `${itemOf(collection, id)}/thumbnail?size=${size}`;

// `sizes` says how wide a picture is on the screen; the browser chooses by that and by the screen's density.
// The largest thumbnail that certainly has no more pixels than these.
export const sizeWithin = (pixels) => SIZES.findLast((size) => size * size <= pixels) ?? SMALL;

export const thumbnailSources = (collection, id, sizes) => ({
  src: thumbnailOf(collection, id),
  srcset: SIZES.map((size) => `${thumbnailOf(collection, id, size)} ${size}w`).join(", "),
  sizes,
});

// As large as this screen shows; an <img> with a srcset would stretch a small image over all of it.
export function largeOf(collection, id) {
  const wanted = Math.max(innerWidth, innerHeight) * devicePixelRatio;
  return thumbnailOf(collection, id, LARGE.find((size) => size >= wanted) ?? LARGE.at(-1));
}
