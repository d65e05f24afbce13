/** How long dist/mor takes to say its help: `deno task bench start`, after `deno task compile`. */
import { median, print, range } from "./report.ts";

const BINARY = "dist/mor";

/** Later starts that are timed; the first ones after an unpacking read from a cold file cache. */
const REPEATS = 15;

/** First starts that are timed, each into a cache folder of its own. */
const FIRST_STARTS = 3;

async function milliseconds(cache: string): Promise<number> {
  const command = new Deno.Command(`${Deno.cwd()}/${BINARY}`, {
    args: ["--help"],
    env: { XDG_CACHE_HOME: cache },
    stdout: "null",
  });
  const started = performance.now();
  const { code } = await command.output();
  if (code !== 0) throw new Error(`${BINARY} --help ends with ${code}`);
  return performance.now() - started;
}

/** Times starts of the binary. @returns the exit code. */
export async function benchStart(): Promise<number> {
  const info = await Deno.stat(BINARY).catch(() => null);
  if (!info) {
    print(`bench start: there is no ${BINARY}; make it with \`deno task compile\``);
    return 1;
  }
  const caches: string[] = [];
  const first: number[] = [];
  const later: number[] = [];
  try {
    for (let i = 0; i < FIRST_STARTS; i++) {
      caches.push(await Deno.makeTempDir());
      first.push(await milliseconds(caches.at(-1)!));
    }
    for (let i = 0; i < REPEATS; i++) later.push(await milliseconds(caches[0]!));
  } finally {
    for (const cache of caches) await Deno.remove(cache, { recursive: true });
  }
  print(`${BINARY}, ${(info.size / 2 ** 20).toFixed(1)} MiB: to the end of --help`);
  print(`  first start, which may unpack it: ${range(first, 0)} ms`);
  print(`  later starts: ${range(later, 0)} ms; ${(median(first) / median(later)).toFixed(0)} times less`);
  return 0;
}
