// Writes the request of a route as a command for curl.

const FORM = "multipart/form-data";
const JSON_TYPE = "application/json";
const BYTES = "application/octet-stream";
const EXAMPLES = { collection: "pictures", name: "pictures", item_id: "9b1f03d2c4e5a687" };

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function options(api, content) {
  if (content[BYTES]) return " --data-binary @photo.jpg";
  if (content[FORM]) return " -F image=@one.jpg -F image=@two.jpg";
  if (content[JSON_TYPE]) {
    const name = content[JSON_TYPE].schema.$ref.split("/").at(-1);
    const { example, examples = [] } = { ...api.components.schemas[name], ...content[JSON_TYPE] };
    const body = JSON.stringify(example ?? examples[0] ?? {});
    return ` -H ${quoted(`Content-Type: ${JSON_TYPE}`)} -d ${quoted(body)}`;
  }
  return "";
}

export function curlOf(api, method, path, operation, base) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => EXAMPLES[name] ?? name);
  const chosen = method === "get" || method === "post" ? "" : ` -X ${method.toUpperCase()}`;
  const content = operation.requestBody?.content ?? {};
  return `curl -s${chosen}${options(api, content)} ${quoted(base.replace(/\/$/, "") + filled)}`;
}
