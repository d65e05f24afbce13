/**
 * Generation: causal routing for prompt and new tokens alike, so that a token's depth depends on what came before it
 * and nothing else. Each new token runs the whole text again; the programs are recorded for growing lengths.
 */
import { setImmediate } from "node:timers";
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { fullRecords } from "../gpu/packing.ts";
import { BufferScope } from "../gpu/memory.ts";
import { readTensors } from "../gpu/readback.ts";
import { viewTensor, writeTensor } from "../gpu/tensor.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import type { ParameterViews } from "./parameters.ts";
import { uniform } from "./random.ts";
import { logProbabilities, sampleToken, type SamplingOptions, type TokenProbability } from "./sampler.ts";
import { transformerForward } from "./transformer.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

/** One generated token. */
export interface GeneratedToken {
  readonly id: number;
  /**
   * Recursion steps that the text's last token before it ran: the work that decided this token. Vanilla models have 0,
   * the recursive baseline always its number of recursions.
   */
  readonly depth: number;
  readonly logProbability: number;
  /** The likeliest alternatives, when asked for. */
  readonly top: readonly TokenProbability[];
}

export interface GenerateOptions {
  readonly prompt: readonly number[];
  /** Most tokens to generate. */
  readonly count: number;
  readonly sampling: SamplingOptions;
  readonly seed: number;
  /** Alternatives reported with each token. */
  readonly logProbabilities: number;
  /** Generation ends before this token; null never. */
  readonly endOfText: number | null;
}

/** Shortest length that a program is recorded for; longer ones double. */
const SHORTEST = 64;

/** A forward pass for texts of up to a length, with the buffers it owns. */
interface Program {
  readonly workspace: Workspace;
  readonly commands: Commands;
  readonly scope: BufferScope;
}

/** Causal forward passes of growing texts: one recorded program at a time. */
export class CausalForward {
  readonly #device: GpuDevice;
  readonly #config: ModelConfig;
  readonly #weights: ParameterViews;
  #program: Program | null = null;

  constructor(device: GpuDevice, { config, weights }: { config: ModelConfig; weights: ParameterViews }) {
    this.#device = device;
    this.#config = config;
    this.#weights = weights;
  }

  /**
   * Logits (V) after the last token, and the depth of that token.
   *
   * @throws ConfigError for a text longer than the model's positions.
   */
  async run(ids: readonly number[]): Promise<{ logits: Float32Array; depth: number }> {
    const { workspace, commands } = this.#programFor(ids.length);
    const { full, headPacking, logits, selections } = workspace;
    const length = ids.length;
    writeTensor(this.#device, workspace.ids, Uint32Array.from(ids));
    writeTensor(this.#device, full.records, fullRecords({ sequences: 1, tokens: length }));
    writeTensor(this.#device, full.rows.count, Uint32Array.of(length));
    writeTensor(this.#device, headPacking.records, Uint32Array.of(length - 1, length - 1, 0, 1));
    submit(this.#device, [commands]);
    const row = viewTensor(logits, { shape: [this.#config.vocabSize] });
    const choices = selections.flatMap(({ packing: { rows, records } }) => [rows.count, records]);
    const [values, ...packed] = await readTensors(this.#device, [row, ...choices]);
    const fixed = selections.length === 0 ? this.#config.recursion?.numRecursions ?? 0 : 0;
    const depth = selections.reduce((sum, _, r) => {
      // Records are ascending: the last token is in a step if it is the last there.
      const count = packed[2 * r]![0]!;
      const isActive = count > 0 && packed[2 * r + 1]![(count - 1) * 4] === length - 1;
      return sum + Number(isActive);
    }, fixed);
    return { logits: values as Float32Array, depth };
  }

  #programFor(length: number): Program {
    const { maxPositionEmbeddings } = this.#config;
    if (length > maxPositionEmbeddings) {
      throw new ConfigError(
        `Cannot run ${length} tokens: the model has ${maxPositionEmbeddings} positions (max_position_embeddings); ` +
          "give a shorter prompt or a smaller -n",
      );
    }
    if (this.#program && this.#program.workspace.shape.tokens >= length) return this.#program;
    this.#program?.commands.destroy();
    this.#program?.scope.destroy();
    let tokens = SHORTEST;
    while (tokens < length) tokens *= 2;
    const scope = new BufferScope(this.#device);
    const workspace = allocateWorkspace(scope, {
      config: this.#config,
      shape: {
        sequences: 1,
        tokens: Math.min(tokens, maxPositionEmbeddings),
        routing: "causal",
        backward: false,
        head: "one",
      },
    });
    const commands = new Commands(this.#device, "causal forward");
    transformerForward(commands, { config: this.#config, weights: this.#weights, workspace }, {
      lossScale: null,
    });
    this.#program = { workspace, commands, scope };
    return this.#program;
  }
}

/**
 * Generates tokens one by one.
 *
 * @throws ConfigError for an empty prompt, or a text that would be longer than the model's positions.
 */
export async function* generate(
  forward: CausalForward,
  options: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  const { prompt, count, sampling, seed, endOfText } = options;
  if (prompt.length === 0) {
    throw new ConfigError("Cannot generate from an empty prompt; give at least one token");
  }
  const ids = [...prompt];
  const seen = new Set(ids);
  const next = uniform(seed, "sampling");
  for (let i = 0; i < count; i++) {
    const { logits, depth } = await forward.run(ids);
    const id = sampleToken(logits, { options: sampling, seen, next });
    if (id === endOfText) return;
    const { chosen, top } = logProbabilities(logits, { chosen: id, count: options.logProbabilities });
    yield { id, depth, logProbability: chosen.logProbability, top };
    ids.push(id);
    seen.add(id);
    // Reading back blocks the event loop: let signals through.
    await new Promise((resolve) => setImmediate(resolve));
  }
}
