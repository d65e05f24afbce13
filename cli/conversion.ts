/** What commands share that write a model in another form. */
import { ConfigError } from "../model/config.ts";
import type { CheckpointSource } from "../model/files/checkpoint_source.ts";
import type { ConversionProgress } from "../model/files/convert_weights.ts";
import type { TokenizerSource } from "../model/text/tokenizer_source.ts";
import { openProgress, type Progress } from "./progress.ts";
import type { Terminal } from "./terminal.ts";

/** A model's tokenizer; null if it has none that can be read, which a note says, and then its copy has none either. */
export async function tokenizerIfAny(
  source: CheckpointSource,
  { terminal }: { terminal: Terminal },
): Promise<TokenizerSource | null> {
  return await source.readTokenizer().catch((error) => {
    if (!(error instanceof ConfigError)) throw error;
    terminal.note(`without a tokenizer: ${error.message}`);
    return null;
  });
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
