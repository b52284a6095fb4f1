// On a narrow screen the choices are behind one button, which says how many are made.

import { byId } from "./elements.js";

const toggle = byId("options");
const choices = byId("choices");

export function show(chosen) {
  toggle.textContent = chosen > 0 ? `Options (${chosen})` : "Options";
}

function open(opened) {
  choices.classList.toggle("open", opened);
  toggle.setAttribute("aria-expanded", String(opened));
}

toggle.addEventListener("click", () => open(!choices.classList.contains("open")));
choices.addEventListener("keydown", ({ key, defaultPrevented }) => {
  if (key !== "Escape" || defaultPrevented || !choices.classList.contains("open")) return;
  open(false);
  toggle.focus();
});
