/**
 * Makes dist/mor, one file that runs without Deno, packages or network: with `deno compile`, or, where the base
 * binary it needs cannot be downloaded, as a self-extracting archive of Deno and the bundled program.
 */
import { parseArgs } from "node:util";
import { denoFor, systemOf, TARGETS, writeEntry } from "./build.ts";
import { type Packages, WORK_FOLDER } from "./packages.ts";
import { NETWORK_PERMISSIONS, PROGRAM_PERMISSIONS, WRITE_ANYWHERE } from "./permissions.ts";
import { runProgram, runSilently, say } from "./processes.ts";
import { selfExtractingHeader } from "./self_extracting.ts";

const FOLDER = "dist";
const PARTS = `${WORK_FOLDER}/compile`;
/** Downloads of tens of megabytes report no progress on a pipe. */
const SILENCE_MS = 180_000;

/** Such a binary has one set of permissions for every command: cli/permissions.ts gives back what it must not have. */
const COMPILED_PERMISSIONS = [...PROGRAM_PERMISSIONS, ...WRITE_ANYWHERE, ...NETWORK_PERMISSIONS];

/** A binary to be made. */
interface Plan {
  readonly target: string;
  /** Where it goes. */
  readonly path: string;
  /** The module it starts with. */
  readonly entry: string;
  readonly packages: Packages;
}

async function hashOf(paths: readonly string[]): Promise<string> {
  const parts = await Promise.all(paths.map((path) => Deno.readFile(path)));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).bytes()));
  return digest.toHex();
}

/** The command that makes the binary where Deno's base binary can be had. */
function compileCommand({ target, entry, packages }: Plan, made: string): [string, ...string[]] {
  const flags = ["-q", "--no-check", ...packages.flags, "--target", target, ...COMPILED_PERMISSIONS];
  return ["deno", "compile", ...flags, "-o", made, entry];
}

/** @returns why it failed, null if it did not. */
async function makeSelfExtracting({ target, entry, packages }: Plan, made: string): Promise<string | null> {
  const os = systemOf(target);
  if (os === "windows") return "a self-extracting archive needs a POSIX shell, which Windows does not have";
  const program = `${PARTS}/program`;
  // What only some commands need is loaded only by them: --help takes 110 ms instead of 154 in one file.
  const bundle = ["deno", "bundle", "-q", "--minify", "--code-splitting", "--platform", "deno"] as const;
  const { code, errors } = await runSilently([...bundle, ...packages.flags, "--outdir", program, entry], {
    silenceMs: SILENCE_MS,
  });
  if (code !== 0) return `the program cannot be bundled: ${firstError(errors)}`;
  const deno = await denoFor(target);
  if (typeof deno !== "string") return `Deno for ${target} cannot be had: ${firstError(deno.errors)}`;
  await Deno.copyFile(deno, `${PARTS}/deno`);
  await Deno.chmod(`${PARTS}/deno`, 0o755);
  const archive = `${PARTS}/mor.tar.gz`;
  if (await runProgram(["tar", "-czf", archive, "-C", PARTS, "deno", "program"]) !== 0) return "tar failed";
  // The archive has times of files in it: the same content must go by the same name.
  const scripts = Array.from(Deno.readDirSync(program), ({ name }) => `${program}/${name}`).sort();
  const hash = (await hashOf([`${PARTS}/deno`, ...scripts])).slice(0, 32);
  await Deno.writeTextFile(made, selfExtractingHeader({ hash, os }));
  await Deno.writeFile(made, await Deno.readFile(archive), { append: true });
  await Deno.chmod(made, 0o755);
  return null;
}

/** Deno's own words in one line: the cause that it names first below what it was doing. */
function firstError(errors: string): string {
  // deno-lint-ignore no-control-regex -- Deno colours its errors
  const plain = errors.replaceAll(/\x1b\[[0-9;]*m/g, "");
  const found = /^ +1: (.*)$/m.exec(plain) ?? /Caused by:\s+(?:0: )?(.*)/.exec(plain) ??
    /error: (.*)/.exec(plain);
  return (found?.[1] ?? plain).trim();
}

/** Puts the binary in its place, with its checksum beside it in the form of `sha256sum`. */
async function finish(made: string, { path }: Plan, kind: string): Promise<void> {
  const name = path.slice(FOLDER.length + 1);
  const line = `${await hashOf([made])}  ${name}\n`;
  const size = `${((await Deno.stat(made)).size / 2 ** 20).toFixed(1)} MiB`;
  await Deno.rename(made, path);
  await Deno.writeTextFile(`${path}.sha256`, line);
  say(`compile: made ${path} (${size}) ${kind}; checksum in ${path}.sha256`);
}

async function make(plan: Plan): Promise<number> {
  const made = `${PARTS}/made${systemOf(plan.target) === "windows" ? ".exe" : ""}`;
  const command = compileCommand(plan, made);
  say(`compile: ${command.join(" ")}`);
  const { code, errors } = await runSilently(command, { silenceMs: SILENCE_MS });
  if (code === 0) {
    await finish(made, plan, "with deno compile");
    return 0;
  }
  say(`compile: deno compile failed (${firstError(errors)}); making a self-extracting archive instead`);
  const reason = await makeSelfExtracting(plan, made);
  if (reason !== null) {
    say(`compile: Cannot make ${plan.path}: ${reason}`);
    return 1;
  }
  await finish(made, plan, "as a self-extracting archive of Deno and the program");
  return 0;
}

/** Which binary is wanted; null after saying what is wrong with the arguments. */
function readTarget(args: readonly string[]): string | null {
  try {
    const { values } = parseArgs({ args: [...args], options: { target: { type: "string" } } });
    const { target = Deno.build.target } = values;
    if (target in TARGETS) return target;
    say(`compile: --target is "${target}", wanted one of ${Object.keys(TARGETS).join(", ")}`);
  } catch (error) {
    say(`compile: ${(error as Error).message}; usage: deno task compile [--target SYSTEM]`);
  }
  return null;
}

/**
 * `deno task compile [--target SYSTEM]`: makes the binary and says on stderr how.
 *
 * @returns the exit code.
 */
export async function compileProgram(args: readonly string[], packages: Packages): Promise<number> {
  const target = readTarget(args);
  if (target === null) return 2;
  await Deno.mkdir(FOLDER, { recursive: true });
  await Deno.mkdir(PARTS, { recursive: true });
  // The binary for this system has the plain name.
  const system = target === Deno.build.target ? "" : `-${target}`;
  const path = `${FOLDER}/mor${system}${systemOf(target) === "windows" ? ".exe" : ""}`;
  try {
    return await make({ target, path, entry: await writeEntry(PARTS, packages), packages });
  } finally {
    await Deno.remove(PARTS, { recursive: true });
  }
}
