// Replays the golden samples: the input, the answer and the inference must be those of the export.
package answering

import java.math.BigDecimal
import java.math.MathContext
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.roundToInt

/**
 * What differs, a line for each sample that does; nothing if the app computes as the export did.
 *
 * On a device give it the model in LiteRT: `Recorded` answers by the samples themselves.
 */
fun differences(files: Files, contract: Contract, model: Inference): List<String> {
  val outputs = contract.samples.map { recordedOutputs(files, it, contract) }
  val grid = contract.outputs.indices.map { output ->
    step(contract.outputs[output], outputs.map { it[output] })
  }
  return contract.samples.zip(outputs).mapNotNull { (sample, recorded) ->
    val line = difference(files, contract, model, sample, recorded, grid)
    if (line.isEmpty()) null else "${sample.stem}.ppm: $line"
  }
}

/** The real values of each output of a sample, as at the export. */
fun recordedOutputs(files: Files, sample: Sample, contract: Contract): List<FloatArray> =
  contract.outputs.indices.map { output ->
    val raw = files("${sample.stem}.output$output.bin")
    val numbers = ByteBuffer.wrap(raw).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    FloatArray(raw.size / 4).also(numbers::get)
  }

private const val ALLOWED_STEPS = 2.0 // of an output's quantization: other processors round otherwise
private const val ALLOWED_LEVELS = 1.0 // of a pixel: versions of Pillow resize in another order
private const val LEVELS = 255 // the steps of a float output, within its range
private const val SWAPPED = "the channels are swapped (RGB for BGR, or BGR for RGB)"

/** The step of an output: that of its quantization, or a part of its range in the samples. */
private fun step(tensor: Tensor, rows: List<FloatArray>): Double {
  if (tensor.scale > 0) return tensor.scale.toDouble()
  val high = rows.maxOf { it.max() }.toDouble()
  val range = high - rows.minOf { it.min() }
  // Without a range all values are equal.
  return (if (range > 0) range else if (high != 0.0) abs(high) else 1.0) / LEVELS
}

/**
 * What differs of one sample in the first stage that differs; "" if nothing does. Each stage gets
 * what was recorded of the stage before it.
 */
private fun difference(
  files: Files, contract: Contract, model: Inference, sample: Sample, outputs: List<FloatArray>,
  grid: List<Double>,
): String {
  val own = visible(readPpm(files("${sample.stem}.ppm")), contract)
  val seen = Image(own.height, own.width, own.channels, files("${sample.stem}.pixels.bin"))
  pixelDifference(own, seen).ifNotEmpty { return "the input differs: $it" }
  val input = files("${sample.stem}.input.bin")
  inputDifference(tensor(seen, contract), input, contract)
    .ifNotEmpty { return "the input differs: $it" }
  answerDifference(decode(outputs, contract), sample.answer)
    .ifNotEmpty { return "the answer to the recorded outputs differs in $it: see Decode.kt" }
  val steps = outputSteps(model.outputs(input), outputs, grid, contract)
  if (steps <= ALLOWED_STEPS) return ""
  return "the outputs differ by ${digits(steps)} steps, ${digits(ALLOWED_STEPS)} are allowed: " +
    "another model file, another runtime, or outputs that are read wrongly"
}

private inline fun String.ifNotEmpty(then: (String) -> Unit) {
  if (isNotEmpty()) then(this)
}

/** What is wrong with the pixels that the model sees; "" if they are as recorded. */
private fun pixelDifference(visible: Image, recorded: Image): String {
  if (visible.pixels.size != recorded.pixels.size)
    return "the model sees ${visible.pixels.size} numbers, not ${recorded.pixels.size}"
  val (own, expected) = listOf(visible, recorded).map { image ->
    image.pixels.indices.map { image.level(it).toDouble() }
  }
  if (largest(own, expected) <= ALLOWED_LEVELS) return ""
  if (largest(swapped(own, visible.channels), expected) <= ALLOWED_LEVELS) return SWAPPED
  return "another crop, resize or image decoder (grey levels are ${amount(own, expected)})"
}

