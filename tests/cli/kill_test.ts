/** A run that is killed again and again: whatever the moment, its checkpoint is whole and it goes on. */
import { folderTest } from "../support/program.ts";
import { killAgainAndAgain } from "../support/kills.ts";

/** `deno task bench kills` does 200. */
const KILLS = 20;

folderTest(`a run survives ${KILLS} kills and ends as if it had not been killed`, async (folder) => {
  await killAgainAndAgain(folder, { kills: KILLS });
});
