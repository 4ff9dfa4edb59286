// An image as the model's input, exactly as at its training and calibration.
package answering

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** 8-bit pixels, row by row: RGB, or one gray channel. */
class Image(val height: Int, val width: Int, val channels: Int, val pixels: ByteArray) {
  fun level(place: Int) = pixels[place].toInt() and 255
}

/** The RGB image of colours as Android's bitmaps have them, laid on white where they are transparent. */
fun fromColors(colors: IntArray, height: Int, width: Int): Image {
  val pixels = ByteArray(colors.size * 3) { place ->
    val color = colors[place / 3]
    val alpha = color ushr 24
    val level = color ushr (16 - 8 * (place % 3)) and 255
    ((level * alpha + 255 * (255 - alpha) + 127) / 255).toByte()
  }
  return Image(height, width, 3, pixels)
}

/** A binary PPM (P6, 8 bits) by its content; IllegalArgumentException for anything else. */
fun readPpm(content: ByteArray): Image {
  // Comments stand between the numbers.
  val head = Regex("""P6\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)""")
    .matchAt(String(content, 0, min(content.size, LONGEST_HEAD), Charsets.ISO_8859_1), 0)
  val (width, height, most) = head?.groupValues?.drop(1)?.map { it.toIntOrNull() ?: 0 } ?: listOf(0, 0, 0)
  require(most == 255 && height in 1..LARGEST && width in 1..LARGEST) {
    "is not a binary PPM of 8 bits (P6)"
  }
  // One white space stands between the head and the pixels.
  val start = head!!.value.length + 1
  val size = height.toLong() * width * 3
  require(content.size - start >= size) { "is cut short" }
  return Image(height, width, 3, content.copyOfRange(start, start + size.toInt()))
}

/** Both steps: the raw input tensor of the model for an RGB image. */
fun prepare(image: Image, contract: Contract) = tensor(visible(image, contract), contract)

/** What the model sees of an RGB image: its size, its channels in their order. */
fun visible(image: Image, contract: Contract): Image {
  var part = cropped(image, contract.crop)
  if (contract.channels == "gray") part = gray(part)
  if (part.height != contract.height || part.width != contract.width)
    part = resized(part, contract.height, contract.width, FILTERS.getValue(contract.resize))
  return if (contract.channels == "bgr") swapped(part) else part
}

/** The raw input tensor of the model for what it sees. */
fun tensor(visible: Image, contract: Contract): ByteArray {
  val depth = visible.channels
  val places = visible.height * visible.width
  val size = contract.input.valueSize
  val raw = ByteBuffer.allocate(places * depth * size).order(ByteOrder.LITTLE_ENDIAN)
  for (channel in 0 until depth)
    for (place in 0 until places) {
      val value = realValue(visible.level(place * depth + channel), channel, contract)
      val to = if (contract.channelsFirst) channel * places + place else place * depth + channel
      if (size == 4) raw.putFloat(to * 4, value) else raw.put(to, code(value, contract.input).toByte())
    }
  return raw.array()
}

private const val LARGEST = 1 shl 15
private const val LONGEST_HEAD = 4096
private const val PRECISION = 32 - 8 - 2 // bits of a weight's fraction, as in Pillow

/** The real value of a pixel in a channel of the model. */
private fun realValue(pixel: Int, channel: Int, contract: Contract): Float {
  val value = contract.low + pixel / 255.0 * (contract.high - contract.low)
  return ((value - contract.mean[channel]) / contract.std[channel]).toFloat()
}

/** The code of a real value. */
private fun code(value: Float, tensor: Tensor): Int {
  val steps = value / tensor.scale
  val unsigned = tensor.type == "uint8"
  // Halves of uint8 round up, a little below a half too: pixel p has the code p then. Kotlin's
  // `round` takes halves to the even number.
  val rounded = if (unsigned) floor(steps + 0.501f) else round(steps)
  val lowest = if (unsigned) 0f else -128f
  return (rounded + tensor.zeroPoint).coerceIn(lowest, lowest + 255).toInt()
}

