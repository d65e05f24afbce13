/** What a binary is made from: an entry that knows the commit, and the Deno of the system it is for. */
import type { Build } from "../cli/version.ts";
import type { Packages } from "./packages.ts";
import { readOutput, runSilently, type SilentResult } from "./processes.ts";

/** Systems that Deno is made for, with the package that brings its Deno. */
export const TARGETS: Readonly<Record<string, string>> = {
  "x86_64-unknown-linux-gnu": "@deno/linux-x64-glibc",
  "aarch64-unknown-linux-gnu": "@deno/linux-arm64-glibc",
  "x86_64-apple-darwin": "@deno/darwin-x64",
  "aarch64-apple-darwin": "@deno/darwin-arm64",
  "x86_64-pc-windows-msvc": "@deno/win32-x64",
};

/** The target's name among those of `Deno.build.os`. */
export function systemOf(target: string): "windows" | "darwin" | "linux" {
  return target.includes("windows") ? "windows" : target.includes("darwin") ? "darwin" : "linux";
}

/** The commit of the checkout; null without git or outside of a repository. */
async function commitHere(): Promise<string | null> {
  const commit = await readOutput(["git", "rev-parse", "HEAD"]);
  if (!commit) return null;
  const changes = await readOutput(["git", "status", "--porcelain"]);
  return changes ? `${commit} and changes` : commit;
}

/** Writes the module that a binary starts with into a folder of `.mor/`. @returns its path. */
export async function writeEntry(folder: string, { isReal }: Packages): Promise<string> {
  const build: Build = { commit: await commitHere(), hasStandIns: !isReal };
  const path = `${folder}/entry.ts`;
  const main = `import { main } from "../../main.ts";`;
  await Deno.writeTextFile(path, `${main}\nawait main(Deno.args, ${JSON.stringify(build)});\n`);
  return path;
}

/** The executable of Deno, of this version, for a target: the running one, or that of its package. */
export async function denoFor(target: string): Promise<string | SilentResult> {
  if (target === Deno.build.target) return Deno.execPath();
  const name = `${TARGETS[target]}@${Deno.version.deno}`;
  const cached = await runSilently(["deno", "cache", "-q", "--no-config", "--no-lock", `npm:${name}`], {
    silenceMs: 180_000,
  });
  if (cached.code !== 0) return cached;
  const info = await readOutput(["deno", "info", "--no-config", "--no-lock", "--json", `npm:${name}`]);
  const { npmPackages } = JSON.parse(info ?? "{}");
  return `${npmPackages[name].localPath}/deno${target.includes("windows") ? ".exe" : ""}`;
}
