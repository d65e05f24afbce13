/** Tries inputs, one kind after the other; whoever started it watches over it, since an input may never end. */
import { FUZZ_KINDS } from "./kinds.ts";
import { type FuzzInput, tryInput } from "./fuzz_kind.ts";

/** What to do. */
export interface FuzzTask {
  readonly kinds: readonly string[];
  /** Time for each kind. */
  readonly ms: number;
  readonly firstSeed: number;
  /** Folder for what inputs are written to. */
  readonly root: string;
}

/** An input that is about to be tried. */
export interface FuzzTrial {
  readonly kind: string;
  readonly seed: number;
  readonly input: FuzzInput;
}

/** What it says. */
export type FuzzMessage =
  | { readonly about: "trial"; readonly trial: FuzzTrial }
  | { readonly about: "kind"; readonly line: string }
  | { readonly about: "finding"; readonly trial: FuzzTrial; readonly problem: string }
  | { readonly about: "end" };

function say(message: FuzzMessage): void {
  self.postMessage(message);
}

async function runKind(name: string, { ms, firstSeed, root }: FuzzTask): Promise<boolean> {
  const kind = await FUZZ_KINDS[name]!();
  const end = performance.now() + ms;
  let [count, accepted, bytes] = [0, 0, 0];
  let slowest = { ms: 0, seed: firstSeed };
  try {
    for (let seed = firstSeed; performance.now() < end; seed++) {
      const input = kind.make(seed);
      say({ about: "trial", trial: { kind: name, seed, input } });
      try {
        const trial = await tryInput(kind, { input, root });
        count++;
        if (trial.isAccepted) accepted++;
        if (trial.ms > slowest.ms) slowest = { ms: trial.ms, seed };
        bytes = Math.max(bytes, trial.bytes);
      } catch (error) {
        const problem = error instanceof Error ? error.stack ?? error.message : String(error);
        say({ about: "finding", trial: { kind: name, seed, input }, problem });
        return false;
      }
    }
  } finally {
    await kind.close?.();
  }
  const line = `${name}: ${count} inputs tried, ${accepted} accepted, ${count - accepted} refused; ` +
    `slowest ${slowest.ms.toFixed(0)} ms (seed ${slowest.seed}), at most ${
      (bytes / 1e6).toFixed(0)
    } MB resident`;
  say({ about: "kind", line });
  return true;
}

self.onmessage = async ({ data }: MessageEvent<FuzzTask>): Promise<void> => {
  for (const kind of data.kinds) if (!await runKind(kind, data)) return;
  say({ about: "end" });
};
