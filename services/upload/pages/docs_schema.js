// Writes a schema of OpenAPI in words, with links to the schemas that it names.

import { element } from "./elements.js";

const SHOWN_NAMES = 12;

export const refName = (schema) => schema.$ref?.split("/").at(-1) ?? null;

const joined = (parts, between) =>
  parts.flatMap((part, place) => (place === 0 ? part : [between, ...part]));

export function valueOf(schema) {
  const name = refName(schema);
  if (name !== null) return [element("a", { href: `#schema-${name}`, textContent: name })];
  if (schema.oneOf) return joined(schema.oneOf.map(valueOf), " or ");
  if (schema.enum) return [namesOf(schema.enum)];
  return [...kindOf(schema), ...limitsOf(schema).map((limit) => `, ${limit}`)];
}

function kindOf(schema) {
  const types = [schema.type].flat();
  if (types.includes("array")) return ["list of ", ...valueOf(schema.items)];
  if (typeof schema.additionalProperties === "object") {
    return ["object with ", ...valueOf(schema.additionalProperties), " by name"];
  }
  if (schema.format === "binary") return ["bytes"];
  return [types.join(" or ")];
}

function namesOf(names) {
  const shown = names.slice(0, SHOWN_NAMES).map((name) => `${name}`).join(", ");
  return names.length > SHOWN_NAMES ? `${shown} and ${names.length - SHOWN_NAMES} others` : shown;
}

function limitsOf(schema) {
  const limits = [];
  const { minimum: low, maximum: high } = schema;
  if (low !== undefined && high !== undefined) limits.push(`${low} to ${high}`);
  else if (low !== undefined) limits.push(`from ${low}`);
  else if (high !== undefined) limits.push(`up to ${high}`);
  if (schema.exclusiveMinimum !== undefined) limits.push(`over ${schema.exclusiveMinimum}`);
  if (schema.maxLength !== undefined) limits.push(`up to ${schema.maxLength} characters`);
  if (schema.maxItems !== undefined) limits.push(`up to ${schema.maxItems}`);
  if (schema.contentMediaType) limits.push(schema.contentMediaType);
  if (schema.pattern) limits.push(schema.pattern);
  if (schema.default !== undefined) limits.push(`default ${schema.default}`);
  return limits;
}
