/** Hugging Face's own tokenizers library, where Python has it. */
import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { type Outcome, run } from "./program.ts";

const script = fromFileUrl(new URL("tokenizers_peer.py", import.meta.url));

/** Runs Python: the program that MOR_TEST_PYTHON names, else python3. */
async function python(args: readonly string[], input = ""): Promise<Outcome> {
  return await run(["sh", "-c", 'exec "${MOR_TEST_PYTHON:-python3}" "$@"', "python", ...args], { input });
}

/** Whether the library is there. */
export const hasPeer: boolean = (await python(["-c", "import tokenizers"])).code === 0;

/** For the names of tests that are skipped without the library. */
export const PEER_HINT = "needs Python with the package tokenizers; MOR_TEST_PYTHON names another Python";

/** Runs tokenizers_peer.py and returns what it writes. */
export async function peer(args: readonly string[], input: unknown): Promise<string> {
  const { code, stdout, stderr } = await python([script, ...args], JSON.stringify(input));
  assertEquals(code, 0, stderr);
  return stdout;
}
