// The model file in ONNX Runtime's WebAssembly, and its contract.
import * as ort from "onnxruntime-web/wasm";

import { decode, real } from "./decode.js";
import { prepare } from "./preprocess.js";

// One thread needs no special headers of the server (COOP and COEP).
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("dist/", document.baseURI).href;

export class Model {
  // The model of the page's folder, loaded once; `answer` is called for each image.
  static async load() {
    const contract = await (await fetched("contract.json")).json();
    const content = new Uint8Array(await (await fetched(contract.model)).arrayBuffer());
    const session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
    return new Model(contract, session);
  }

  constructor(contract, session) {
    this.contract = contract;
    this.session = session;
  }

  // The answer to an image { height, width, pixels }, with the names of its classes if there are any.
  async answer(image) {
    const answer = decode(await this.outputs(prepare(image, this.contract)), this.contract);
    const { labels } = this.contract;
    if (labels.length && answer.classes)
      answer.labels = answer.classes.map((index) => labels[index] ?? String(index));
    return answer;
  }

  // The real values of each output for the numbers of an input tensor.
  async outputs(numbers) {
    const { input, outputs, layout } = this.contract;
    const tensor = new ort.Tensor(input.dtype, numbers, input.shape);
    const results = await this.session.run({ [this.session.inputNames[0]]: tensor });
    return outputs.map((told, place) =>
      real(results[this.session.outputNames[place]], told, layout),
    );
  }
}

export async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} cannot be read: ${response.status}`);
  return response;
}
