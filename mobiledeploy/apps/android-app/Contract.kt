// What the app knows of its model: contract.txt and labels.txt.
package answering

/** The content of a file of the app by its name. */
typealias Files = (String) -> ByteArray

class Answer(
  val classes: List<Int> = emptyList(), // of a classifier the best five, of a detector one for each box
  val scores: List<Double> = emptyList(), // one for each class
  val boxes: List<List<Double>> = emptyList(), // left, top, right, bottom, as fractions
  val values: List<Double> = emptyList(),
  val size: List<Int> = emptyList(), // height and width of the mask; empty for no mask
  val runs: List<Int> = emptyList(), // of the mask: a class, and how many pixels have it, in turn
)

class Tensor(
  val name: String,
  val type: String, // float32, int8 or uint8
  val scale: Float, // 0 for floats
  val zeroPoint: Int,
  // Of outputs:
  val activation: String = "", // softmax, sigmoid or none
  val shape: List<Int> = emptyList(), // without the batch, channels last
) {
  /** The bytes of one value. */
  val valueSize = if (type == "float32") 4 else 1
}

class AnchorLevel(val rows: Int, val columns: Int, val sizes: List<List<Double>>) // height, width

class Sample(
  val stem: String, // golden/NAME: NAME.ppm, NAME.input.bin, NAME.output0.bin ...
  val answer: Answer,
)

class Contract(lines: List<List<String>>, val labels: List<String>) {
  private val first = lines.reversed().associateBy { it[0] }
  val model = text("model")
  val task = text("task")
  val channelsFirst = text("layout") == "NCHW"
  val height = numbers("image")[0].toInt()
  val width = numbers("image")[1].toInt()
  val depth = numbers("image")[2].toInt()
  val channels = text("channels")
  val resize = text("resize")
  val crop = numbers("crop")[0]
  val low = numbers("range")[0]
  val high = numbers("range")[1]
  val mean = numbers("mean")
  val std = numbers("std")
  val input = inputOf(first.getValue("input"))
  val outputs = lines.filter { it[0] == "output" }.map(::outputOf)
  val anchorScales = if ("anchors" in first) numbers("anchors") else emptyList()
  val anchors = lines.filter { it[0] == "level" }.map(::levelOf)
  val samples = samplesOf(lines)

  private fun text(key: String) = first[key]?.getOrNull(1) ?: error("contract.txt has no $key")

  private fun numbers(key: String): List<Double> {
    text(key)
    return first.getValue(key).drop(1).map(String::toDouble)
  }
}

/** The contract among the files of an app. */
fun readContract(files: Files): Contract {
  val lines = files("contract.txt").decodeToString().trimEnd('\n').split("\n")
  val labels = files("labels.txt").decodeToString().split("\n").dropLast(1)
  return Contract(lines.map { it.split(" ") }, labels)
}

/** The name of a class: its label, or its number where it has none. */
fun labelOf(index: Int, contract: Contract) = contract.labels.getOrElse(index) { index.toString() }

private fun inputOf(line: List<String>) = Tensor(
  line.drop(4).joinToString(" "), line[1], line[2].toDouble().toFloat(), line[3].toInt(),
)

private fun outputOf(line: List<String>): Tensor {
  val end = 6 + line[5].toInt()
  val shape = line.subList(6, end).map(String::toInt)
  val name = line.drop(end).joinToString(" ")
  return Tensor(name, line[1], line[2].toDouble().toFloat(), line[3].toInt(), line[4], shape)
}

private fun levelOf(line: List<String>) = AnchorLevel(
  line[1].toInt(), line[2].toInt(), line.drop(3).map(String::toDouble).chunked(2),
)

private fun samplesOf(lines: List<List<String>>): List<Sample> {
  val starts = lines.indices.filter { lines[it][0] == "sample" }
  return starts.map { start ->
    val answer = lines.drop(start + 1).takeWhile { it[0] == "answer" }.associate { it[1] to it.drop(2) }
    Sample(lines[start][1], answerOf(answer))
  }
}

private fun answerOf(fields: Map<String, List<String>>): Answer {
  val numbers = { name: String -> fields[name].orEmpty().map(String::toDouble) }
  val mask = numbers("mask").map(Double::toInt)
  return Answer(
    numbers("classes").map(Double::toInt), numbers("scores"), numbers("boxes").chunked(4),
    numbers("values"), mask.take(2), mask.drop(2),
  )
}
