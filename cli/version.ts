/** What the program is made of. */
import denoConfig from "../deno.json" with { type: "json" };

/** What a binary knows of how it was made; a checkout knows its own commit best. */
export interface Build {
  /** The commit, with "and changes" where files were changed since; null where git could not tell. */
  readonly commit: string | null;
  /** Whether @cliffy and @std are the stand-ins of offline/. */
  readonly hasStandIns: boolean;
}

/** Of the program, as in deno.json. */
export const VERSION = denoConfig.version;

/** Packages that only tests use. */
const TEST_PACKAGES = ["@std/assert", "@std/testing"];

/** Whether these arguments ask for `versionReport`, and for nothing else. */
export function asksForVersionReport(args: readonly string[]): boolean {
  const has = (...flags: string[]): boolean => args.some((arg) => flags.includes(arg));
  return args.every((arg) => arg.startsWith("-")) && has("--version", "-V") && has("--verbose", "-v");
}

/** A line for each part: the program, its commit, Deno and its parts, the packages. */
export function versionReport(build: Build | null): string {
  const packages = Object.entries(denoConfig.imports)
    .filter(([name]) => !TEST_PACKAGES.includes(name))
    .map(([name, specifier]) => {
      const isStandIn = build?.hasStandIns && specifier.startsWith("jsr:");
      return [name, specifier.slice(specifier.lastIndexOf("@") + 1) + (isStandIn ? " (stand-in)" : "")];
    });
  const { deno, v8, typescript } = Deno.version;
  const rows = [
    ["mor", VERSION],
    ["commit", build ? build.commit ?? "unknown" : "that of the checkout it runs from"],
    ["system", Deno.build.target],
    ["deno", deno],
    ["v8", v8],
    ["typescript", typescript],
    ...packages,
  ];
  const width = Math.max(...rows.map(([name]) => name!.length)) + 2;
  return rows.map(([name, value]) => `${name!.padEnd(width)}${value}\n`).join("");
}
