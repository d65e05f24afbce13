/** Copies of this checkout, for tasks that change it. */
import { fromFileUrl, join } from "@std/path";

const root = fromFileUrl(new URL("../..", import.meta.url));
const PARTS = ["main.ts", "cli", "model", "gpu", "tools", "offline", "deno.json", "deno.lock"];

async function copy(from: string, to: string): Promise<void> {
  if ((await Deno.stat(from)).isFile) return await Deno.copyFile(from, to);
  await Deno.mkdir(to);
  for await (const { name } of Deno.readDir(from)) await copy(join(from, name), join(to, name));
}

/** Copies the program and its tasks into an empty folder. */
export async function copyCheckout(folder: string): Promise<void> {
  for (const part of PARTS) await copy(join(root, part), join(folder, part));
  if (import.meta.resolve("@std/assert").startsWith("file:")) {
    // These tests run with the stand-ins: the registry was asked a moment ago.
    await Deno.mkdir(join(folder, ".mor"));
    await Deno.writeTextFile(join(folder, ".mor", "packages_unreachable"), "");
  }
}
