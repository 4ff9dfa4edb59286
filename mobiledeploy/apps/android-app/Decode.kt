// The model's outputs as an answer.
package answering

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** What runs the model: the raw outputs for a raw input tensor, both little-endian. */
fun interface Inference {
  fun outputs(input: ByteArray): List<ByteArray>
}

/** The answer to an image. */
fun answer(image: Image, contract: Contract, model: Inference): Answer {
  val raw = model.outputs(prepare(image, contract))
  return decode(raw.mapIndexed { place, bytes -> real(bytes, contract.outputs[place], contract) }, contract)
}

/** The real values of a raw output, channels last. */
fun real(raw: ByteArray, tensor: Tensor, contract: Contract): FloatArray {
  val numbers = ByteBuffer.wrap(raw).order(ByteOrder.LITTLE_ENDIAN)
  val values = FloatArray(raw.size / tensor.valueSize) {
    if (tensor.type == "float32") numbers.getFloat(it * 4)
    else {
      val code = if (tensor.type == "int8") raw[it].toInt() else raw[it].toInt() and 255
      (code - tensor.zeroPoint).toFloat() * tensor.scale
    }
  }
  if (!contract.channelsFirst || tensor.shape.size != 3) return values
  val depth = tensor.shape[2]
  val places = values.size / depth
  return FloatArray(values.size) { values[it % depth * places + it / depth] }
}

/** What the task reads in the real values of the outputs. */
fun decode(outputs: List<FloatArray>, contract: Contract): Answer {
  val values = outputs[0]
  val end = contract.outputs[0]
  return when (contract.task) {
    "classification" -> best(doubles(values))
    "binary" -> binary(values, end)
    "multilabel" -> multilabel(values, end)
    "segmentation" -> segmentation(values, end)
    "detection" -> detection(outputs, contract)
    // A regression's numbers, or the vector of an embedding.
    else -> Answer(values = doubles(values))
  }
}

private const val BEST = 5
private const val MOST_BOXES = 100
private const val OVERLAP = 0.6 // of two boxes of one class, by IoU: beyond it the better one stays
private const val LARGEST_GROWTH = 10.0

private fun doubles(values: FloatArray) = values.map(Float::toDouble)

/** The places of `scores`, best first; of equal scores the lower place comes first. */
private fun ranked(scores: List<Double>): List<Int> {
  // What is not a number comes last, and both zeros are equal.
  val keys = scores.map { if (it.isNaN()) Double.NEGATIVE_INFINITY else it + 0.0 }
  return scores.indices.sortedByDescending { keys[it] }
}

private fun best(scores: List<Double>, values: List<Double> = emptyList()): Answer {
  val places = ranked(scores).take(BEST)
  return Answer(places, places.map { scores[it] }, values = values)
}

/** Sigmoids of an output, unless it ends in them. */
private fun probabilities(values: FloatArray, end: Tensor) =
  if (end.activation == "sigmoid") doubles(values)
  else doubles(values).map { (if (it >= 0) 1.0 else exp(it)) / (1 + exp(-abs(it))) }

/** No (class 0) or yes (class 1); `values` is the probability of yes. */
private fun binary(values: FloatArray, end: Tensor): Answer {
  val chance = probabilities(values, end)[0]
  return best(listOf(1 - chance, chance), listOf(chance))
}

private fun multilabel(values: FloatArray, end: Tensor): Answer {
  val chances = probabilities(values, end)
  return best(chances, chances)
}

private fun segmentation(values: FloatArray, end: Tensor): Answer {
  val depth = end.shape[2]
  val threshold = if (end.activation == "sigmoid") 0.5f else 0f
  val runs = mutableListOf<Int>()
  for (start in values.indices step depth) {
    var best = 0
    if (depth == 1) best = if (values[start] > threshold) 1 else 0
    else for (place in 1 until depth) if (values[start + place] > values[start + best]) best = place
    if (runs.isEmpty() || runs[runs.size - 2] != best) runs.addAll(listOf(best, 0))
    ++runs[runs.lastIndex]
  }
  return Answer(size = end.shape.take(2), runs = runs)
}

