// One search: the picture to show as the query, and how to ask for what is like it.

import * as api from "./api.js";
import { titleOf } from "./cards.js";
import { limits } from "./limits.js";
import * as paths from "./paths.js";
import * as uploads from "./uploads.js";

const QUERY_PIXELS = 1280;

// Answers with `picture`, what query.show takes, and `ask`, which gets a page of the answer by its cursor.
export function of(asked, parameters, signal) {
  if (asked.item) return ofItem(asked, parameters, signal);
  return asked.upload ? ofUpload(asked, parameters, signal) : ofAddress(asked, parameters, signal);
}

function ofItem(asked, { collection, box, ...choices }, signal) {
  const item = api.item(collection, asked.item);
  const byItem = (cursor) => api.similar(collection, asked.item, { ...choices, cursor }, signal);
  const byPart = async (cursor) => {
    const image = await sendable(collection, await item, signal);
    return api.search(image, { collection, box, ...choices, cursor }, signal);
  };
  return {
    picture: item.then((found) => ({
      address: paths.thumbnailOf(collection, asked.item, QUERY_PIXELS), name: found.path || titleOf(found),
    })),
    ask: box ? byPart : byItem,
  };
}

// A collection may hold larger images than may be sent: then a thumbnail is.
async function sendable(collection, item, signal) {
  const small = paths.thumbnailOf(collection, item.item_id, paths.sizeWithin(limits().image_max_pixels));
  if (uploads.tooManyPixels(item)) return api.image(small, signal);
  const image = await api.image(paths.imageOf(collection, item.item_id), signal);
  return uploads.tooLarge({ content: image }) ? api.image(small, signal) : image;
}

async function ofUpload(asked, parameters, signal) {
  const upload = await uploads.find(asked.upload);
  const { content, name } = upload;
  const problem = uploads.tooLarge(upload);
  if (problem) throw problem;
  // Without the signal: a search that fails brings this picture back after its own has ended.
  const fallback = async () => URL.createObjectURL(await api.preview(content));
  return {
    picture: { address: upload.address, name, fallback },
    ask: (cursor) => api.search(content, { ...parameters, cursor }, signal).catch((error) => {
      throw Object.assign(error, { file: name, size: content.size });
    }),
  };
}

function ofAddress({ url }, parameters, signal) {
  return {
    picture: { address: "", name: url },
    ask: (cursor) => api.searchByAddress(url, { ...parameters, cursor }, signal),
  };
}
