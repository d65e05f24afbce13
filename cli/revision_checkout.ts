/** Checkouts of other revisions of this program, beside the one that runs. */
import { ValidationError } from "@cliffy/command";
import { fromFileUrl, join } from "@std/path";
import { ProcessError } from "./errors.ts";

/** The checkout that this program runs from. */
export const CHECKOUT = fromFileUrl(new URL("..", import.meta.url));

/** Ignored by git: what set-up and other tasks write is there too. */
const WORK_FOLDER = join(CHECKOUT, ".mor");

/**
 * The commit that a revision (a commit, branch or tag) is.
 *
 * @throws ValidationError when git knows none; ProcessError when git cannot be started.
 */
export async function commitOf(revision: string): Promise<string> {
  const { code, output, errors } = await git("rev-parse", "--verify", "--quiet", `${revision}^{commit}`);
  if (code === 0 && /^[0-9a-f]+$/.test(output)) return output;
  throw new ValidationError(
    `git knows no revision "${revision}" in ${CHECKOUT}${errors && ` (${errors})`}; ` +
      "wanted a commit, branch or tag, such as HEAD~1",
  );
}

/**
 * Checks a commit out into a new folder, and returns that.
 *
 * @throws ProcessError when git cannot.
 */
export async function addCheckout(commit: string): Promise<string> {
  await Deno.mkdir(WORK_FOLDER, { recursive: true });
  const folder = await Deno.makeTempDir({ dir: WORK_FOLDER, prefix: `${commit.slice(0, 12)}-` });
  // Hooks are for the user's own checkouts.
  const quietly = ["-c", `core.hooksPath=${join(folder, "no hooks")}`];
  const { code, errors } = await git(...quietly, "worktree", "add", "--quiet", "--detach", folder, commit);
  if (code === 0) return folder;
  await removeCheckout(folder);
  throw new ProcessError(`Cannot check out ${commit}: ${errors}`);
}

/** Removes a checkout, whole or half made, and git's note of it. */
export async function removeCheckout(folder: string): Promise<void> {
  const { code } = await git("worktree", "remove", "--force", folder);
  if (code === 0) return;
  await Deno.remove(folder, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  await git("worktree", "prune");
}

/** Runs git in this checkout; returns its stdout, and its stderr as one line. */
async function git(...args: readonly string[]): Promise<{ code: number; output: string; errors: string }> {
  const command = new Deno.Command("git", { args: ["-C", CHECKOUT, ...args], stdin: "null" });
  const { code, stdout, stderr } = await command.output().catch((cause) => {
    throw new ProcessError(`Cannot compare revisions: git cannot be started (${cause.message})`, { cause });
  });
  const [output, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim());
  return { code, output: output!, errors: errors!.replaceAll(/\s*\n\s*/g, "; ") };
}
