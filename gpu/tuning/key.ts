/** When measured choices hold: for the same adapter, compiler, variants and work. */
import type { GpuDevice } from "../device.ts";
import { ATTENTION_KERNELS, ATTENTION_VARIANTS } from "../kernels/attention_variants.ts";
import { CACHED_VARIANTS } from "../kernels/attention_cached.ts";
import { MATMUL_VARIANTS } from "../kernels/matmul.ts";
import { PANEL_VARIANTS, VECTOR_VARIANTS } from "../kernels/matmul_vector.ts";
import { tuningCases } from "./measure.ts";
import { VECTOR_ROWS } from "./tuning.ts";

/** Sources and constants of every variant: where they change, measurements are void. */
const TUNED_SOURCES: string = JSON.stringify([
  ...[MATMUL_VARIANTS, VECTOR_VARIANTS, PANEL_VARIANTS, VECTOR_ROWS],
  ...[ATTENTION_VARIANTS, ATTENTION_KERNELS, CACHED_VARIANTS],
]);

/**
 * A hash of what decides how fast the variants are: the adapter as it describes itself (WebGPU tells no driver version),
 * what compiles shaders, the variants and the work.
 *
 * @param sources `TUNED_SOURCES` but for tests.
 */
export async function tuningKey(device: GpuDevice, sources: string = TUNED_SOURCES): Promise<string> {
  const { os, arch } = Deno.build;
  const cases = tuningCases(device).map(({ choice, work, candidates }) => [choice, work, candidates]);
  const parts = [device.info, [...device.features].sort(), Deno.version.deno, os, arch, cases, sources];
  const bytes = new TextEncoder().encode(JSON.stringify(parts));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}
