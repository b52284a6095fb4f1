// A part of an image by its edges, in fractions of the upright image; knows no screen.

const LEAST = 0.03;
const DIGITS = 4;

export const CENTRED = { left: 0.25, top: 0.25, right: 0.75, bottom: 0.75 };

const within = (value, low = 0, high = 1) => Math.min(high, Math.max(low, value));
const rounded = (value) => Number(value.toFixed(DIGITS));

export function parse(text) {
  const numbers = (text ?? "").split(",").map(Number);
  if (numbers.length !== 4 || !numbers.every(Number.isFinite)) return null;
  const [left, top, width, height] = numbers;
  return { left, top, right: left + width, bottom: top + height };
}

// Rounds edges, not sizes: rounded sizes could end outside of the image.
export function format({ left, top, right, bottom }) {
  const [x, y] = [rounded(left), rounded(top)];
  return [x, y, rounded(rounded(right) - x), rounded(rounded(bottom) - y)].join(",");
}

export const spanned = (one, other) => ({
  left: within(Math.min(one.x, other.x)),
  top: within(Math.min(one.y, other.y)),
  right: within(Math.max(one.x, other.x)),
  bottom: within(Math.max(one.y, other.y)),
});

export const isLargeEnough = ({ left, top, right, bottom }) =>
  right - left >= LEAST && bottom - top >= LEAST;

export function moved({ left, top, right, bottom }, { x, y }) {
  const across = within(x, -left, 1 - right);
  const down = within(y, -top, 1 - bottom);
  return { left: left + across, top: top + down, right: right + across, bottom: bottom + down };
}

export const stretched = ({ left, top, right, bottom }, { x, y }) => ({
  left,
  top,
  right: within(right + x, left + LEAST),
  bottom: within(bottom + y, top + LEAST),
});

export function spoken({ left, top, right, bottom }) {
  const percent = (fraction) => `${Math.round(100 * fraction)} %`;
  return `From the left ${percent(left)}, from the top ${percent(top)}, ` +
    `width ${percent(right - left)}, height ${percent(bottom - top)}.`;
}
