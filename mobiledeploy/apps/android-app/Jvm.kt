// What replays the golden samples without a device, on a Java virtual machine.
package answering

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.math.roundToInt
import kotlin.system.exitProcess

private const val USAGE =
  """usage: java -jar app.jar --golden-test
       java -jar app.jar [--inputs FILE.npz] IMAGE.ppm... (in the app's folder)"""

/** Stands in for the model: the recorded outputs of the sample that has this very input. */
class Recorded(private val files: Files, private val contract: Contract) : Inference {
  override fun outputs(input: ByteArray): List<ByteArray> {
    val sample = contract.samples.firstOrNull { input.contentEquals(files("${it.stem}.input.bin")) }
    requireNotNull(sample) { "is no golden sample: only LiteRT on a device answers other images" }
    return recordedOutputs(files, sample, contract)
      .mapIndexed { place, values -> raw(values, contract.outputs[place]) }
  }

  /** The inverse of `real`. */
  private fun raw(values: FloatArray, tensor: Tensor): ByteArray {
    val bytes = ByteBuffer.allocate(values.size * tensor.valueSize).order(ByteOrder.LITTLE_ENDIAN)
    val turned = contract.channelsFirst && tensor.shape.size == 3
    val depth = if (turned) tensor.shape[2] else 1
    values.forEachIndexed { place, value ->
      val to = place % depth * (values.size / depth) + place / depth
      if (tensor.type == "float32") bytes.putFloat(to * 4, value)
      else bytes.put(to, ((value / tensor.scale).roundToInt() + tensor.zeroPoint).toByte())
    }
    return bytes.array()
  }
}

fun main(arguments: Array<String>) {
  val inputs = arguments.firstOrNull() == "--inputs"
  val names = arguments.drop(if (inputs) 2 else 0)
  if (arguments.toList() != listOf("--golden-test") && (names.isEmpty() || names[0].startsWith("-"))) {
    System.err.println(USAGE)
    exitProcess(2)
  }
  try {
    val files = { name: String -> File(name).readBytes() }
    val contract = readContract(files)
    val model = Recorded(files, contract)
    if (arguments[0] == "--golden-test") exitProcess(goldenTest(files, contract, model))
    val images = names.associateWith { name -> told(name) { readPpm(File(name).readBytes()) } }
    if (inputs) writeNpz(File(arguments[1]), images.mapValues { prepare(it.value, contract) }, contract)
    else for ((name, image) in images)
      println(line(name, told(name) { answer(image, contract, model) }, contract))
  } catch (error: Exception) {
    System.err.println(error.message)
    exitProcess(1)
  }
}

/** The exit code: 1 if something differs. */
private fun goldenTest(files: Files, contract: Contract, model: Inference): Int {
  val lines = differences(files, contract, model)
  lines.forEach(::println)
  if (lines.isEmpty())
    println("pass: the golden samples are replayed, but for the model: its outputs are the recorded ones")
  return if (lines.isEmpty()) 0 else 1
}

/** The work for an image; an error that its content causes names it. */
private fun <Result> told(name: String, work: () -> Result): Result = try {
  work()
} catch (error: IllegalArgumentException) {
  throw IllegalArgumentException("$name ${error.message}")
}

/** A line of JSON. */
private fun line(name: String, answer: Answer, contract: Contract): String {
  val fields = mutableListOf("\"image\": ${quoted(name)}")
  val field = { key: String, value: Any -> fields.add("\"$key\": $value") }
  if (answer.size.isEmpty() && (answer.classes.isNotEmpty() || answer.values.isEmpty())) {
    field("classes", answer.classes)
    field("scores", answer.scores)
    if (contract.labels.isNotEmpty())
      field("labels", answer.classes.map { quoted(labelOf(it, contract)) })
  }
  if (answer.boxes.isNotEmpty()) field("boxes", answer.boxes)
  if (answer.values.isNotEmpty()) field("values", answer.values)
  if (answer.size.isNotEmpty()) field("mask", "{\"size\": ${answer.size}, \"runs\": ${answer.runs}}")
  return fields.joinToString(", ", "{", "}")
}

/** A string of JSON, in ASCII. */
private fun quoted(text: String) = text.map {
  if (it in ' '..'~' && it != '"' && it != '\\') "$it" else "\\u" + "%04x".format(it.code)
}.joinToString("", "\"", "\"")

/** Input tensors as numpy reads them, for `mobiledeploy verify ARTIFACT --pipeline FILE.npz`. */
private fun writeNpz(path: File, tensors: Map<String, ByteArray>, contract: Contract) {
  val type = mapOf("float32" to "<f4", "int8" to "|i1", "uint8" to "|u1").getValue(contract.input.type)
  val sides = listOf(contract.height, contract.width)
  val shape = if (contract.channelsFirst) listOf(contract.depth) + sides else sides + contract.depth
  val head = "{'descr': '$type', 'fortran_order': False, 'shape': (1, ${shape.joinToString()}), }"
  // The head of numpy's format 1.0 ends at a multiple of 64 bytes.
  val padded = head.padEnd(head.length + 63 - (10 + head.length) % 64) + "\n"
  ZipOutputStream(path.outputStream()).use { archive ->
    for ((name, content) in tensors) {
      archive.putNextEntry(ZipEntry("${File(name).nameWithoutExtension}.npy"))
      archive.write(byteArrayOf(0x93.toByte()) + "NUMPY".encodeToByteArray())
      archive.write(byteArrayOf(1, 0, padded.length.toByte(), (padded.length shr 8).toByte()))
      archive.write(padded.encodeToByteArray() + content)
      archive.closeEntry()
    }
  }
}