/** A box (left, top, right, bottom) whose right and bottom are not before its left and top. */
private fun upright(box: List<Double>) =
  listOf(box[0], box[1], max(box[0], box[2]), max(box[1], box[3]))

private fun finite(box: List<Double>) = box.all(Double::isFinite)

private fun area(box: List<Double>) = (box[2] - box[0]) * (box[3] - box[1])

/** The intersection over union; 1 for equal boxes. */
private fun iou(one: List<Double>, other: List<Double>): Double {
  if (one == other) return 1.0
  val width = min(one[2], other[2]) - max(one[0], other[0])
  val height = min(one[3], other[3]) - max(one[1], other[1])
  val both = max(width, 0.0) * max(height, 0.0)
  val either = area(one) + area(other) - both
  return if (either > 0) both / either else both
}

/** The boxes of the offsets (ty, tx, th, tw) from anchors. */
private fun fromAnchors(offsets: List<List<Double>>, contract: Contract): List<List<Double>> {
  val anchors = contract.anchors.flatMap { level ->
    (0 until level.rows * level.columns).flatMap { cell ->
      val y = (cell / level.columns + 0.5) / level.rows
      val x = (cell % level.columns + 0.5) / level.columns
      level.sizes.map { (height, width) -> listOf(y, x, height, width) }
    }
  }
  val scales = contract.anchorScales
  return anchors.zip(offsets) { (centerY, centerX, height, width), t ->
    val y = t[0] / scales[0] * height + centerY
    val x = t[1] / scales[1] * width + centerX
    val halfHeight = height * exp(min(t[2] / scales[2], LARGEST_GROWTH)) / 2
    val halfWidth = width * exp(min(t[3] / scales[3], LARGEST_GROWTH)) / 2
    listOf(x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight)
  }
}

/** The outputs of TFLite_Detection_PostProcess: boxes, classes, scores, and their number. */
private fun chosenByTheModel(outputs: List<FloatArray>): Answer {
  val (boxes, classes, scores, told) = outputs.map(::doubles)
  // What is behind that number is whatever was in memory.
  val count = if (told[0].isFinite()) told[0].coerceIn(0.0, scores.size.toDouble()).toInt() else 0
  val places = ranked(scores.take(count)).filter {
    scores[it] > 0 && finite(boxes.subList(it * 4, it * 4 + 4)) && classes[it].isFinite()
  }.take(MOST_BOXES)
  return Answer(
    places.map { round(classes[it]).toInt() },
    places.map { scores[it] },
    places.map { upright(listOf(1, 0, 3, 2).map { side -> boxes[it * 4 + side] }) },
  )
}

private fun detection(outputs: List<FloatArray>, contract: Contract): Answer {
  if (outputs.size == 4) return chosenByTheModel(outputs)
  val boxesAt = if (contract.outputs[0].shape.last() == 4) 0 else 1
  val offsets = doubles(outputs[boxesAt]).chunked(4)
  val anchored = contract.anchors.isNotEmpty()
  val boxes = (if (anchored) fromAnchors(offsets, contract) else offsets).map(::upright)
  val table = doubles(outputs[1 - boxesAt])
  val classes = table.size / boxes.size
  val scores = table.mapIndexed { place, score -> if (finite(boxes[place / classes])) score else 0.0 }
  // Non-maximum suppression for each class.
  val kept = mutableListOf<Int>()
  for (place in ranked(scores)) {
    if (!(scores[place] > 0) || kept.size == MOST_BOXES) break
    val hidden = kept.any {
      it % classes == place % classes && iou(boxes[place / classes], boxes[it / classes]) > OVERLAP
    }
    if (!hidden) kept.add(place)
  }
  return Answer(
    kept.map { it % classes },
    kept.map { scores[it] },
    kept.map {
      val box = boxes[it / classes]
      if (anchored) box.map { side -> side.coerceIn(0.0, 1.0) } else box
    },
  )
}
