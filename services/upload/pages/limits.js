// What the server accepts, as it says itself.

const known = {
  image_max_bytes: Infinity, image_max_pixels: Infinity,
  max_batch_images: 16, batch_max_bytes: Infinity, formats: [],
};

export const limits = () => known;
export const limitTo = (given) => Object.assign(known, given);
const NAMES = { WEBP: "WebP", HEIF: "HEIC", JPEG2000: "JPEG 2000" };
export const formatNames = () => known.formats.map((name) => NAMES[name] ?? name).join(", ");

export const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1).replace(".0", "")} MB`;
export const megapixels = (pixels) => {
  const millions = pixels / 1e6;
  return `${millions >= 10 ? Math.round(millions) : Number(millions.toPrecision(2))} megapixels`;
};
