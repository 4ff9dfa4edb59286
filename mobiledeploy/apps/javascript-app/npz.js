// Input tensors as numpy reads them, for `mobiledeploy verify ARTIFACT --pipeline FILE.npz`.

const TYPES = { float32: "<f4", int8: "|i1", uint8: "|u1" };

// A file of the numbers of input tensors by their names.
export function npz(tensors, { dtype, shape }) {
  const files = [];
  const index = [];
  let start = 0;
  for (const [stem, numbers] of tensors) {
    const name = new TextEncoder().encode(`${stem}.npy`);
    const content = npy(numbers, TYPES[dtype], shape);
    // Version, flags (names are UTF-8), method (stored), time and date (1980-01-01), checksum,
    // sizes, length of the name.
    const common = packed(
      [20, 2], [0x800, 2], [0, 2], [0, 2], [33, 2], [crc32(content), 4], [content.length, 4],
      [content.length, 4], [name.length, 2], [0, 2],
    );
    index.push(packed([0x02014b50, 4], [20, 2]), common);
    index.push(packed([0, 2], [0, 2], [0, 2], [0, 4], [start, 4]), name);
    files.push(packed([0x04034b50, 4]), common, name, content);
    start += 4 + common.length + name.length + content.length;
  }
  const size = index.reduce((sum, part) => sum + part.length, 0);
  const count = tensors.length;
  const end = packed(
    [0x06054b50, 4], [0, 2], [0, 2], [count, 2], [count, 2], [size, 4], [start, 4], [0, 2],
  );
  return new Blob([...files, ...index, end]);
}

// An array in numpy's format 1.0.
function npy(numbers, type, shape) {
  let head = `{'descr': '${type}', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
  head = `${head.padEnd(head.length + 63 - ((10 + head.length) % 64))}\n`;
  const begin = packed([0x93, 1], ...Array.from("NUMPY", (c) => [c.charCodeAt(0), 1]));
  const rest = packed([1, 1], [0, 1], [head.length, 2]);
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  const parts = [begin, rest, new TextEncoder().encode(head), bytes];
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

// Little-endian numbers of so many bytes each.
function packed(...numbers) {
  return Uint8Array.from(
    numbers.flatMap(([number, bytes]) => Array.from({ length: bytes }, (_, b) => number >>> (8 * b))),
  );
}

function crc32(content) {
  let crc = -1;
  for (const byte of content) {
    crc ^= byte;
    for (let bit = 0; bit < 8; ++bit) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
