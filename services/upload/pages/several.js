// A search by several images: in as many requests as it takes, each image with its own outcome.

import * as api from "./api.js";
import * as batch from "./batch.js";
import { plural } from "./elements.js";
import * as uploads from "./uploads.js";
import * as view from "./view.js";

export async function showBatch(asked, parameters, linkTo, signal) {
  const given = await Promise.all(asked.batch.split(",").map(uploads.find));
  if (signal.aborted) return;
  view.showBatch();
  view.announce(`Searching by ${plural(given.length, "image")}…`);
  batch.showRows(given, linkTo);
  let failed = 0;
  const showOutcome = (upload, outcome) => {
    failed += outcome.problem ? 1 : 0;
    batch.showOutcome(given.indexOf(upload), upload, outcome, linkTo);
  };
  for (const upload of given.filter(uploads.tooLarge)) {
    showOutcome(upload, { problem: uploads.tooLarge(upload) });
  }
  for (const request of uploads.inRequests(given.filter((upload) => !uploads.tooLarge(upload)))) {
    const images = request.map(({ content }) => content);
    const { results } = await api.searchBatch(images, parameters, signal);
    if (signal.aborted) return;
    request.forEach((upload, place) => showOutcome(upload, results[place]));
  }
  view.announce(summary(given.length, failed, Number(asked.given)));
  view.focusBatch();
}

function summary(count, failed, given) {
  const sentences = [`Searched by ${plural(count - failed, "image")}.`];
  if (failed) sentences.push(`${failed} could not be.`);
  if (given > count) sentences.push(`Of the ${given} given, only the first ${count} were taken: no more go at once.`);
  return sentences.join(" ");
}
