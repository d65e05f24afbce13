/** Starts llama_cpp_worker.ts and asks it. */
import { fromFileUrl, join } from "@std/path";
import { ConfigError } from "../../model/config.ts";
import { CheckpointError } from "../../model/files/safetensors.ts";
import type { GgufFormat } from "./llama_cpp_convert.ts";
import { lines, writeLine } from "./llama_cpp_lines.ts";
import type {
  LlamaAnswer,
  LlamaBackend,
  LlamaQuestion,
  LlamaReply,
  LlamaRequest,
} from "./llama_cpp_worker.ts";

/** Where node-llama-cpp is and how llama.cpp is to compute. */
export interface LlamaSettings {
  /** A folder in which `npm install node-llama-cpp` has run. */
  readonly folder: string;
  readonly backend: LlamaBackend;
  /** Whether the Vulkan backend computes in f32 throughout; by default it takes f16 and 8-bit products. */
  readonly isExact?: boolean;
}

/** The first adapter, even if it is a software one, which llama.cpp would pass over. */
const VULKAN_VARIABLES = { GGML_VK_VISIBLE_DEVICES: "0" };

/** Everything of ggml's Vulkan backend that rounds more than f32 does. */
const EXACT_VARIABLES = {
  GGML_VK_DISABLE_F16: "1",
  GGML_VK_DISABLE_BFLOAT16: "1",
  GGML_VK_DISABLE_COOPMAT: "1",
  GGML_VK_DISABLE_COOPMAT2: "1",
  GGML_VK_DISABLE_INTEGER_DOT_PRODUCT: "1",
};

/** Runs a script of this folder without this project's packages: it has its own, or none. */
function command(script: string, options: Deno.CommandOptions): Deno.Command {
  const path = fromFileUrl(new URL(script, import.meta.url));
  const flags = [
    "--quiet",
    "--no-config",
    "--no-lock",
    "--no-prompt",
    "--node-modules-dir=manual",
    "--allow-all",
  ];
  return new Deno.Command(Deno.execPath(), { ...options, args: ["run", ...flags, path, ...options.args!] });
}

/** @throws ConfigError when the folder lacks node-llama-cpp. */
async function packageFolder(path: string): Promise<string> {
  const isThere = await Deno.stat(join(path, "node_modules", "node-llama-cpp")).then(() => true, () => false);
  if (isThere) return await Deno.realPath(path);
  throw new ConfigError(
    `Cannot run llama.cpp: ${path} has no node_modules/node-llama-cpp; ` +
      "make a folder, run `npm install node-llama-cpp@3.22.1` in it and name it by --node-llama-cpp",
  );
}

/**
 * Writes a GGUF file whose matrices are all in one format.
 *
 * @throws CheckpointError when llama.cpp cannot.
 */
export async function convertModel(
  from: string,
  { to, format, folder }: { to: string; format: GgufFormat; folder: string },
): Promise<void> {
  const args = [await packageFolder(folder), from, to, format];
  const { success, stderr } = await command("llama_cpp_convert.ts", { args, stdout: "null", stderr: "piped" })
    .output();
  if (success) return;
  const reason = new TextDecoder().decode(stderr).trimEnd().split("\n").at(-1);
  throw new CheckpointError(`Cannot convert ${from} to ${format}: ${reason}`);
}

/** A running llama.cpp; it answers one question after the other. */
export class LlamaProcess {
  readonly #process: Deno.ChildProcess;
  readonly #replies: AsyncGenerator<string, void>;

  /** @throws ConfigError when the folder lacks node-llama-cpp. */
  static async start({ folder, backend, isExact = false }: LlamaSettings): Promise<LlamaProcess> {
    return new LlamaProcess(
      command("llama_cpp_worker.ts", {
        args: [await packageFolder(folder), backend],
        env: { ...VULKAN_VARIABLES, ...(isExact ? EXACT_VARIABLES : {}) },
        stdin: "piped",
        stdout: "piped",
      }).spawn(),
    );
  }

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#replies = lines(process.stdout);
  }

  /** @throws Error when llama.cpp cannot; ConfigError when it has ended. */
  async ask<Q extends LlamaQuestion>(question: Q, ...wanted: LlamaRequest<Q>): Promise<LlamaAnswer<Q>> {
    // A process that has ended is noticed by its missing answer.
    await writeLine(this.#process.stdin, { question, wanted }).catch(() => {});
    const { done, value } = await this.#replies.next();
    if (done) {
      throw new ConfigError(
        `Cannot run llama.cpp: it ended without an answer to "${question}", and what it said stands above; ` +
          "--cpu-only leaves its Vulkan backend out",
      );
    }
    const reply = JSON.parse(value) as LlamaReply;
    if ("error" in reply) throw new Error(reply.error);
    return reply.answer as LlamaAnswer<Q>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stdin.close().catch(() => {});
    await this.#replies.return();
    await this.#process.status;
  }
}
