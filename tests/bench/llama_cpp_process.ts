/** Starts llama_cpp_worker.ts and asks it. */
import { CheckpointError } from "../../model/files/safetensors.ts";
import type { GgufFormat } from "./llama_cpp_convert.ts";
import type { LlamaAnswers, LlamaBackend } from "./llama_cpp_worker.ts";
import { packageFolder, peerCommand, PeerProcess } from "./peer_process.ts";

/** Where node-llama-cpp is and how llama.cpp is to compute. */
export interface LlamaSettings {
  /** A folder in which `npm install node-llama-cpp` has run. */
  readonly folder: string;
  readonly backend: LlamaBackend;
  /** Whether the Vulkan backend computes in f32 throughout; by default it takes f16 and 8-bit products. */
  readonly isExact?: boolean;
}

/** A running llama.cpp. */
export type LlamaProcess = PeerProcess<LlamaAnswers>;

const PACKAGE = {
  title: "llama.cpp",
  name: "node-llama-cpp",
  version: "3.22.1",
  flag: "--node-llama-cpp",
};

/** It is a native library. */
const PERMISSIONS = ["--allow-all"];

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

/**
 * Writes a GGUF file whose matrices are all in one format.
 *
 * @throws CheckpointError when llama.cpp cannot.
 */
export async function convertModel(
  from: string,
  { to, format, folder }: { to: string; format: GgufFormat; folder: string },
): Promise<void> {
  const { success, stderr } = await peerCommand("llama_cpp_convert.ts", {
    permissions: PERMISSIONS,
    args: [await packageFolder(folder, PACKAGE), from, to, format],
    stdout: "null",
    stderr: "piped",
  }).output();
  if (success) return;
  const reason = new TextDecoder().decode(stderr).trimEnd().split("\n").at(-1);
  throw new CheckpointError(`Cannot convert ${from} to ${format}: ${reason}`);
}

/**
 * Starts llama.cpp.
 *
 * @throws ConfigError when the folder lacks node-llama-cpp.
 */
export async function startLlama(
  { folder, backend, isExact = false }: LlamaSettings,
): Promise<LlamaProcess> {
  const command = peerCommand("llama_cpp_worker.ts", {
    permissions: PERMISSIONS,
    args: [await packageFolder(folder, PACKAGE), backend],
    env: { ...VULKAN_VARIABLES, ...(isExact ? EXACT_VARIABLES : {}) },
    stdin: "piped",
    stdout: "piped",
  });
  return new PeerProcess(command, {
    title: PACKAGE.title,
    advice: "--cpu-only leaves its Vulkan backend out",
  });
}
