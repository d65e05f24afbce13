/**
 * Damages models and loads them, so many times for each kind of file; stops at the first that is neither loaded as its
 * files say nor refused in one line, soon and in little memory:
 *
 *     deno run -A tests/fuzz/damaged_files.ts [COUNT] [FIRST_SEED]
 */
import { DAMAGED_FILES, type DamagedKind } from "../support/damage.ts";
import { type Damages, openDamages } from "../support/damage_trials.ts";

/** Ends the process when it has hung for so many seconds, with what it was doing. */
const PATIENCE = 20;
const WATCH = `
let label = "";
onmessage = ({ data }) => label = data;
let seen = label;
setInterval(() => {
  if (label !== "" && label === seen) {
    Deno.stderr.writeSync(new TextEncoder().encode("hangs: " + label + "\\n"));
    Deno.kill(Deno.pid, "SIGKILL");
  }
  seen = label;
}, ${PATIENCE * 1000});
`;

async function runKind(
  damages: Damages,
  { kind, count, first, watch }: { kind: DamagedKind; count: number; first: number; watch: Worker },
): Promise<string> {
  let loaded = 0;
  let worst = { ms: 0, label: "" };
  let bytes = 0;
  for (let seed = first; seed < first + count; seed++) {
    const damage = damages.make({ kind, seed });
    watch.postMessage(damage.label);
    const outcome = await damages.run(damage);
    if (outcome.loaded) loaded++;
    if (outcome.ms > worst.ms) worst = { ms: outcome.ms, label: damage.label };
    bytes = Math.max(bytes, Deno.memoryUsage().rss);
  }
  return `${kind}: ${count} damaged, ${loaded} loaded as their files say, ${count - loaded} refused; ` +
    `at most ${worst.ms.toFixed(0)} ms (${worst.label}) and ${(bytes / 1e6).toFixed(0)} MB resident`;
}

const [count = 10000, first = 0] = Deno.args.map(Number);
const watch = new Worker(`data:text/javascript,${encodeURIComponent(WATCH)}`, { type: "module" });
await using damages = await openDamages();
for (const kind of Object.keys(DAMAGED_FILES) as DamagedKind[]) {
  const line = await runKind(damages, { kind, count, first, watch });
  Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));
}
watch.terminate();
