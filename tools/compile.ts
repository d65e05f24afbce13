/**
 * Makes dist/mor, one file that runs without Deno, packages or network: with `deno compile`, or, where the base
 * binary it needs cannot be downloaded, as a self-extracting archive of the running Deno and the bundled program.
 */
import { type Packages, WORK_FOLDER } from "./packages.ts";
import { NETWORK_PERMISSIONS, PROGRAM_PERMISSIONS } from "./permissions.ts";
import { runProgram, runSilently, say } from "./processes.ts";
import { selfExtractingHeader } from "./self_extracting.ts";

const FOLDER = "dist";
const TARGET = `${FOLDER}/mor`;
const PARTS = `${WORK_FOLDER}/compile`;
/** Downloads of tens of megabytes report no progress on a pipe. */
const SILENCE_MS = 180_000;

async function archive(): Promise<Uint8Array<ArrayBuffer> | null> {
  await Deno.copyFile(Deno.execPath(), `${PARTS}/deno`);
  await Deno.chmod(`${PARTS}/deno`, 0o755);
  const path = `${PARTS}/mor.tar.gz`;
  const code = await runProgram(["tar", "-czf", path, "-C", PARTS, "deno", "mor.js"]);
  return code === 0 ? await Deno.readFile(path) : null;
}

async function hashOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function makeSelfExtracting(program: string, { flags }: Packages): Promise<number> {
  if (Deno.build.os === "windows") {
    say("compile: the self-extracting archive needs a POSIX shell; only `deno compile` works on Windows");
    return 1;
  }
  const bundle = ["deno", "bundle", "-q", "--platform", "deno", ...flags] as const;
  const { code, errors } = await runSilently([...bundle, "-o", `${PARTS}/mor.js`, program], {
    silenceMs: SILENCE_MS,
  });
  if (code !== 0) {
    say(`compile: cannot bundle ${program}\n${errors.trim()}`);
    return code;
  }
  const packed = await archive();
  if (!packed) return 1;
  const header = selfExtractingHeader(await hashOf(packed));
  const temporary = `${PARTS}/mor`;
  await Deno.writeFile(temporary, new TextEncoder().encode(header));
  await Deno.writeFile(temporary, packed, { append: true });
  await Deno.chmod(temporary, 0o755);
  await Deno.rename(temporary, TARGET);
  await Deno.remove(PARTS, { recursive: true });
  return 0;
}

async function sizeOf(path: string): Promise<string> {
  return `${((await Deno.stat(path)).size / 2 ** 20).toFixed(1)} MiB`;
}

/** Makes the binary and says on stderr which of the two it is. @returns the exit code. */
export async function compileProgram(program: string, packages: Packages): Promise<number> {
  await Deno.mkdir(FOLDER, { recursive: true });
  await Deno.mkdir(PARTS, { recursive: true });
  const suffix = Deno.build.os === "windows" ? ".exe" : "";
  const [target, made] = [`${TARGET}${suffix}`, `${PARTS}/mor${suffix}`];
  // Such a binary has one set of permissions for every command: main.ts gives back what the command must not have.
  const permissions = [...PROGRAM_PERMISSIONS, ...NETWORK_PERMISSIONS];
  const compile = ["deno", "compile", "-q", "--no-check", ...packages.flags, ...permissions] as const;
  const { code, errors } = await runSilently([...compile, "-o", made, program], { silenceMs: SILENCE_MS });
  if (code === 0) {
    await Deno.rename(made, target);
    await Deno.remove(PARTS, { recursive: true });
    say(`compile: made ${target} (${await sizeOf(target)}) with deno compile`);
    return 0;
  }
  // deno-lint-ignore no-control-regex -- Deno colours its errors
  const plain = errors.replaceAll(/\x1b\[[0-9;]*m/g, "");
  const reason = (/Caused by:\s+(?:0: )?(.*)/.exec(plain) ?? /error: (.*)/.exec(plain))?.[1] ??
    `exit code ${code}`;
  say(`compile: deno compile failed (${reason}); making a self-extracting archive instead`);
  const archiveCode = await makeSelfExtracting(program, packages);
  if (archiveCode === 0) {
    say(
      `compile: made ${TARGET} (${await sizeOf(TARGET)}), a self-extracting archive of Deno and the program`,
    );
  }
  return archiveCode;
}
