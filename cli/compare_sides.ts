/** The two sides of `mor bench compare`: flags common to both, and those of each. */
import { Command, ValidationError } from "@cliffy/command";
import type { MatrixChoice } from "../model/load_weights.ts";
import { type Side, SIDES } from "../model/speed_comparison.ts";
import { addWorkFlags, checkWork, type WorkFlags } from "./work_flags.ts";

/** What a side may be told. */
export interface SideFlags extends WorkFlags {
  /** A commit, branch or tag whose program runs; the program as it is now unless given. */
  readonly revision?: string | undefined;
}

/** A side with all its flags. */
export interface ComparedSide {
  readonly side: Side;
  /** The flags of its own, as they were given. */
  readonly text: string;
  /** Those over the common ones. */
  readonly flags: SideFlags;
  readonly choice: MatrixChoice;
}

/**
 * Reads both sides' flags.
 *
 * @param texts What `--base` and `--change` were given: flags, between blanks.
 * @throws ValidationError that names the side, for unknown flags and wrong values; and for a training step on one side
 * alone.
 */
export async function readSides(
  texts: Readonly<Record<Side, string>>,
  { common, model }: { common: WorkFlags; model: string },
): Promise<Record<Side, ComparedSide>> {
  const [base, change] = await Promise.all(
    SIDES.map((side) => readSide(side, { text: texts[side].trim(), common, model })),
  ) as [ComparedSide, ComparedSide];
  if (base.flags.train !== change.flags.train) {
    throw new ValidationError(
      `--train is in ${
        quoted(base.flags.train ? base : change)
      } alone, wanted on both sides: a step has a ratio to ` +
        "another step only; give it outside of them",
    );
  }
  return { base, change };
}

async function readSide(
  side: Side,
  { text, common, model }: { text: string; common: WorkFlags; model: string },
): Promise<ComparedSide> {
  const words = text === "" ? [] : text.split(/\s+/);
  try {
    // A command has these by itself, and would show them as the help of a command that nobody can call.
    const help = words.find((word) => word === "-h" || word === "--help");
    if (help !== undefined) throw new ValidationError(`Unknown option "${help}".`);
    const command = addWorkFlags(new Command().name(`--${side}`), common)
      .option("--revision <revision:string>", "The program of that commit, branch or tag.")
      .noExit();
    const { options } = await command.parse(words);
    const flags: SideFlags = { ...common, ...options };
    return { side, text, flags, choice: checkWork(flags, model) };
  } catch (error) {
    // What is wrong with a side that has no flags is wrong with the common ones.
    if (!(error instanceof ValidationError) || text === "") throw error;
    throw new ValidationError(`With ${quoted({ side, text })}: ${error.message}`, { cause: error });
  }
}

/** A side as it was typed. */
export function quoted({ side, text }: Pick<ComparedSide, "side" | "text">): string {
  return `--${side} "${text}"`;
}
