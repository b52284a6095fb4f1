// Uses the generated types as a program would; `tsc` checks it.
import type { components, operations, paths } from "./api";

type Schemas = components["schemas"];

export function labels(answer: Schemas["SearchAnswer"]): string[] {
  const cursor: string | null = answer.next_cursor;
  return cursor === null ? [] : answer.neighbors.map((neighbor) => neighbor.label);
}

export function codes(batch: Schemas["BatchAnswer"]): Schemas["Code"][] {
  return batch.results.flatMap((result) => ("problem" in result ? [result.problem.code] : []));
}

export const filter: Schemas["Filter"] = { label: ["cat", "dog"], attributes: { author: "Ann" } };
export const form: Partial<Schemas["SearchForm"]> = { k: 3, filter };
export const query: operations["search"]["parameters"]["query"] = { k: 3, box: "0,0,0.5,1" };

export type Found =
  paths["/v1/search"]["post"]["responses"][200]["content"]["application/json"];
export const first = (found: Found): Schemas["Neighbor"] | undefined => found.neighbors[0];

// @ts-expect-error: a page without a cursor is null, never a number.
export const wrong: Schemas["SearchAnswer"]["next_cursor"] = 3;
