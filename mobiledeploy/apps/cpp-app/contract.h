// What the app knows of its model: contract.txt and labels.txt.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

struct Answer {
  std::vector<int> classes;    // of a classifier the best five, of a detector one for each box
  std::vector<double> scores;  // one for each class
  std::vector<std::array<double, 4>> boxes;  // left, top, right, bottom, as fractions
  std::vector<double> values;
  std::array<int, 2> size{};  // height and width of the mask; 0 for no mask
  std::vector<int> runs;      // of the mask: a class, and how many pixels have it, in turn
};

struct Tensor {
  std::string name, type;  // float32, int8 or uint8
  float scale = 0;         // 0 for floats
  int zero_point = 0;
  // Of outputs:
  std::string activation;  // softmax, sigmoid or none
  std::vector<int> shape;  // without the batch, channels last
};

struct AnchorLevel {
  int rows, columns;
  std::vector<std::array<double, 2>> sizes;  // height, width
};

struct Sample {
  std::string stem;  // golden/NAME: NAME.ppm, NAME.input.bin, NAME.output0.bin ...
  Answer answer;
};

struct Contract {
  std::string model, task, channels, resize;
  bool channels_first = false;
  int height = 0, width = 0, depth = 3;
  double crop = 1, low = 0, high = 1;
  std::array<double, 3> mean{}, std{};
  Tensor input;
  std::vector<Tensor> outputs;
  std::array<double, 4> anchor_scales{};
  std::vector<AnchorLevel> anchors;
  std::vector<std::string> labels;
  std::vector<Sample> samples;
};

// The contract of the app in `folder`; std::runtime_error if it cannot be read.
Contract read_contract(const std::string &folder);

// The content of a file; std::runtime_error if it cannot be read.
std::string read_file(const std::string &path);
