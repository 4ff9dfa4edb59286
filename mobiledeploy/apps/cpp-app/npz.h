// Input tensors as numpy reads them, for `mobiledeploy verify ARTIFACT --pipeline FILE.npz`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "contract.h"

struct Array {
  std::string name;
  std::vector<uint8_t> bytes;
};

// Writes input tensors of the contract's type and shape; std::runtime_error if it cannot.
void write_npz(const std::string &path, const std::vector<Array> &arrays, const Contract &contract);