/** The centre of an image: `share` of each side. */
private fun cropped(image: Image, share: Double): Image {
  val top = ((image.height - image.height * share) / 2).toInt()
  val left = ((image.width - image.width * share) / 2).toInt()
  val height = image.height - 2 * top
  val width = image.width - 2 * left
  val row = width * image.channels
  val pixels = ByteArray(height * row)
  for (y in 0 until height) {
    val start = ((y + top) * image.width + left) * image.channels
    image.pixels.copyInto(pixels, y * row, start, start + row)
  }
  return Image(height, width, image.channels, pixels)
}

/** Luma by ITU-R 601, in whole numbers as Pillow computes it. */
private fun gray(image: Image) = Image(
  image.height, image.width, 1,
  ByteArray(image.height * image.width) {
    val (red, green, blue) = List(3) { channel -> image.level(it * 3 + channel) }
    ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16).toByte()
  },
)

private fun swapped(image: Image) = Image(
  image.height, image.width, image.channels,
  ByteArray(image.pixels.size) { image.pixels[it - it % 3 + 2 - it % 3] },
)

private class Filter(val support: Double, val weight: (Double) -> Double)

private val FILTERS = mapOf(
  "bilinear" to Filter(1.0) { max(1 - abs(it), 0.0) },
  "bicubic" to Filter(2.0) {
    val a = -0.5
    val t = abs(it)
    if (t < 1) ((a + 2) * t - (a + 3)) * t * t + 1
    else if (t < 2) (((t - 5) * t + 8) * t - 4) * a
    else 0.0
  },
)

/** Where the pixels of a new row come from: the first old one, and the weights of it and the next. */
private class Source(val first: Int, val weights: IntArray)

/** Pillow's weights: the filter is widened for smaller sizes, so that nothing aliases. */
private fun sources(oldSize: Int, newSize: Int, filter: Filter): List<Source> {
  val scale = oldSize.toDouble() / newSize
  val widened = max(scale, 1.0)
  val support = filter.support * widened
  return List(newSize) { place ->
    val center = (place + 0.5) * scale
    val first = max((center - support + 0.5).toInt(), 0)
    val end = min((center + support + 0.5).toInt(), oldSize)
    val weights = (first until end).map { filter.weight((it - center + 0.5) * (1 / widened)) }
    val sum = weights.sum()
    val whole = weights.map { (if (sum != 0.0) it / sum else it) * (1 shl PRECISION) }
    Source(first, whole.map { (it + if (it < 0) -0.5 else 0.5).toInt() }.toIntArray())
  }
}

/** One axis of a resize, from a place in `from` to a place in `to`; pixels are `stride` apart. */
private fun resizeAxis(
  from: Image, start: Int, to: ByteArray, target: Int, table: List<Source>, stride: Int,
) {
  table.forEachIndexed { place, source ->
    var sum = 1 shl (PRECISION - 1)
    source.weights.forEachIndexed { step, weight ->
      sum += from.level(start + (source.first + step) * stride) * weight
    }
    to[target + place * stride] = (sum shr PRECISION).coerceIn(0, 255).toByte()
  }
}

private fun wider(image: Image, width: Int, filter: Filter): Image {
  val depth = image.channels
  val pixels = ByteArray(image.height * width * depth)
  val table = sources(image.width, width, filter)
  for (y in 0 until image.height)
    for (channel in 0 until depth)
      resizeAxis(
        image, y * image.width * depth + channel, pixels, y * width * depth + channel, table, depth,
      )
  return Image(image.height, width, depth, pixels)
}

private fun higher(image: Image, height: Int, filter: Filter): Image {
  val stride = image.width * image.channels
  val pixels = ByteArray(height * stride)
  val table = sources(image.height, height, filter)
  for (place in 0 until stride) resizeAxis(image, place, pixels, place, table, stride)
  return Image(height, image.width, image.channels, pixels)
}

private fun resized(image: Image, height: Int, width: Int, filter: Filter): Image {
  // Pixels are rounded after each axis. The order of the axes is that of Pillow 13: before, the
  // rows always came first, which makes a difference of one level at most.
  val fewerRows = image.height - height
  val fewerColumns = image.width - width
  return if (fewerRows > 0 && fewerRows > 2 * fewerColumns)
    wider(higher(image, height, filter), width, filter)
  else higher(wider(image, width, filter), height, filter)
}
