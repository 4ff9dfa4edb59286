// Replays the golden samples: the input, the answer and the inference must be those of the export.
//
// The page says what differs, and `document.body.dataset.state` is "pass" or "fail".
import { decode } from "./decode.js";
import { Model, fetched } from "./model.js";
import { NUMBERS, read, tensor, visible } from "./preprocess.js";

const ALLOWED_STEPS = 2; // of an output's quantization: other processors round otherwise
const ALLOWED_LEVELS = 1; // of a pixel: versions of Pillow resize in another order
const LEVELS = 255; // the steps of a float output, within its range
const SWAPPED = "the channels are swapped (RGB for BGR, or BGR for RGB)";

async function differences() {
  const model = await Model.load();
  const samples = [];
  for (const sample of model.contract.golden) samples.push(await recorded(sample, model.contract));
  const grid = model.contract.outputs.map((told, output) =>
    step(told, samples.map(({ outputs }) => outputs[output])),
  );
  const lines = [];
  for (const sample of samples) {
    const line = await difference(model, sample, grid);
    if (line) lines.push(`${sample.name}: ${line}`);
  }
  return lines;
}

// The content of a sample's files.
async function recorded(sample, contract) {
  const bytes = async (name) => (await fetched(name)).arrayBuffer();
  return {
    name: sample.image,
    image: await (await fetched(sample.image)).blob(),
    pixels: new Uint8Array(await bytes(sample.pixels)),
    input: new NUMBERS[contract.input.dtype](await bytes(sample.input)),
    outputs: await Promise.all(
      sample.outputs.map(async (name) => new Float32Array(await bytes(name))),
    ),
    answer: sample.answer,
  };
}

// The step of an output: that of its quantization, or a part of its range in the samples.
function step({ scale }, rows) {
  if (scale.length) return scale[0];
  const low = Math.min(...rows.map(least));
  const high = Math.max(...rows.map(most));
  return (high - low || Math.abs(high) || 1) / LEVELS;
}

// What differs of one sample in the first stage that differs; "" if nothing does. Each stage gets
// what was recorded of the stage before it.
async function difference(model, sample, grid) {
  const { contract } = model;
  const seen = visible(await read(sample.image), contract);
  let wrong = pixelDifference(seen, sample.pixels);
  if (wrong) return `the input differs: ${wrong}`;
  wrong = inputDifference(tensor({ ...seen, pixels: sample.pixels }, contract), sample.input, contract);
  if (wrong) return `the input differs: ${wrong}`;
  wrong = answerDifference(decode(sample.outputs, contract), sample.answer);
  if (wrong) return `the answer to the recorded outputs differs in ${wrong}: see decode.js`;
  const steps = outputSteps(await model.outputs(sample.input), sample.outputs, grid, contract);
  if (steps <= ALLOWED_STEPS) return "";
  return (
    `the outputs differ by ${Number(steps.toPrecision(3))} steps, ${ALLOWED_STEPS} are allowed: ` +
    "another model file, another runtime, or outputs that are read wrongly"
  );
}

// What is wrong with the pixels that the model sees; "" if they are as recorded.
function pixelDifference({ channels, pixels }, expected) {
  if (pixels.length !== expected.length)
    return `the model sees ${pixels.length} numbers, not ${expected.length}`;
  if (largest(pixels, expected) <= ALLOWED_LEVELS) return "";
  if (largest(swapped(pixels, channels), expected) <= ALLOWED_LEVELS) return SWAPPED;
  return `another crop, resize or image decoder (grey levels are ${amount(pixels, expected)})`;
}

// What is wrong with the input tensor of the recorded pixels; "" if it is as recorded.
function inputDifference(numbers, recordedNumbers, { input, layout, image }) {
  let [own, expected] = [Array.from(numbers), Array.from(recordedNumbers)];
  if (own.length !== expected.length)
    return `it has ${own.length} numbers, the model takes ${expected.length}`;
  const first = layout === "NCHW";
  const depth = image.shape[2];
  // Codes are exact; of floats the last digits may come from another order of the same sums.
  const whole = input.dtype !== "float32";
  const exact = whole ? 0 : 1e-5 * largest(expected, new Array(expected.length).fill(0));
  if (largest(own, expected) <= exact) return "";
  if (largest(own, turned(expected, depth, first)) <= exact) return `the axes are not ${layout}`;
  if (first) [own, expected] = [own, expected].map((values) => turned(values, depth, true));
  if (largest(swapped(own, depth), expected) <= exact) return SWAPPED;
  if (!whole || largest(own, expected) > 1)
    return `another input range, mean, std or zero point (values are ${amount(own, expected)})`;
  const off = own.filter((x, place) => x !== expected[place]).length;
  return `${Math.round((100 * off) / own.length)}% of the codes are one off: another rounding`;
}

// The name of a field of an answer that differs; "" if none does.
function answerDifference(own, { classes, scores, boxes, values, mask }) {
  const expected = { classes, scores, boxes, values, mask: mask ? [mask.size, mask.runs] : [] };
  const mine = { ...own, mask: own.mask ? [own.mask.size, own.mask.runs] : [] };
  const near = (a, b) => Math.abs(a - b) <= 1e-6 + 1e-5 * Math.abs(b);
  return (
    Object.keys(expected).find((name) => {
      const [a, b] = [mine[name] ?? [], expected[name]].map((field) => field.flat());
      return a.length !== b.length || !a.every((x, place) => near(x, b[place]));
    }) ?? ""
  );
}

// How far the outputs are apart, in the steps of each.
function outputSteps(own, expected, grid, { task }) {
  const chosen = expected.length === 4 && task === "detection";
  const errors = expected.map((theirs, output) => {
    if (own[output].length !== theirs.length) return Infinity;
    // Behind the number of boxes the operator leaves whatever was in memory.
    const end = chosen && output < 3 ? expected[3][0] * (output ? 1 : 4) : theirs.length;
    return largest(own[output].subarray(0, end), theirs.subarray(0, end)) / grid[output];
  });
  return most(errors);
}

function least(values) {
  return values.reduce((low, x) => Math.min(low, x), Infinity);
}

function most(values) {
  return values.reduce((high, x) => Math.max(high, x), -Infinity);
}

function largest(own, expected) {
  return own.reduce((high, x, place) => Math.max(high, Math.abs(x - expected[place])), 0);
}

function amount(own, expected) {
  const sum = own.reduce((total, x, place) => total + Math.abs(x - expected[place]), 0);
  const [average, top] = [sum / own.length, largest(own, expected)].map((x) => Number(x.toPrecision(3)));
  return `${average} off on the average, ${top} at most`;
}

function swapped(values, depth) {
  return Array.from(values, (_, place) => {
    const channel = place % depth;
    return values[place - channel + depth - 1 - channel];
  });
}

// A tensor by places and channels, as one of the other layout would have them.
function turned(values, depth, channelsFirst) {
  const places = values.length / depth;
  return Array.from(values, (_, at) =>
    channelsFirst
      ? values[(at % depth) * places + Math.floor(at / depth)]
      : values[(at % places) * depth + Math.floor(at / places)],
  );
}

const page = document.getElementById("differences");
try {
  const lines = await differences();
  page.textContent = lines.join("\n") || "pass: the golden samples are replayed";
  document.body.dataset.state = lines.length ? "fail" : "pass";
} catch (error) {
  page.textContent = `the golden samples cannot be replayed: ${error.message}`;
  document.body.dataset.state = "fail";
}
