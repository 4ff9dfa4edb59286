// The model file in LiteRT, on the CPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "contract.h"
#include "decode.h"
#include "preprocess.h"

class Model {
 public:
  // The model of the app in `folder`; std::runtime_error if it cannot be loaded.
  explicit Model(const std::string &folder);

  // The answer to an RGB image.
  Answer answer(const Image &image);

  // The real values of each output for a raw input tensor, in the contract's order.
  std::vector<Values> outputs(const std::vector<uint8_t> &tensor);

  const Contract contract;

 private:
  void *compiled_ = nullptr, *input_ = nullptr;
  size_t input_bytes_ = 0;
  std::vector<void *> outputs_;
  std::vector<size_t> output_bytes_, places_;  // places_: of the contract's outputs
};
