// A problem in words for the person on the page: what is wrong, and what to do next, by its stable code.

import { formatNames, limits, megabytes, megapixels } from "./limits.js";

const SMALLER = "Save a smaller copy and choose that.";
const ANOTHER = "Open it in an image program, save it as JPEG, and choose the copy.";
const OPERATOR = "If it stays so, ask whoever runs this Simile.";
const SOON = "Try again in a moment.";
const BY_HAND = "Save the image and drop the file here, or copy the image itself and paste it.";

// code -> [title, what to do]; `it` names the image.
const SENTENCES = {
  empty_image: ({ it }) => [`${it} is empty`, "The file has no content. Choose another one."],
  image_too_large: ({ it, size }) => [`${it} is too large`, `${size ? `It has ${megabytes(size)}; ` : ""}${
    megabytes(limits().image_max_bytes)} are accepted. ${SMALLER}`],
  too_many_pixels: ({ it, pixels }) => [`${it} has too many pixels`, `${pixels ? `It has ${megapixels(pixels)}; ` : ""}${
    megapixels(limits().image_max_pixels)} are accepted. ${SMALLER}`],
  unsupported_format: ({ it }) => [`${it} isn’t an image that can be read here`,
    `Choose one of these formats: ${formatNames()}.`],
  unsupported_coding: ({ it }) => [`${it} did not arrive as it is`, "Something between this page and Simile compresses it. " + OPERATOR],
  undecodable_image: ({ it }) => [`${it} is damaged`, `Part of the file is missing or broken. ${ANOTHER}`],
  decoding_too_slow: ({ it }) => [`${it} takes too long to read`, ANOTHER],
  decoder_crashed: ({ it }) => [`${it} can’t be read`, ANOTHER],
  image_quarantined: ({ it }) => [`${it} can’t be read`, ANOTHER],
  extreme_aspect: ({ it }) => [`${it} is too long and narrow`, "Crop it to the part that you look for."],
  box_too_small: () => ["That part is too small", "It holds too few pixels to compare. Draw a larger box."],
  url_not_allowed: () => ["That image is on another site", `This Simile doesn’t fetch it from there. ${BY_HAND}`],
  url_unreachable: () => ["That image can’t be fetched", `The other site doesn’t answer with an image. ${BY_HAND}`],
  no_image_given: () => ["There is no image in that", BY_HAND],
  upload_gone: () => ["That image is no longer here",
    "An image that you choose is kept for a day, in this browser alone. Choose it again."],
  body_timeout: ({ it }) => [`${it} took too long to arrive`, "Your connection is slow or was interrupted. Try again, or choose a smaller image."],
  rate_limited: () => ["Too many searches in a short time", SOON],
  overloaded: () => ["Many people are searching right now", SOON],
  deadline_exceeded: () => ["The search took too long", SOON],
  shutting_down: () => ["Simile is restarting", SOON],
  broker_unavailable: () => ["The search isn’t working right now", `${SOON} ${OPERATOR}`],
  unroutable: () => ["The search isn’t working right now", `${SOON} ${OPERATOR}`],
  reply_queue_lost: () => ["The answer was lost", SOON],
  no_embedder: () => ["The search isn’t running yet", `The part that looks at images is starting or stopped. ${SOON} ${OPERATOR}`],
  no_searcher: () => ["The search isn’t running yet", `The part that searches is starting or stopped. ${SOON} ${OPERATOR}`],
  model_mismatch: () => ["The collection is changing to another model", `${SOON} ${OPERATOR}`],
  no_index: () => ["This collection can’t be searched yet", "Its index is not ready. " + SOON],
  index_building: () => ["This collection is being prepared", "You can search as soon as it is done."],
  collection_required: () => ["Which collection?", "Choose one at the top of the page."],
  unknown_collection: () => ["This collection no longer exists", "Choose another one, or start at the first page."],
  unknown_item: () => ["This image is no longer in the collection", "It was removed since. Start from another one."],
  image_gone: () => ["The file of this image is missing", "It was moved or deleted since the index was built. " + OPERATOR],
  cursor_expired: () => ["The collection has changed meanwhile", "What comes next can only be found by a new search."],
  unauthenticated: () => ["This key isn’t known", "Check it for typing errors, or ask whoever runs this Simile for a new one."],
  forbidden: ({ detail }) => ["This key may not do that", sentence(detail)],
  host_not_allowed: ({ detail }) => ["This Simile doesn’t answer under this name", sentence(detail)],
  internal: () => ["Something went wrong in Simile", `Try again. ${OPERATOR}`],
  malformed_request: ({ detail }) => ["That can’t be searched for", sentence(detail)],
  unreachable: () => ["Simile can’t be reached", "Check that it is running and that you are connected, then try again."],
  page: ({ detail }) => ["This page has a fault", `Reload it. ${sentence(detail)}`],
};

const RETRIED = new Set(["unreachable", "internal", "body_timeout", "url_unreachable"]);

export const worthRetrying = ({ code, retryAfter }) => Boolean(retryAfter) || RETRIED.has(code);

// Capital and full stop: the server's own words go into the middle of log lines, too.
function sentence(text) {
  const trimmed = (text || "Try again in a moment").trim().replace(/\.+$/, "");
  return `${trimmed.charAt(0).toUpperCase()}${trimmed.slice(1)}.`;
}

const pixelsIn = (detail) => {
  const sides = /(\d+) x (\d+) pixels/.exec(detail ?? "");
  return sides && Number(sides[1]) * Number(sides[2]);
};

// The title and the advice for a problem; `file` and `size` are those of the image that was given.
export function sentencesOf({ code, title, detail, retryAfter, file, size }) {
  const known = { it: file ? `“${file}”` : "The image", size, detail, pixels: pixelsIn(detail) };
  const [what, next] = SENTENCES[code]?.(known) ?? [sentence(title).slice(0, -1), sentence(detail)];
  const wait = retryAfter ? next.replace(SOON, `Try again in ${retryAfter} s.`) : next;
  return [what, wait];
}
