#include "contract.h"

#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace {

template <typename T>
std::vector<T> rest_of(std::istringstream &line) {
  return {std::istream_iterator<T>(line), std::istream_iterator<T>()};
}

Tensor tensor_of(std::istringstream &line, bool output) {
  Tensor tensor;
  line >> tensor.type >> tensor.scale >> tensor.zero_point;
  if (output) {
    size_t rank = 0;
    line >> tensor.activation >> rank;
    tensor.shape.resize(rank);
    for (int &side : tensor.shape) line >> side;
  }
  std::getline(line >> std::ws, tensor.name);
  return tensor;
}

void read_answer(std::istringstream &line, Answer &answer) {
  std::string field;
  line >> field;
  if (field == "classes") answer.classes = rest_of<int>(line);
  if (field == "scores") answer.scores = rest_of<double>(line);
  if (field == "values") answer.values = rest_of<double>(line);
  if (field == "boxes") {
    std::array<double, 4> box;
    while (line >> box[0] >> box[1] >> box[2] >> box[3]) answer.boxes.push_back(box);
  }
  if (field == "mask") {
    line >> answer.size[0] >> answer.size[1];
    answer.runs = rest_of<int>(line);
  }
}

}  // namespace

std::string read_file(const std::string &path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

Contract read_contract(const std::string &folder) {
  Contract contract;
  std::istringstream text(read_file(folder + "/contract.txt"));
  for (std::string whole; std::getline(text, whole);) {
    std::istringstream line(whole);
    std::string key;
    line >> key;
    if (key == "model") line >> contract.model;
    else if (key == "task") line >> contract.task;
    else if (key == "layout") { std::string layout; line >> layout; contract.channels_first = layout == "NCHW"; }
    else if (key == "image") line >> contract.height >> contract.width >> contract.depth;
    else if (key == "channels") line >> contract.channels;
    else if (key == "resize") line >> contract.resize;
    else if (key == "crop") line >> contract.crop;
    else if (key == "range") line >> contract.low >> contract.high;
    else if (key == "mean") for (double &mean : contract.mean) line >> mean;
    else if (key == "std") for (double &std : contract.std) line >> std;
    else if (key == "input") contract.input = tensor_of(line, false);
    else if (key == "output") contract.outputs.push_back(tensor_of(line, true));
    else if (key == "anchors") for (double &scale : contract.anchor_scales) line >> scale;
    else if (key == "level") {
      AnchorLevel level{};
      line >> level.rows >> level.columns;
      for (std::array<double, 2> size; line >> size[0] >> size[1];) level.sizes.push_back(size);
      contract.anchors.push_back(level);
    }
    else if (key == "sample") { contract.samples.emplace_back(); line >> contract.samples.back().stem; }
    else if (key == "answer") read_answer(line, contract.samples.back().answer);
    else throw std::runtime_error("contract.txt has a line of unknown kind: " + key);
  }
  std::istringstream labels(read_file(folder + "/labels.txt"));
  for (std::string label; std::getline(labels, label);) contract.labels.push_back(label);
  return contract;
}
