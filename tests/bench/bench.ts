/**
 * Speed on this machine's adapter: `deno task bench`, or the parts named: `deno task bench decoding`.
 *
 * Everything compared is measured in one run, in turn, and given as the median of several repeats with its range.
 * `routers` trains four models for some minutes each and compares their loss; it runs only when named.
 */
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { benchDecoding } from "./decoding.ts";
import { benchProducts } from "./products.ts";
import { print } from "./report.ts";
import { compareRouters } from "./routers.ts";
import { benchTraining } from "./training.ts";

const PARTS: Readonly<Record<string, (device: GpuDevice) => Promise<void>>> = {
  products: benchProducts,
  training: benchTraining,
  decoding: benchDecoding,
  routers: compareRouters,
};
const USUAL = ["products", "training", "decoding"];

if (import.meta.main) {
  const names = Deno.args.length > 0 ? Deno.args : USUAL;
  const unknown = names.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) {
    print(`bench: unknown part "${unknown}", wanted ${Object.keys(PARTS).join(", ")}`);
    Deno.exit(2);
  }
  for (const name of names) {
    // A device of its own for each part: none inherits compiled kernels or memory.
    using device = await openDevice();
    print(`\n${name} on ${device.info.description}${device.info.isSoftware ? " (software)" : ""}`);
    await PARTS[name]!(device);
  }
}
