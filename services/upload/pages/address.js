// The address holds what is asked and how: Back and Forward work, and a result can be linked.

import { BASE } from "./paths.js";

const CHOICES = ["collection", "k", "collapse", "filter"];

export const read = () => Object.fromEntries(new URLSearchParams(location.search));

export const of = (state) => {
  const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value)).toString();
  return query ? `${BASE}?${query}` : BASE;
};

export const choicesOf = (state) =>
  Object.fromEntries(CHOICES.filter((name) => state[name]).map((name) => [name, state[name]]));

// The item that is enlarged is part of the address, and no part of the question.
export const questionOf = ({ view, ...state }) => of(state);

// True of a link to this very page, which need not be loaded again.
export const isOwn = (link) => link.origin === location.origin && link.pathname === BASE;
