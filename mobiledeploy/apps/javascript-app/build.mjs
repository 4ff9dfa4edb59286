// Bundles the app's code into dist/, with ONNX Runtime's WebAssembly beside it.
import { copyFileSync } from "node:fs";
import { build } from "esbuild";

await build({
  entryPoints: ["app.js", "golden_test.js"],
  bundle: true,
  format: "esm",
  outdir: "dist",
  logLevel: "warning",
});
for (const suffix of ["mjs", "wasm"]) {
  const name = `ort-wasm-simd-threaded.${suffix}`;
  copyFileSync(`node_modules/onnxruntime-web/dist/${name}`, `dist/${name}`);
}
