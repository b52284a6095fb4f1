// What a person gives: files that are chosen, dropped or pasted, and images of other pages.

import { byId } from "./elements.js";
import { isOwn } from "./address.js";

const DATA_URL = /^data:(image\/[\w.+-]+);base64,([A-Za-z0-9+/=\s]+)$/;
const WEB = /^https?:\/\/\S+$/i;

// Calls `onFiles`, `onAddress` (an image of another site), `onLink` (one of this page) or `onNothing`.
export function whenGiven({ onFiles, onAddress, onLink, onNothing }) {
  const take = (transfer, pasted = false) => {
    const files = filesOf(transfer);
    if (files.length > 0) return onFiles(files);
    const address = addressOf(transfer, pasted);
    if (!address) return pasted ? undefined : onNothing();
    const inline = fileOf(address);
    if (inline) return onFiles([inline]);
    if (!WEB.test(address)) return onNothing();
    return isOwn(new URL(address)) ? onLink(address) : onAddress(address);
  };
  for (const id of ["file", "photo"]) {
    byId(id).addEventListener("change", ({ target }) => {
      if (target.files.length > 0) onFiles(target.files);
      target.value = "";
    });
  }
  addEventListener("paste", (event) => {
    if (!event.target.closest?.("input, textarea")) take(event.clipboardData, true);
  });
  followDrags(take);
}

function followDrags(take) {
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
    take(event.dataTransfer);
  });
}

// A link of this page that is dragged brings its thumbnail along as a file: the link says more.
function filesOf(transfer) {
  const linked = linkIn(transfer);
  return linked && WEB.test(linked) && isOwn(new URL(linked)) ? [] : transfer.files;
}

const linkIn = (transfer) =>
  transfer.getData("text/uri-list").split(/\r?\n/).find((line) => line && !line.startsWith("#")) ?? "";

function addressOf(transfer, pasted) {
  const text = transfer.getData("text/plain").trim();
  return imageIn(transfer.getData("text/html")) || linkIn(transfer) || (pasted && !WEB.test(text) ? "" : text);
}

// What is dragged may be a link around an image: then the image is meant, unless both are of this page.
function imageIn(html) {
  if (!html) return "";
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const link = parsed.querySelector("a[href]")?.getAttribute("href") ?? "";
  if (WEB.test(link) && isOwn(new URL(link))) return link;
  return parsed.querySelector("img[src]")?.getAttribute("src") ?? "";
}

function fileOf(address) {
  const [, type, encoded] = DATA_URL.exec(address) ?? [];
  if (!encoded) return null;
  try {
    const bytes = Uint8Array.from(atob(encoded.replace(/\s/g, "")), (one) => one.charCodeAt(0));
    return new File([bytes], "dragged image", { type });
  } catch {
    return null; // not base64 after all
  }
}
