// An image as the model's input, exactly as at its training and calibration (contract.json).

export const NUMBERS = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array };
const PRECISION = 32 - 8 - 2; // bits of a weight's fraction, as in Pillow

// An image file (Blob) as { height, width, channels, pixels }: RGB, upright, on white.
export async function read(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { height, width } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8Array(height * width * 3);
  for (let place = 0; place < height * width; ++place)
    for (let c = 0; c < 3; ++c) pixels[place * 3 + c] = rgba[place * 4 + c];
  return { height, width, channels: 3, pixels };
}

// The numbers of the model's input tensor for an RGB image.
export function prepare(image, contract) {
  return tensor(visible(image, contract), contract);
}

// What the model sees of an RGB image: its size, its channels in their order.
export function visible(image, contract) {
  const how = contract.image.preprocessing;
  const [height, width] = contract.image.shape;
  let part = cropped(image, how.crop);
  if (how.channels === "gray") part = gray(part);
  if (part.height !== height || part.width !== width)
    part = resized(part, height, width, FILTERS[how.resize]);
  if (how.channels === "bgr") part = swapped(part);
  return part;
}

// The numbers of the input tensor for what the model sees.
export function tensor({ height, width, channels, pixels }, contract) {
  const numbers = new NUMBERS[contract.input.dtype](height * width * channels);
  const first = contract.layout === "NCHW";
  for (let channel = 0; channel < channels; ++channel) {
    const table = Array.from({ length: 256 }, (_, pixel) =>
      code(realValue(pixel, channel, contract.image.preprocessing), contract.input),
    );
    for (let place = 0; place < height * width; ++place) {
      const from = place * channels + channel;
      numbers[first ? channel * height * width + place : from] = table[pixels[from]];
    }
  }
  return numbers;
}

// The real value of a pixel in a channel of the model, a float32.
function realValue(pixel, channel, { input_range: [low, high], mean, std }) {
  const value = low + (pixel / 255) * (high - low);
  return Math.fround((value - mean[channel]) / std[channel]);
}

// A real value as the input tensor has it: the code of an integer one.
function code(value, { dtype, scale, zero_point: zero }) {
  if (dtype === "float32") return value;
  const steps = Math.fround(value / Math.fround(scale[0]));
  // Halves of uint8 round up, a little below a half too: pixel p has the code p then.
  const rounded =
    dtype === "uint8" ? Math.floor(Math.fround(steps + Math.fround(0.501))) : nearest(steps);
  const lowest = dtype === "uint8" ? 0 : -128;
  return Math.min(Math.max(rounded + zero[0], lowest), lowest + 255);
}

// The nearest whole number, of two equally near ones the even one.
function nearest(x) {
  const below = Math.floor(x);
  const share = x - below;
  return share < 0.5 || (share === 0.5 && below % 2 === 0) ? below : below + 1;
}

// The centre of an image: `share` of each side.
function cropped(image, share) {
  const top = Math.trunc((image.height - image.height * share) / 2);
  const left = Math.trunc((image.width - image.width * share) / 2);
  const height = image.height - 2 * top;
  const width = image.width - 2 * left;
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; ++y) {
    const start = ((y + top) * image.width + left) * 3;
    pixels.set(image.pixels.subarray(start, start + width * 3), y * width * 3);
  }
  return { height, width, channels: 3, pixels };
}

// Luma by ITU-R 601, in whole numbers as Pillow computes it.
function gray({ height, width, pixels }) {
  const one = new Uint8Array(height * width);
  for (let place = 0; place < one.length; ++place) {
    const [r, g, b] = pixels.subarray(place * 3, place * 3 + 3);
    one[place] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
  }
  return { height, width, channels: 1, pixels: one };
}

function swapped(image) {
  const pixels = image.pixels.slice();
  for (let start = 0; start < pixels.length; start += 3)
    [pixels[start], pixels[start + 2]] = [pixels[start + 2], pixels[start]];
  return { ...image, pixels };
}

function bilinear(x) {
  return Math.max(1 - Math.abs(x), 0);
}

function bicubic(x) {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

const FILTERS = {
  bilinear: { weight: bilinear, support: 1 },
  bicubic: { weight: bicubic, support: 2 },
};

// For each new pixel the first old one, and the weights of it and the next. They are Pillow's: the
// filter is widened for smaller sizes, so that nothing aliases.
function sources(oldSize, newSize, { weight, support }) {
  const scale = oldSize / newSize;
  const widened = Math.max(scale, 1);
  return Array.from({ length: newSize }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support * widened + 0.5), 0);
    const end = Math.min(Math.trunc(center + support * widened + 0.5), oldSize);
    const weights = [];
    for (let x = first; x < end; ++x) weights.push(weight((x - center + 0.5) * (1 / widened)));
    const sum = weights.reduce((total, one) => total + one, 0);
    const whole = weights.map((one) => (sum === 0 ? one : one / sum) * 2 ** PRECISION);
    return { first, weights: whole.map((one) => Math.trunc(one + (one < 0 ? -0.5 : 0.5))) };
  });
}

// One axis of a resize, from a place in `from` to a place in `to`; pixels are `stride` apart.
function resizeAxis(from, start, to, target, table, stride) {
  table.forEach(({ first, weights }, place) => {
    let sum = 2 ** (PRECISION - 1);
    weights.forEach((weight, step) => {
      sum += from[start + (first + step) * stride] * weight;
    });
    to[target + place * stride] = Math.min(Math.max(sum >> PRECISION, 0), 255);
  });
}

function wider({ height, width, channels, pixels }, newWidth, filter) {
  const made = new Uint8Array(height * newWidth * channels);
  const table = sources(width, newWidth, filter);
  for (let y = 0; y < height; ++y)
    for (let c = 0; c < channels; ++c) {
      const [start, target] = [width, newWidth].map((side) => y * side * channels + c);
      resizeAxis(pixels, start, made, target, table, channels);
    }
  return { height, width: newWidth, channels, pixels: made };
}

function higher({ height, width, channels, pixels }, newHeight, filter) {
  const made = new Uint8Array(newHeight * width * channels);
  const table = sources(height, newHeight, filter);
  for (let place = 0; place < width * channels; ++place)
    resizeAxis(pixels, place, made, place, table, width * channels);
  return { height: newHeight, width, channels, pixels: made };
}

function resized(image, height, width, filter) {
  // Pixels are rounded after each axis. The order of the axes is that of Pillow 13: before, the
  // rows always came first, which makes a difference of one level at most.
  const fewerRows = image.height - height;
  const fewerColumns = image.width - width;
  if (fewerRows > 0 && fewerRows > 2 * fewerColumns)
    return wider(higher(image, height, filter), width, filter);
  return higher(wider(image, width, filter), height, filter);
}
