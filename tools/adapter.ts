/** Makes sure that a GPU adapter answers, if need be the software one. */
import { runProgram, runSilently, say } from "./processes.ts";

/** Exit code when no adapter answers. */
export const NO_ADAPTER = 3;

/**
 * Variables for every child that may use the GPU: Deno falls back to OpenGL without a word, and Mesa complains on
 * stderr if XDG_RUNTIME_DIR is unset.
 */
export function gpuEnvironment(): Record<string, string> {
  if (Deno.build.os !== "linux") return {};
  return {
    DENO_WEBGPU_BACKEND: Deno.env.get("DENO_WEBGPU_BACKEND") ?? "vulkan",
    XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp",
  };
}

async function answers(): Promise<boolean> {
  const probe = ["deno", "run", "--no-config", "--no-lock", "--no-prompt", "tools/adapter_probe.ts"] as const;
  return (await runSilently([...probe], { silenceMs: 30_000, env: gpuEnvironment() })).code === 0;
}

async function isDebian(): Promise<boolean> {
  return await Deno.stat("/etc/debian_version").then(() => true, () => false);
}

async function installSoftwareDriver(): Promise<boolean> {
  say("adapter: none answers; installing the software Vulkan driver (apt-get install mesa-vulkan-drivers)");
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  // A stale list of one source must not keep the install from trying.
  await runProgram(["apt-get", "-qq", "update"], { env, onOutput: () => {} });
  const install = [
    "apt-get",
    "-qq",
    "install",
    "-y",
    "--no-install-recommends",
    "mesa-vulkan-drivers",
  ] as const;
  return await runProgram([...install], { env, onOutput: () => {} }) === 0;
}

async function remedy(): Promise<string> {
  if (Deno.build.os !== "linux") return "update the graphics driver";
  if (!await isDebian()) return "install a Vulkan driver, for a computer without a GPU Mesa's lavapipe";
  return "run `sudo apt-get update && sudo apt-get install -y mesa-vulkan-drivers`";
}

/** Looks for an adapter and installs the software one where that needs no question. @returns 0 or the exit code 3. */
export async function ensureAdapter(): Promise<number> {
  if (await answers()) return 0;
  const mayInstall = Deno.build.os === "linux" && await isDebian() && Deno.uid() === 0;
  if (mayInstall && await installSoftwareDriver() && await answers()) return 0;
  say(`adapter: no GPU adapter answers; ${await remedy()} and try again`);
  return NO_ADAPTER;
}
