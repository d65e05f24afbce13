/**
 * jax-js in a process of its own: reads requests from stdin, a line of JSON each, and answers on stdout likewise.
 * jax-js comes from the folder of the first argument, the backend is the second: "wasm" or "webgpu".
 */
import { pathToFileURL } from "node:url";
import type { OptimizerSettings } from "../../model/optimizer.ts";
import type { Jax, JaxArray, JaxArrays } from "./jax_js_library.ts";
import { type ModelInputs, type ModelShape, ropeTables } from "./jax_js_model.ts";
import { initialState, type JaxState, scheduleOf, trainingStep } from "./jax_js_step.ts";
import { answerQuestions } from "./peer_protocol.ts";
import type { TimedStep } from "./training.ts";

export type JaxBackend = "wasm" | "webgpu";

/** What runs. */
export interface JaxInfo {
  readonly version: string;
  /** The version of Deno. */
  readonly deno: string;
  /** Threads of the wasm backend. */
  readonly threads: number;
  /** Of the webgpu backend. */
  readonly adapter: string | null;
}

/** A run to start. */
export interface JaxRun extends ModelShape {
  /** A safetensors file of f32. */
  readonly weights: string;
  /** The batch of every step. */
  readonly ids: readonly number[];
  readonly targets: readonly number[];
  readonly optimizer: OptimizerSettings;
  readonly learningRate: number;
}

/** What can be asked for, and what comes back. */
export interface JaxAnswers {
  describe(): Promise<JaxInfo>;
  /** Starts a run in place of the one before. */
  open(run: JaxRun): Promise<null>;
  /** The next training step, measured until every array of the new state is there. */
  step(): Promise<TimedStep>;
}

class JaxWorker implements JaxAnswers {
  readonly #folder: string;
  readonly #backend: JaxBackend;
  #step: (() => Promise<TimedStep>) | null = null;

  constructor(folder: string, { backend }: { backend: JaxBackend }) {
    this.#folder = folder;
    this.#backend = backend;
  }

  async describe(): Promise<JaxInfo> {
    const path = `${this.#folder}/node_modules/@jax-js/jax/package.json`;
    const { version } = JSON.parse(await Deno.readTextFile(path));
    // As jax-js asks for it. Its device's own description ends Deno once the adapter is collected.
    const wanted = { powerPreference: "high-performance" } as const;
    const adapter = this.#backend === "webgpu" ? await navigator.gpu.requestAdapter(wanted) : null;
    return {
      version,
      deno: Deno.version.deno,
      threads: navigator.hardwareConcurrency,
      adapter: adapter?.info.description ?? null,
    };
  }

  async open(run: JaxRun): Promise<null> {
    const jax = await loadJax(this.#folder, { backend: this.#backend });
    const { optimizer, learningRate, config, batchSize, sequenceLength } = run;
    const shape = { config, batchSize, sequenceLength };
    // Deno's WebGPU refuses the shader that differentiates a lookup: it passes a pointer to storage to a function.
    const looksUp = this.#backend !== "webgpu";
    const compiled = trainingStep(jax, { ...shape, optimizer, looksUp });
    const tokens = (ids: readonly number[]): JaxArray =>
      jax.numpy.array(Int32Array.from(ids), { shape: [ids.length] });
    const inputs: ModelInputs = {
      ids: tokens(run.ids),
      targets: tokens(run.targets),
      ...ropeTables(jax, shape),
    };
    let state: JaxState = initialState(jax, await readArrays(jax, run.weights));
    await jax.blockUntilReady([state, inputs]);
    let step = 0;
    this.#step = async () => {
      const start = performance.now();
      const schedule = scheduleOf(jax, { step: step++, learningRate, betas: optimizer.betas });
      // The step takes over what it is given; another use of each stays for the next.
      for (const { ref } of Object.values(inputs)) void ref;
      const made = compiled(state, inputs, schedule);
      state = made.state;
      await jax.blockUntilReady(made);
      const [loss, gradNorm] = [(await made.loss.data())[0]!, (await made.gradNorm.data())[0]!];
      return { ms: performance.now() - start, loss, gradNorm };
    };
    return null;
  }

  async step(): Promise<TimedStep> {
    if (!this.#step) throw new Error("no run is open");
    return await this.#step();
  }
}

/** The module, which is loaded once. @throws Error when it cannot be loaded or has no such backend here. */
async function loadJax(folder: string, { backend }: { backend: JaxBackend }): Promise<Jax> {
  const jax: Jax = await import(pathToFileURL(`${folder}/node_modules/@jax-js/jax/dist/index.js`).href);
  if (!(await jax.init(backend)).includes(backend)) throw new Error("jax-js has no such backend here");
  jax.defaultDevice(backend);
  return jax;
}

/** A safetensors file's tensors: eight bytes of header length, the header as JSON, the data. */
async function readArrays(jax: Jax, path: string): Promise<JaxArrays> {
  const { buffer } = await Deno.readFile(path);
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  delete header.__metadata__;
  const tensors = Object.entries(header) as [string, { shape: number[]; data_offsets: [number, number] }][];
  return Object.fromEntries(tensors.map(([name, { shape, data_offsets: [start, end] }]) => {
    const data = new Float32Array(buffer, 8 + length + start, (end - start) / Float32Array.BYTES_PER_ELEMENT);
    return [name, jax.numpy.array(data, { shape })];
  }));
}

if (import.meta.main) {
  const [folder, backend] = Deno.args as [string, JaxBackend];
  await answerQuestions<JaxAnswers>(new JaxWorker(folder, { backend }));
  // Its worker threads would keep the process.
  Deno.exit();
}
