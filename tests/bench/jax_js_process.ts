/** Starts jax_js_worker.ts. */
import { packageFolder, peerCommand, PeerProcess } from "./peer_process.ts";
import type { JaxAnswers, JaxBackend } from "./jax_js_worker.ts";

/** A running jax-js. */
export type JaxProcess = PeerProcess<JaxAnswers>;

const PACKAGE = { title: "jax-js", name: "@jax-js/jax", version: "0.1.25", flag: "--jax" };

/**
 * Starts jax-js in Deno, where it has worker threads and WebGPU; it may read its own folder and that of the weights.
 *
 * @throws ConfigError when the folder lacks jax-js.
 */
export async function startJax(
  { folder, backend, weights }: { folder: string; backend: JaxBackend; weights: string },
): Promise<JaxProcess> {
  const path = await packageFolder(folder, PACKAGE);
  const command = peerCommand("jax_js_worker.ts", {
    permissions: [`--allow-read=${path},${weights}`],
    args: [path, backend],
    stdin: "piped",
    stdout: "piped",
  });
  return new PeerProcess(command, {
    title: `${PACKAGE.title} (${backend})`,
    advice: `look whether the folder has ${PACKAGE.name} ${PACKAGE.version}`,
  });
}