/** What is wrong with the input tensor of the recorded pixels; "" if it is as recorded. */
private fun inputDifference(raw: ByteArray, recorded: ByteArray, contract: Contract): String {
  if (raw.size != recorded.size) return "it has ${raw.size} bytes, the model takes ${recorded.size}"
  val depth = contract.depth
  var own = numbers(raw, contract.input)
  var expected = numbers(recorded, contract.input)
  // Codes are exact; of floats the last digits may come from another order of the same sums.
  val whole = contract.input.type != "float32"
  val exact = if (whole) 0.0 else 1e-5 * expected.maxOf { abs(it) }
  if (largest(own, expected) <= exact) return ""
  if (largest(own, turned(expected, depth, contract.channelsFirst)) <= exact)
    return "the axes are not ${if (contract.channelsFirst) "NCHW" else "NHWC"}"
  if (contract.channelsFirst) {
    own = turned(own, depth, true)
    expected = turned(expected, depth, true)
  }
  if (largest(swapped(own, depth), expected) <= exact) return SWAPPED
  if (!whole || largest(own, expected) > 1)
    return "another input range, mean, std or zero point (values are ${amount(own, expected)})"
  val off = own.indices.count { own[it] != expected[it] }
  return "${(100.0 * off / own.size).roundToInt()}% of the codes are one off: another rounding"
}

/** The name of a field of an answer that differs; "" if none does. */
private fun answerDifference(own: Answer, expected: Answer): String = when {
  own.classes != expected.classes -> "classes"
  !near(own.scores, expected.scores) -> "scores"
  !near(own.boxes.flatten(), expected.boxes.flatten()) -> "boxes"
  !near(own.values, expected.values) -> "values"
  own.size != expected.size || own.runs != expected.runs -> "mask"
  else -> ""
}

/** How far the outputs are apart, in the steps of each. */
private fun outputSteps(
  raw: List<ByteArray>, expected: List<FloatArray>, grid: List<Double>, contract: Contract,
): Double {
  val chosen = expected.size == 4 && contract.task == "detection"
  return expected.indices.maxOf { output ->
    val own = real(raw[output], contract.outputs[output], contract)
    val theirs = expected[output]
    // Behind the number of boxes the operator leaves whatever was in memory.
    val boxes = if (chosen) expected[3][0].toInt() else 0
    val told = if (chosen && output < 3) boxes * (if (output == 0) 4 else 1) else theirs.size
    val end = told.coerceIn(0, theirs.size)
    if (own.size != theirs.size) Double.POSITIVE_INFINITY
    else (0 until end).fold(0f) { most, at -> maxOf(most, abs(own[at] - theirs[at])) } / grid[output]
  }
}

private fun numbers(raw: ByteArray, tensor: Tensor): List<Double> {
  val buffer = ByteBuffer.wrap(raw).order(ByteOrder.LITTLE_ENDIAN)
  return List(raw.size / tensor.valueSize) {
    when (tensor.type) {
      "int8" -> raw[it].toDouble()
      "uint8" -> (raw[it].toInt() and 255).toDouble()
      else -> buffer.getFloat(it * 4).toDouble()
    }
  }
}

private fun near(one: List<Double>, other: List<Double>) =
  one.size == other.size &&
    one.indices.all { abs(one[it] - other[it]) <= 1e-6 + 1e-5 * abs(other[it]) }

private fun largest(own: List<Double>, expected: List<Double>) =
  own.indices.maxOfOrNull { abs(own[it] - expected[it]) } ?: 0.0

/** How far numbers are off, for a sentence. */
private fun amount(own: List<Double>, expected: List<Double>): String {
  val average = own.indices.sumOf { abs(own[it] - expected[it]) } / own.size
  return "${digits(average)} off on the average, ${digits(largest(own, expected))} at most"
}

/** Three digits of a number, without zeros at its end. */
private fun digits(value: Double): String {
  if (!value.isFinite()) return value.toString()
  return BigDecimal(value).round(MathContext(3)).stripTrailingZeros().toPlainString()
}

private fun swapped(values: List<Double>, depth: Int) =
  values.indices.map { values[it - it % depth + depth - 1 - it % depth] }

/** A tensor by places and channels, as one of the other layout would have them. */
private fun turned(values: List<Double>, depth: Int, channelsFirst: Boolean): List<Double> {
  val places = values.size / depth
  return values.indices.map {
    values[if (channelsFirst) it % depth * places + it / depth else it % places * depth + it / places]
  }
}
