/** What commands share that write a model in another form. */
import { ValidationError } from "@cliffy/command";
import type { ConversionProgress } from "../model/files/convert_weights.ts";
import { openProgress, type Progress } from "./progress.ts";
import type { Terminal } from "./terminal.ts";

/**
 * The format that `--dtype` names; null where it is not given.
 *
 * @throws ValidationError for a name that is not known.
 */
export function dtypeFlag<T extends string>(flag: string | undefined, known: readonly T[]): T | null {
  if (flag === undefined) return null;
  const dtype = known.find((name) => name === flag);
  if (dtype) return dtype;
  throw new ValidationError(`--dtype is "${flag}", wanted ${known.join(", ")}`);
}

/** Runs a conversion; shows how far it is where a line can be redrawn. */
export async function convertVisibly(
  terminal: Terminal,
  convert: (onWeight: (progress: ConversionProgress) => void) => Promise<void>,
): Promise<void> {
  let progress: Progress | undefined;
  try {
    await convert(({ name, index, count }) => {
      if (!terminal.isInteractive) return;
      progress ??= openProgress(terminal, { max: count, value: 0 });
      progress.update(index, `tensors ${name}`);
    });
  } finally {
    await progress?.stop();
  }
}
