// An image as the model's input, exactly as at its training and calibration.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "contract.h"

// 8-bit pixels, row by row: RGB, or one gray channel.
struct Image {
  int height = 0, width = 0, channels = 3;
  std::vector<uint8_t> pixels;
};

// A binary PPM file (P6, 8 bits); std::runtime_error for anything else.
Image read_ppm(const std::string &path);

// What the model sees of an RGB image: its size, its channels in their order.
Image visible(const Image &image, const Contract &contract);

// The raw input tensor of the model for what it sees.
std::vector<uint8_t> tensor(const Image &visible, const Contract &contract);

// Both steps: the raw input tensor of the model for an RGB image.
std::vector<uint8_t> prepare(const Image &image, const Contract &contract);

// The bytes of one value of a tensor's type.
int value_size(const Tensor &tensor);
