// Answers the images that the page's user chooses, a line of JSON for each.
import { Model } from "./model.js";
import { npz } from "./npz.js";
import { prepare, read } from "./preprocess.js";

const images = document.getElementById("images");
const answers = document.getElementById("answers");
const inputs = document.getElementById("inputs");
const loaded = Model.load();

function say(line) {
  // As text: names of files and labels may hold anything.
  answers.append(`${line}\n`);
}

images.addEventListener("change", async () => {
  document.body.dataset.state = "working";
  answers.textContent = "";
  const tensors = [];
  for (const file of images.files) {
    try {
      const model = await loaded;
      const image = await read(file);
      say(JSON.stringify({ image: file.name, ...(await model.answer(image)) }));
      tensors.push([file.name.replace(/\.[^.]*$/, ""), prepare(image, model.contract)]);
    } catch (error) {
      say(`${file.name}: ${error.message}`);
    }
  }
  URL.revokeObjectURL(inputs.href);
  if (tensors.length) inputs.href = URL.createObjectURL(npz(tensors, (await loaded).contract.input));
  inputs.hidden = !tensors.length;
  document.body.dataset.state = "done";
});
