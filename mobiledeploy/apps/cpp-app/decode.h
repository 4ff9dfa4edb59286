// The outputs of the model as an answer, by its task.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"

// Real values of one output, without the batch and with channels last.
using Values = std::vector<float>;

// The real values of a raw output.
Values real(const std::vector<uint8_t> &raw, const Tensor &tensor, bool channels_first);

// The answer of the contract's task.
Answer decode(const std::vector<Values> &outputs, const Contract &contract);
