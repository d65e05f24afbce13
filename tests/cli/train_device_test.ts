/** What a run says when its device fails: what became of it, what is kept, and how to go on. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { GpuError } from "../../gpu/errors.ts";
import { EXIT, explainError } from "../../cli/errors.ts";
import { cadenceOf, mergeFlags, settingsOf } from "../../cli/train_flags.ts";
import { type Run, runTraining } from "../../cli/train_run.ts";
import { openTerminal } from "../../cli/terminal.ts";
import { hasWeights } from "../../model/files/checkpoint.ts";
import { presetConfig } from "../../model/presets.ts";
import { readTokens, splitTokens } from "../../model/text/dataset.ts";
import { byteTokenizer } from "../../model/text/tokenizer.ts";
import { deviceLostAfter } from "../support/lost_device.ts";
import { corpus, folderTest } from "../support/program.ts";

async function runIn(folder: string): Promise<Run> {
  const config = presetConfig("tiny");
  const flags = mergeFlags({
    model: "tiny",
    data: [corpus],
    out: folder,
    steps: 6,
    batch_size: 2,
    sequence_length: 32,
    eval_every: 0,
    save_every: 2,
  });
  const tokens = await readTokens([corpus], { tokenizer: byteTokenizer, textField: "text" });
  const dataset = await splitTokens(tokens, {
    validationFraction: flags.validation_fraction,
    sequenceLength: flags.sequence_length,
    vocabSize: config.vocabSize,
  });
  return {
    config,
    settings: settingsOf(flags),
    cadence: cadenceOf(flags),
    dataset,
    tokenizer: byteTokenizer,
    tokenizerSource: "byte",
    flags,
    folder,
  };
}

async function failureOf(folder: string, open: () => Promise<GpuDevice>, resume = false): Promise<GpuError> {
  const terminal = openTerminal({ quiet: true });
  return await assertRejects(async () => {
    await runTraining(await runIn(folder), { terminal, resume, open });
  }, GpuError);
}

/** A device that answers, from the buffer of that number on, that it has no memory left. */
async function deviceFullAfter(buffers: number): Promise<GpuDevice> {
  const device = await openDevice();
  const { handle } = device;
  const create = handle.createBuffer.bind(handle);
  const pop = handle.popErrorScope.bind(handle);
  let left = buffers;
  handle.createBuffer = (descriptor): GPUBuffer => {
    left--;
    return create(descriptor);
  };
  handle.popErrorScope = async (): Promise<GPUError | null> =>
    await pop() ?? (left < 0 ? new GPUOutOfMemoryError("Not enough memory left.") : null);
  return device;
}

folderTest("a run whose device is lost says which checkpoint is intact", async (parent) => {
  const folder = join(parent, "run");
  const early = await failureOf(folder, () => deviceLostAfter(3));
  assertStringIncludes(early.message, "The GPU device was lost");
  assertStringIncludes(early.message, "nothing was saved: start the run again");
  // Found by doubling: a later step's submit.
  let late: GpuError | null = null;
  for (let submits = 100; late === null || !await hasWeights(folder); submits *= 2) {
    await Deno.remove(folder, { recursive: true });
    late = await failureOf(folder, () => deviceLostAfter(submits));
  }
  const { code, line, isExpected } = explainError(late);
  assertEquals([code, isExpected], [EXIT.failed, true]);
  assertStringIncludes(line, "The GPU device was lost");
  assertStringIncludes(line, `in ${folder} is intact: --resume goes on from there`);
  assertEquals(line.split("\n").length, 1);
});

folderTest(
  "a run whose device runs out of memory ends with exit code 4 and leaves nothing half made",
  async (parent) => {
    const folder = join(parent, "run");
    const error = await failureOf(folder, () => deviceFullAfter(2));
    assertEquals(explainError(error).code, EXIT.noMemory);
    assertStringIncludes(error.message, "Cannot allocate");
    assertStringIncludes(error.message, "nothing was saved");
    assertEquals(error.message.split("\n").length, 1);
    assertEquals(await hasWeights(folder), false);
    const left = await Array.fromAsync(Deno.readDir(parent), ({ name }) => name);
    for (const name of left) assertEquals(name.includes("unfinished"), false);
  },
);
