/** Speed of cached decoding: a prompt at once, tokens one by one, and what a token's depth costs. */
import type { GpuDevice } from "../../gpu/device.ts";
import { readbackMode } from "../../gpu/readback.ts";
import type { ModelConfig, TokenChoiceConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { ParameterLayout } from "../../model/parameter_layout.ts";
import { parameterCount } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { initializeWeights } from "../../model/weights.ts";
import { median, print, range, REPEATS } from "./report.ts";

/** The peers' tiny shape: 3.5 M parameters in 4 layers. */
const TINY = {
  vocabSize: 512,
  hiddenSize: 256,
  intermediateSize: 768,
  numAttentionHeads: 4,
  numKeyValueHeads: 4,
  headDim: 64,
  maxPositionEmbeddings: 1024,
  tokenizer: null,
} as const;

const PROMPT = 512;
const TOKENS = 128;

const SAMPLING = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0, repeatPenalty: 1, seed: 1 };

/** A block of 4 layers at width 512, where it is nearly all of a step; 14 layers unrolled. */
function wideTokenChoice(): ModelConfig {
  const { recursion, ...rest } = presetConfig("tiny-tok3");
  return {
    ...rest,
    ...TINY,
    hiddenSize: 512,
    intermediateSize: 1536,
    numAttentionHeads: 8,
    numKeyValueHeads: 8,
    numHiddenLayers: 14,
    recursion: { ...recursion!, blockLayers: 4 },
    router: rest.router as TokenChoiceConfig,
  };
}

function decoder(device: GpuDevice, config: ModelConfig): Decoder {
  const layout = new ParameterLayout(config);
  const weights = layout.allocate(device, "weights");
  initializeWeights(device, { layout, weights, seed: 1 });
  return new Decoder(device, { config, weights, slots: 1, capacity: PROMPT + TOKENS });
}

function promptOf(length: number): number[] {
  return Array.from({ length }, (_, i) => (i * 7) % TINY.vocabSize);
}

/** Milliseconds of some tokens, one by one, each read back before the next. */
async function stepTime(decoder: Decoder, { count }: { count: number }): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < count; i++) await decoder.step([0]);
  return performance.now() - start;
}

async function benchTiny(device: GpuDevice): Promise<void> {
  const configs: Record<string, ModelConfig> = {
    "vanilla, 4 layers": { ...presetConfig("tiny-vanilla"), ...TINY, numHiddenLayers: 4 },
    "MoR-3, 5 layers unrolled": { ...presetConfig("tiny-mor3"), ...TINY },
  };
  const rows = Object.entries(configs).map(([name, config]) => ({
    name: `${name}, ${(parameterCount(config) / 1e6).toFixed(2)} M`,
    decoder: decoder(device, config),
    prompts: [] as number[],
    tokens: [] as number[],
  }));
  // The first round compiles the kernels.
  for (let repeat = -1; repeat < REPEATS; repeat++) {
    for (const { decoder, prompts, tokens } of rows) {
      const start = performance.now();
      await decoder.start(0, { prompt: promptOf(PROMPT), sampling: SAMPLING });
      const promptSpeed = (PROMPT * 1000) / (performance.now() - start);
      await decoder.start(0, { prompt: promptOf(1), sampling: SAMPLING });
      const tokenSpeed = (TOKENS * 1000) / await stepTime(decoder, { count: TOKENS });
      if (repeat < 0) continue;
      prompts.push(promptSpeed);
      tokens.push(tokenSpeed);
    }
  }
  print(
    `d 256, FFN 768, V 512, f32, sampled on the device, ${readbackMode(device)} readback of each token: ` +
      `tokens/s, median of ${REPEATS} (range)`,
  );
  for (const { name, decoder, prompts, tokens } of rows) {
    print(`  ${name.padEnd(34)} pp${PROMPT} ${range(prompts, 0).padEnd(24)} tg${TOKENS} ${range(tokens, 0)}`);
    decoder[Symbol.dispose]();
  }
}

async function benchDepths(device: GpuDevice): Promise<void> {
  using wide = decoder(device, wideTokenChoice());
  const times = [1, 2, 3].map((depth) => ({ depth, ms: [] as number[] }));
  const count = 16;
  for (let repeat = -1; repeat < REPEATS; repeat++) {
    for (const { depth, ms } of times) {
      wide.forceDepth(depth);
      await wide.start(0, { prompt: promptOf(32), sampling: SAMPLING });
      const time = await stepTime(wide, { count });
      if (repeat >= 0) ms.push(time / count);
    }
  }
  print(`\nd 512, FFN 1536, block of 4 layers, 14 unrolled, every token forced to one depth: ms a token`);
  for (const { depth, ms } of times) {
    const parts = ms.map((time, i) => time / times[2]!.ms[i]!);
    print(`  depth ${depth}   ${range(ms, 2).padEnd(24)} ${median(parts).toFixed(3)} of depth 3`);
  }
}

/** Decoding at the peers' tiny shape, and by depth where the block dominates. */
export async function benchDecoding(device: GpuDevice): Promise<void> {
  await benchTiny(device);
  await benchDepths(device);
}
