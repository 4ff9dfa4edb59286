#include "model.h"

#include <cstring>
#include <stdexcept>

#include "litert.h"

namespace {

enum { kCpu = 1, kRead = 0, kWrite = 1 };

void demand(LiteRtStatus status, const char *what) {
  if (status)
    throw std::runtime_error(std::string("LiteRT cannot ") + what + " (status " +
                             std::to_string(status) + ")");
}

LiteRtHandle handle(void *pointer) { return static_cast<LiteRtHandle>(pointer); }

// The place of each of the contract's outputs among the model's: by name where all names fit, for
// LiteRT may list them in another order than the file.
std::vector<size_t> places(const std::vector<Tensor> &told, const std::vector<std::string> &names) {
  std::vector<size_t> by_name, in_order;
  for (size_t place = 0; place < told.size(); ++place) {
    in_order.push_back(place);
    for (size_t other = 0; other < names.size(); ++other)
      if (names[other] == told[place].name) by_name.push_back(other);
  }
  return by_name.size() == told.size() ? by_name : in_order;
}

}  // namespace

Model::Model(const std::string &folder) : contract(read_contract(folder)) {
  LiteRtHandle environment, model, options, compiled, signature, tensor, needs, buffer;
  demand(LiteRtCreateEnvironment(0, nullptr, &environment), "start");
  demand(LiteRtCreateModelFromFile(environment, (folder + "/" + contract.model).c_str(), &model),
         "load the model");
  demand(LiteRtCreateOptions(&options), "start");
  demand(LiteRtSetOptionsHardwareAccelerators(options, kCpu), "start");
  demand(LiteRtCreateCompiledModel(environment, model, options, &compiled), "load the model");
  demand(LiteRtGetModelSignature(model, 0, &signature), "load the model");
  compiled_ = compiled;

  LiteRtRankedTensorType type;
  demand(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "load the model");
  demand(LiteRtGetRankedTensorType(tensor, &type), "load the model");
  demand(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &needs), "load the model");
  demand(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &buffer),
         "load the model");
  demand(LiteRtGetTensorBufferPackedSize(buffer, &input_bytes_), "load the model");
  input_ = buffer;

  size_t count;
  demand(LiteRtGetNumSignatureOutputs(signature, &count), "load the model");
  if (count != contract.outputs.size())
    throw std::runtime_error("the model has other outputs than contract.txt");
  std::vector<std::string> names;
  for (size_t index = 0; index < count; ++index) {
    const char *name;
    size_t bytes;
    demand(LiteRtGetSignatureOutputTensorByIndex(signature, index, &tensor), "load the model");
    demand(LiteRtGetTensorName(tensor, &name), "load the model");
    demand(LiteRtGetRankedTensorType(tensor, &type), "load the model");
    demand(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, index, &needs),
           "load the model");
    demand(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &buffer),
           "load the model");
    demand(LiteRtGetTensorBufferPackedSize(buffer, &bytes), "load the model");
    names.emplace_back(name);
    outputs_.push_back(buffer);
    output_bytes_.push_back(bytes);
  }
  places_ = places(contract.outputs, names);
}

Answer Model::answer(const Image &image) {
  return decode(outputs(prepare(image, contract)), contract);
}

std::vector<Values> Model::outputs(const std::vector<uint8_t> &tensor) {
  if (tensor.size() != input_bytes_)
    throw std::runtime_error("the input has " + std::to_string(tensor.size()) +
                             " bytes, the model takes " + std::to_string(input_bytes_));
  void *place;
  LiteRtHandle input = handle(input_);
  demand(LiteRtLockTensorBuffer(input, &place, kWrite), "fill the input");
  std::memcpy(place, tensor.data(), tensor.size());
  demand(LiteRtUnlockTensorBuffer(input), "fill the input");
  std::vector<LiteRtHandle> buffers;
  for (void *output : outputs_) buffers.push_back(handle(output));
  demand(LiteRtRunCompiledModel(handle(compiled_), 0, 1, &input, buffers.size(), buffers.data()),
         "run the model");
  std::vector<Values> result;
  for (size_t index = 0; index < places_.size(); ++index) {
    const size_t from = places_[index];
    std::vector<uint8_t> raw(output_bytes_[from]);
    demand(LiteRtLockTensorBuffer(buffers[from], &place, kRead), "read an output");
    std::memcpy(raw.data(), place, raw.size());
    demand(LiteRtUnlockTensorBuffer(buffers[from]), "read an output");
    result.push_back(real(raw, contract.outputs[index], contract.channels_first));
  }
  return result;
}
