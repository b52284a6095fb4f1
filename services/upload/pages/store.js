// Keeps the images a person gave in this browser, so that a reload and Back find them again.
//
// For a day, and not more than so many: they are copies of somebody's pictures. Where the browser allows no
// storage (a private window, no space left), nothing is kept and nothing fails.

const NAME = "simile";
const TABLE = "uploads";
const MAX_AGE_MS = 24 * 3600 * 1000;
const MAX_COUNT = 48;
const MAX_BYTES = 192 * 2 ** 20;

let opening = null;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

function open() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("blocked"));
  });
  return opening;
}

// Answers `otherwise` where the browser keeps nothing.
async function within(mode, work, otherwise) {
  try {
    const database = await open();
    return await work(database.transaction(TABLE, mode).objectStore(TABLE));
  } catch {
    return otherwise;
  }
}

const expired = ({ added }) => Date.now() - added > MAX_AGE_MS;

// The ids of records that are too old, or too many with the newer ones.
function superfluous(records) {
  let bytes = 0;
  return records.sort((one, other) => other.added - one.added).filter((record, place) => {
    bytes += record.content.size;
    return expired(record) || place >= MAX_COUNT || bytes > MAX_BYTES;
  }).map(({ id }) => id);
}

export const put = (id, content, name) => within("readwrite", async (table) => {
  table.put({ id, content, name, added: Date.now() });
  for (const old of superfluous(await done(table.getAll()))) table.delete(old);
}, undefined);

export const get = (id) => within("readonly", async (table) => {
  const record = await done(table.get(id));
  return record && !expired(record) ? record : null;
}, null);

export const clear = () => within("readwrite", (table) => done(table.clear()), undefined);

export const prune = () => within("readwrite", async (table) => {
  for (const old of superfluous(await done(table.getAll()))) table.delete(old);
}, undefined);
