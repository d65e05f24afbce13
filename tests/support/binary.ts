/** dist/mor, made by the task in a copy of the checkout, so that the checkout and its dist/ stay as they are. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { copyCheckout } from "./checkout.ts";
import { run } from "./program.ts";

/** Makes the binary in an empty folder. @returns its path. */
export async function compileBinary(folder: string): Promise<string> {
  await copyCheckout(folder);
  const { code, stderr } = await run([Deno.execPath(), "task", "compile"], { cwd: folder });
  assertEquals(code, 0, `dist/mor cannot be made here: ${stderr}`);
  // What it would run, or has run, where Deno's base binary can be had.
  assertMatch(
    stderr,
    /^compile: deno compile .*--target \S+ .*--no-prompt --allow-read .* -o \S+ \S+entry\.ts$/m,
  );
  assertStringIncludes(stderr, "compile: made dist/mor");
  return join(folder, "dist", Deno.build.os === "windows" ? "mor.exe" : "mor");
}
