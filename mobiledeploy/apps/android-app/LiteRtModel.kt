// The model in LiteRT on a device, for Android's bitmaps: the only file that needs Android.
package answering

import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

/** The model among the assets of an app, in one thread at a time. */
class LiteRtModel(context: Context) : Inference, AutoCloseable {
  private val files: Files = { name -> context.assets.open(name).use { it.readBytes() } }
  val contract = readContract(files)
  private val interpreter = Interpreter(direct(files(contract.model)))

  fun answer(bitmap: Bitmap): Answer {
    val colors = IntArray(bitmap.height * bitmap.width)
    bitmap.getPixels(colors, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
    return answer(fromColors(colors, bitmap.height, bitmap.width), contract, this)
  }

  /** What differs from the golden samples on this device; an instrumented test expects nothing. */
  fun differences(): List<String> = differences(files, contract, this)

  override fun outputs(input: ByteArray): List<ByteArray> {
    val buffers = contract.outputs.indices.map {
      direct(ByteArray(interpreter.getOutputTensor(it).numBytes()))
    }
    val places = buffers.indices.associateWith<Int, Any> { buffers[it] }
    interpreter.runForMultipleInputsOutputs(arrayOf<Any>(direct(input)), places)
    return buffers.map { buffer ->
      buffer.rewind()
      ByteArray(buffer.remaining()).also { buffer.get(it) }
    }
  }

  override fun close() = interpreter.close()

  private fun direct(content: ByteArray): ByteBuffer {
    val buffer = ByteBuffer.allocateDirect(content.size).order(ByteOrder.nativeOrder())
    buffer.put(content)
    buffer.rewind()
    return buffer
  }
}
