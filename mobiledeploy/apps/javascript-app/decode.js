// The outputs of the model as an answer, by its task.
//
// Outputs are real values, without the batch and with channels last. An answer has `classes` and
// `scores`, best first; `boxes` (left, top, right, bottom, as fractions of the image that the model
// saw), `values`, or a `mask` of a class for each pixel.

const BEST = 5;
const MOST_BOXES = 100;
const OVERLAP = 0.6; // of two boxes of one class that overlap by more (IoU), the better one stays
const LARGEST_GROWTH = 10;

// The real values of a raw output [1, ...].
export function real({ data, dims }, { scale, zero_point: zero }, layout) {
  const values = Float32Array.from(data, (x) => (scale.length ? (x - zero[0]) * scale[0] : x));
  if (layout !== "NCHW" || dims.length !== 4) return values;
  const places = dims[2] * dims[3];
  return values.map((_, place) => values[(place % dims[1]) * places + Math.floor(place / dims[1])]);
}

// The answer of the contract's task.
export function decode(outputs, contract) {
  return DECODERS[contract.task](outputs, contract.ends);
}

// The places of scores, best first; of equal scores the lower place comes first.
function ranked(scores) {
  return Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
}

function best(scores) {
  const classes = ranked(scores).slice(0, BEST);
  return { classes, scores: classes.map((index) => scores[index]) };
}

// Sigmoids of an output, unless it ends in them.
function probabilities(values, end) {
  const sigmoid = (x) => (x >= 0 ? 1 : Math.exp(x)) / (1 + Math.exp(-Math.abs(x)));
  return Array.from(values, end.activation === "sigmoid" ? Number : sigmoid);
}

// No (class 0) or yes (class 1); `values` is the probability of yes.
function binary([values], [end]) {
  const [chance] = probabilities(values, end);
  return { ...best([1 - chance, chance]), values: [chance] };
}

function multilabel([values], [end]) {
  const chances = probabilities(values, end);
  return { ...best(chances), values: chances };
}

function segmentation([values], [end]) {
  const [height, width, depth] = end.shape;
  const threshold = end.activation === "sigmoid" ? 0.5 : 0;
  const runs = [];
  for (let start = 0; start < values.length; start += depth) {
    const pixel = values.subarray(start, start + depth);
    const index =
      depth === 1
        ? Number(pixel[0] > threshold)
        : pixel.reduce((top, x, place) => (x > pixel[top] ? place : top), 0);
    if (runs.at(-2) !== index) runs.push(index, 0);
    ++runs[runs.length - 1];
  }
  return { mask: { size: [height, width], runs } };
}

function detection(outputs, ends) {
  if (outputs.length === 4) return chosenByTheModel(outputs);
  const at = ends[0].shape.at(-1) === 4 ? 0 : 1;
  const anchors = ends.map((end) => end.anchors).find(Boolean);
  const rows = fours(outputs[at]);
  const boxes = (anchors ? fromAnchors(rows, anchors) : rows).map(upright);
  const classes = outputs[1 - at].length / boxes.length;
  const scores = Array.from(outputs[1 - at], (score, place) =>
    boxes[Math.floor(place / classes)].every(Number.isFinite) ? score : 0,
  );
  // Non-maximum suppression for each class.
  const kept = [];
  for (const place of ranked(scores)) {
    if (!(scores[place] > 0) || kept.length === MOST_BOXES) break;
    const one = { box: boxes[Math.floor(place / classes)], index: place % classes, place };
    if (!kept.some(({ box, index }) => index === one.index && iou(box, one.box) > OVERLAP))
      kept.push(one);
  }
  const within = (side) => (anchors ? Math.min(Math.max(side, 0), 1) : side);
  return {
    classes: kept.map(({ index }) => index),
    scores: kept.map(({ place }) => scores[place]),
    boxes: kept.map(({ box }) => box.map(within)),
  };
}

// The outputs of TFLite_Detection_PostProcess: boxes, classes, scores, and their number.
function chosenByTheModel([places, classes, scores, [told]]) {
  // What is behind that number is whatever was in memory.
  const count = Math.min(Math.max(Math.trunc(told) || 0, 0), scores.length);
  const boxes = fours(places).map(([top, left, bottom, right]) =>
    upright([left, top, right, bottom]),
  );
  const order = ranked(scores.subarray(0, count))
    .filter((row) => scores[row] > 0 && [...boxes[row], classes[row]].every(Number.isFinite))
    .slice(0, MOST_BOXES);
  return {
    classes: order.map((row) => Math.round(classes[row])),
    scores: order.map((row) => scores[row]),
    boxes: order.map((row) => boxes[row]),
  };
}

// Boxes of the offsets (ty, tx, th, tw) from anchors.
function fromAnchors(offsets, { levels, scales }) {
  const boxes = [];
  for (const { grid, sizes } of levels)
    for (let row = 0; row < grid[0]; ++row)
      for (let column = 0; column < grid[1]; ++column)
        for (const [height, width] of sizes) {
          const [ty, tx, th, tw] = offsets[boxes.length].map((x, axis) => x / scales[axis]);
          const y = ty * height + (row + 0.5) / grid[0];
          const x = tx * width + (column + 0.5) / grid[1];
          const halfHeight = (height * Math.exp(Math.min(th, LARGEST_GROWTH))) / 2;
          const halfWidth = (width * Math.exp(Math.min(tw, LARGEST_GROWTH))) / 2;
          boxes.push([x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight]);
        }
  return boxes;
}

function fours(values) {
  return Array.from({ length: values.length / 4 }, (_, row) =>
    Array.from(values.subarray(row * 4, row * 4 + 4)),
  );
}

// A box whose right and bottom are not before its left and top.
function upright([left, top, right, bottom]) {
  return [left, top, Math.max(left, right), Math.max(top, bottom)];
}

// The intersection over union; 1 for equal boxes.
function iou(one, other) {
  if (one.every((side, axis) => side === other[axis])) return 1;
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const both = Math.max(width, 0) * Math.max(height, 0);
  const [first, second] = [one, other].map((b) => (b[2] - b[0]) * (b[3] - b[1]));
  return both / (first + second - both || 1);
}

// A regression's numbers, or the vector of an embedding.
function numbers([values]) {
  return { values: Array.from(values) };
}

const DECODERS = {
  binary,
  classification: ([values]) => best(values),
  detection,
  embedding: numbers,
  multilabel,
  regression: numbers,
  segmentation,
};
