/** A run that is killed many times: `deno task bench kills [N]`, 200 unless told. */
import { killAgainAndAgain } from "../support/kills.ts";
import { count, UsageError } from "./arguments.ts";
import { note, print } from "./report.ts";

const KILLS = "200";

/** Kills a run again and again, and says what became of it; the exit code comes back. */
export async function benchKills([given = KILLS]: readonly string[]): Promise<number> {
  let kills: number;
  try {
    kills = count("kills", given);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    print(`bench: ${error.message}`);
    return 2;
  }
  const folder = await Deno.makeTempDir();
  const started = performance.now();
  try {
    const { seed, steps, saved, unsaved } = await killAgainAndAgain(folder, {
      kills,
      onKill: (done) => {
        if (done % 20 === 0) note(`${done} of ${kills} kills`);
      },
    });
    print(
      `${kills} kills -9 in ${
        Math.round((performance.now() - started) / 1000)
      } s (seed ${seed}): after each the ` +
        `checkpoint was whole, ${saved} times of the newest step, ${unsaved} times of the one before it, whose save the ` +
        `kill had prevented; the run went on to step ${steps}, where every bit was that of a run without kills`,
    );
    return 0;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
