/** Choices of kernels as `mor doctor --tune` might keep them, none of them a default. */
import type { KeptTuning } from "../../cli/tuning_file.ts";
import type { Tuning } from "../../gpu/tuning/tuning.ts";

export const choices: Tuning = {
  matmul: "tile_128x128",
  matmulFewRows: "tile_32x32",
  matmulGradient: "tile_64x64",
  matmulVector: "lanes_128",
  matmulPanel: "slices_8",
  vectorRows: 32,
  attention: "lanes_64",
  attentionCached: "lanes_256",
};

export const kept: KeptTuning = { adapter: "some adapter", measured: "2026-11-24T09:30:00.000Z", choices };
