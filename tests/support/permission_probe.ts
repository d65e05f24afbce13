/** What must come of the attempts of permission_probe.js. */
import { assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";

/** The script that is run in the program's place. */
export const permissionProbe = fromFileUrl(new URL("permission_probe.js", import.meta.url));

/** Arguments for which it is written. */
export const PROBED_ARGS = ["generate", "model", "--prompts", "prompts.jsonl", "--out", "results.jsonl"];

/** What those arguments need; every other attempt must be refused. */
const ALLOWED = ["writeOut", "renameOut", "read"];

/** Makes what the probe reads. */
export async function preparePermissionProbe(folder: string): Promise<void> {
  await Deno.writeTextFile(join(folder, "prompts.jsonl"), "{}\n");
}

/** Fails unless the probe could do what the arguments need, and nothing else, and left nothing else behind. */
export function assertLeastPermissions(stdout: string, folder: string): void {
  const answers: Record<string, string> = JSON.parse(stdout);
  const wanted = Object.keys(answers).map((name) => [name, ALLOWED.includes(name) ? "allowed" : "refused"]);
  assertEquals(answers, Object.fromEntries(wanted));
  assertEquals(ALLOWED.filter((name) => answers[name] === undefined), []);
  const left = Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
  assertEquals(left, ["prompts.jsonl", "results.jsonl"]);
}
