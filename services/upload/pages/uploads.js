// The images a person gave: each under a short id that the address names.

import { Problem } from "./api.js";
import { limits } from "./limits.js";
import * as store from "./store.js";

const ID_BYTES = 6;
const kept = new Map();

export const maxAtOnce = () => limits().max_batch_images;

export function keep(file) {
  const id = newId();
  const name = file.name || "pasted image";
  remember(id, file, name);
  store.put(id, file, name);
  return id;
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(ID_BYTES));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function remember(id, content, name) {
  const upload = { id, content, name, address: URL.createObjectURL(content) };
  kept.set(id, upload);
  return upload;
}

export async function find(id) {
  const upload = kept.get(id);
  if (upload) return upload;
  const stored = await store.get(id);
  if (stored) return remember(id, stored.content, stored.name);
  throw new Problem({ code: "upload_gone" });
}

export const tooManyPixels = ({ width, height }) => width * height > limits().image_max_pixels;

export function tooLarge({ content, name }) {
  if (content.size <= limits().image_max_bytes) return null;
  return Object.assign(new Problem({ code: "image_too_large" }), { file: name, size: content.size });
}

// Photographs of a phone can be more than one request may hold.
export function inRequests(uploads) {
  const requests = [];
  let left = 0;
  for (const upload of uploads) {
    if (requests.length === 0 || upload.content.size > left) {
      requests.push([]);
      left = limits().batch_max_bytes;
    }
    requests.at(-1).push(upload);
    left -= upload.content.size;
  }
  return requests;
}
