/** Killing a training run again and again, at moments at random: its checkpoint is whole each time, and it goes on. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { hasWeights, readTrainingState } from "../../model/files/checkpoint.ts";
import { morDone, outcomeOf, programCommand, start, waitFor } from "./program.ts";
import { createRandom } from "./random.ts";
import { assertSameCheckpoints, checkpointTensors, smallRun } from "./small_run.ts";

/** Steps of a run that nobody waits for; the schedule of all runs here. */
const STEPS = ["--steps", "100000", "--decay-steps", "1", "--warmup-steps", "1"];

/** Longest wait between the first step that is seen and the kill: a few steps with their saves. */
const LONGEST_WAIT_MS = 250;

/** Number of the last whole line of metrics.jsonl; 0 before the first. */
async function lastLoggedStep(folder: string): Promise<number> {
  const text = await Deno.readTextFile(join(folder, "metrics.jsonl")).catch(() => "");
  const whole = text.slice(0, text.lastIndexOf("\n") + 1).trimEnd();
  return whole === "" ? 0 : JSON.parse(whole.slice(whole.lastIndexOf("\n") + 1)).step;
}

/** Which file the log is; null where there is none. */
async function logInode(folder: string): Promise<number | null> {
  return await Deno.stat(join(folder, "metrics.jsonl")).then(({ ino }) => ino, () => null);
}

/** The step of the weights, after a look at the headers and lengths of both files; 0 before the first save. */
async function loadableStep(folder: string): Promise<number> {
  if (!await hasWeights(folder)) return 0;
  const { step } = await readTrainingState(folder);
  // A kill may leave the state of the save in the making, or of the one before, beside that of the weights.
  for await (const { name } of Deno.readDir(join(folder, "training"))) {
    const found = Number(/^step-(\d+)\.safetensors$/.exec(name)?.[1] ?? step);
    assert(Math.abs(found - step) <= 1, `state ${name} beside weights of step ${step}`);
  }
  return step;
}

/** How a run was killed. */
export interface Kills {
  readonly seed: number;
  /** The step that the run had reached at its end. */
  readonly steps: number;
  /** Kills after which the newest step that was logged had been saved, and those after which the one before it had. */
  readonly saved: number;
  readonly unsaved: number;
}

/**
 * Starts a run, kills it, and lets it go on, so many times; then compares it with one that was not killed.
 *
 * @param folder Where both runs go.
 * @param onKill Told how many kills are done.
 * @throws AssertionError when a checkpoint is not whole or not the one that it should be; it says how to get there.
 */
export async function killAgainAndAgain(
  folder: string,
  { kills, onKill = () => {} }: { kills: number; onKill?: (done: number) => void },
): Promise<Kills> {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const random = createRandom(seed);
  const killed = join(folder, "killed");
  const cadence = [...STEPS, "--eval-every", "0", "--save-every", "1"];
  const history: string[] = [];
  let unsaved = 0;
  for (let kill = 0, saved = 0; kill < kills; kill++) {
    // A run killed between its first logged step and its first save starts anew: what it logged is not the next one's.
    if (saved === 0) await Deno.remove(join(killed, "metrics.jsonl")).catch(() => {});
    // What the one before has logged beyond its last save lies there until the next one replaces the file.
    const before = await logInode(killed);
    const args = saved > 0 ? ["train", "--out", killed, "--resume"] : smallRun(killed, ...cadence);
    const child = start(programCommand(args));
    const ended = outcomeOf(child);
    const wait = random.uniform() * LONGEST_WAIT_MS;
    await waitFor(async () => await logInode(killed) !== before && await lastLoggedStep(killed) > saved);
    await new Promise((resolve) => setTimeout(resolve, wait));
    child.kill("SIGKILL");
    const { code, stderr } = await ended;
    const where = `kill ${kill} of seed ${seed}, ${wait.toFixed(1)} ms after a step (${history.join(", ")})`;
    assertEquals(code, 137, `${where}: ${stderr}`);

    const [logged, loaded] = [await lastLoggedStep(killed), await loadableStep(killed)];
    history.push(`${logged}/${loaded}`);
    if (loaded < logged) unsaved++;
    // A step is logged before it is saved.
    assert(loaded >= logged - 1 && loaded <= logged, `${where}: step ${logged} was logged, ${loaded} saved`);
    assert(loaded >= saved, `${where}: step ${saved} had been saved, now ${loaded}`);
    saved = loaded;
    onKill(kill + 1);
  }
  const last = await loadableStep(killed) + 1;
  // Each run gets to a step of its own; if hardly one had been saved, little would have been tried.
  assert(last > 1 + kills / 20, `only ${last - 1} steps after ${kills} kills of seed ${seed}`);
  await morDone(["train", "--out", killed, "--resume", "--stop-after", String(last)]);
  await morDone(["generate", killed, "-p", "x", "-n", "1"]);
  assert((await checkpointTensors(killed)).size > 0);

  const straight = join(folder, "straight");
  await morDone(
    smallRun(
      straight,
      ...STEPS,
      "--eval-every",
      "0",
      "--stop-after",
      String(last),
      "--save-every",
      String(last),
    ),
  );
  await assertSameCheckpoints(killed, straight);
  return { seed, steps: last, saved: kills - unsaved, unsaved };
}
