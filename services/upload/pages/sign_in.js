// Asks for an API key where one is needed; the server keeps it in a cookie that no script can read.

import * as api from "./api.js";
import { byId, problemText } from "./elements.js";
import { BASE } from "./paths.js";
import * as store from "./store.js";

const SIGNED_IN = "simile-signed-in";
const form = byId("sign-in");
const key = byId("key");
const problem = byId("sign-in-problem");

export function ask(refusal = null) {
  remember(false);
  document.body.classList.add("locked");
  form.hidden = false;
  byId("status").textContent = "";
  if (refusal) showProblem(refusal);
  key.focus();
}

export function whenSignedIn(go) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.hidden = true;
    try {
      await api.signIn(key.value.trim());
    } catch (error) {
      showProblem(error);
      key.select();
      return;
    }
    key.value = "";
    form.hidden = true;
    document.body.classList.remove("locked");
    remember(true);
    go();
  });
}

function showProblem(error) {
  problem.replaceChildren(...problemText(error));
  problem.hidden = false;
}

function remember(signedIn) {
  byId("sign-out").hidden = !signedIn;
  if (signedIn) storage()?.setItem(SIGNED_IN, "yes");
  else storage()?.removeItem(SIGNED_IN);
}

// A browser may forbid it, and then only the button is missing after a reload.
function storage() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}

byId("sign-out").hidden = !storage()?.getItem(SIGNED_IN);
byId("sign-out").addEventListener("click", async () => {
  await api.signOut();
  remember(false);
  await store.clear(); // whoever comes next at this browser sees none of it
  location.assign(BASE);
});
