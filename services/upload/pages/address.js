// The address holds what is asked and how: Back and Forward work, and a result can be linked.

const CHOICES = ["collection", "k", "collapse", "filter"];

export const read = () => Object.fromEntries(new URLSearchParams(location.search));

export const of = (state) =>
  `/?${new URLSearchParams(Object.entries(state).filter(([, value]) => value))}`;

export const choicesOf = (state) =>
  Object.fromEntries(CHOICES.filter((name) => state[name]).map((name) => [name, state[name]]));
