// The images a person gave: kept while the page is open, each under the number its address names.

import { Problem } from "./api.js";

const kept = new Map();
let limits = { image_max_bytes: Infinity, image_max_pixels: Infinity, max_batch_images: 16, batch_max_bytes: Infinity };

export function limitTo(given) {
  limits = given;
}

export const mostAtOnce = () => limits.max_batch_images;

export function keep(file) {
  const id = String(kept.size + 1);
  kept.set(id, { id, content: file, name: file.name || "pasted image", address: URL.createObjectURL(file) });
  return id;
}

export function find(id) {
  const upload = kept.get(id);
  if (upload) return upload;
  throw new Problem({
    title: "That image is no longer here",
    detail: "An uploaded image is kept only while the page is open: choose it again.",
    code: "upload_gone",
  });
}

export const tooManyPixels = ({ width, height }) => width * height > limits.image_max_pixels;

export function tooLarge({ content }) {
  if (content.size <= limits.image_max_bytes) return null;
  const megabytes = (content.size / 2 ** 20).toFixed(1);
  return new Problem({
    title: "The image has too many bytes",
    detail: `It has ${megabytes} MB; ${Math.floor(limits.image_max_bytes / 2 ** 20)} MB are accepted: send a smaller one.`,
    code: "image_too_large",
  });
}

// Photographs of a phone can be more than one request may hold.
export function inRequests(uploads) {
  const requests = [];
  let left = 0;
  for (const upload of uploads) {
    if (requests.length === 0 || upload.content.size > left) {
      requests.push([]);
      left = limits.batch_max_bytes;
    }
    requests.at(-1).push(upload);
    left -= upload.content.size;
  }
  return requests;
}
