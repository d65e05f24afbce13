/** Models' folders, results and logs on a disk whose power is cut at any moment, and on one that fails. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { MetricsLog } from "../../../cli/metrics.ts";
import { makeModelFolder } from "../../../model/files/model_folder.ts";
import { SafetensorsFile } from "../../../model/files/safetensors.ts";
import { writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { writeJson } from "../../../model/files/whole_file.ts";
import { readResults, ResultFile, sortResults } from "../../../model/text/result_lines.ts";
import type { StepReport } from "../../../model/train.ts";
import { DiskRecorder } from "../../support/power_cut.ts";
import { checkPowerCuts } from "../../support/power_cut_disk.ts";
import { folderTest } from "../../support/program.ts";

const STATES = 500;

function newSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}

/** Registers a test that gets an empty disk, and a folder for its states. */
function diskTest(name: string, body: (disk: string, other: string) => Promise<void>): void {
  folderTest(name, async (folder) => {
    const [disk, other] = [join(folder, "disk"), join(folder, "other")];
    await Deno.mkdir(disk);
    await Deno.mkdir(other);
    await body(disk, other);
  });
}

const NUMBERS = Float32Array.from({ length: 100 }, (_, i) => i / 7);

async function writeModel(folder: string): Promise<void> {
  await makeModelFolder(folder, {
    fill: async (unfinished) => {
      const tensors = [{ name: "x", shape: [10, 10], data: () => NUMBERS }];
      await writeSafetensors(join(unfinished, "model.safetensors"), { tensors, metadata: {} });
      await writeJson(join(unfinished, "config.json"), { size: 10 });
    },
  });
}

/** Whether the model is there; throws if only a part of it is. */
async function hasModel(folder: string): Promise<boolean> {
  const names = await Array.fromAsync(Deno.readDir(folder)).catch(() => []);
  if (names.length === 0) return false;
  assertEquals(JSON.parse(await Deno.readTextFile(join(folder, "config.json"))), { size: 10 });
  using file = await SafetensorsFile.open(join(folder, "model.safetensors"));
  assertEquals(new Float32Array((await file.readRows("x", { start: 0, count: 10 })).buffer), NUMBERS);
  return true;
}

diskTest("a model's folder is whole or not there, wherever power is cut", async (disk, other) => {
  const models = [join("new", "one"), join("new", "two"), "empty"];
  using recorder = new DiskRecorder(disk);
  await Deno.mkdir(join(disk, "empty"));
  for (const [i, name] of models.entries()) {
    await writeModel(join(disk, name));
    recorder.mark(i + 1);
  }
  const seed = newSeed();
  await checkPowerCuts(recorder.operations, {
    states: STATES,
    seed,
    folder: other,
    check: async ({ marked }) => {
      for (const [i, name] of models.entries()) {
        const isThere = await hasModel(join(other, name));
        assert(isThere || (marked ?? 0) < i + 1, `${name} is not there`);
      }
    },
  });
});

for (const lasts of [false, true]) {
  diskTest(
    `a model's folder can be written after any operation has failed${lasts ? ", and all after it" : ""}`,
    async (disk) => {
      for (let at = 0;; at++) {
        const root = join(disk, String(at));
        await Deno.mkdir(root);
        const folder = join(root, "new", "model");
        let left = at;
        let failed: string | null = null;
        const hook = (_: number, name: string): void => {
          if (left-- > 0 || failed && !lasts) return;
          failed ??= name;
          throw Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });
        };
        using _recorder = new DiskRecorder(root, { hook });
        const outcome = await writeModel(folder).catch((error) => error);
        left = Infinity;
        if (failed === null) break;
        assertEquals(outcome?.code, "ENOSPC", `operation ${at}, ${failed}`);
        if (!lasts) {
          const left = await Array.fromAsync(Deno.readDir(join(root, "new")), ({ name }) => name).catch(
            () => [],
          );
          assert(left.every((name) => name === "model"), `operation ${at}, ${failed}: ${left}`);
        }
        if (await hasModel(folder)) continue;
        await writeModel(folder);
        assert(await hasModel(folder));
      }
    },
  );
}

const RESULTS = [2, 0, 4, 1, 3, 5].map((index) => ({
  index,
  prompt: `prompt ${index} é`,
  seed: 7 + index,
  text: "x\n".repeat(index * 3),
}));

function linesOf(results: typeof RESULTS): string {
  return results.map((result) => JSON.stringify(result) + "\n").join("");
}

diskTest(
  "results are gone on with, wherever power is cut, and end as if it had not been",
  async (disk, other) => {
    using recorder = new DiskRecorder(disk);
    const path = join(disk, "results.jsonl");
    for (const [i, part] of [RESULTS.slice(0, 2), RESULTS.slice(2, 4), RESULTS.slice(4)].entries()) {
      const file = await ResultFile.open(path, await readResults(path, { resume: true }));
      for (const result of part) await file.write(result);
      await file.close();
      recorder.mark(2 * (i + 1));
    }
    await sortResults(path);
    recorder.mark(RESULTS.length);
    const seed = newSeed();
    const sorted = linesOf(RESULTS.toSorted((a, b) => a.index - b.index));
    await checkPowerCuts(recorder.operations, {
      states: STATES,
      seed,
      folder: other,
      check: async ({ marked }) => {
        const left = join(other, "results.jsonl");
        const found = await readResults(left, { resume: true });
        const done = new Set(found.done.map(({ index }) => index));
        for (const { index } of RESULTS.slice(0, marked ?? 0)) {
          assert(done.has(index), `result ${index} is lost`);
        }
        const file = await ResultFile.open(left, found);
        for (const result of RESULTS) {
          if (!done.has(result.index)) await file.write(result);
        }
        await file.close();
        await sortResults(left);
        assertEquals(await Deno.readTextFile(left), sorted);
      },
    });
  },
);

folderTest("results after a hole are made anew, and no other file is taken for such", async (folder) => {
  const path = join(folder, "results.jsonl");
  const [first, second] = [linesOf(RESULTS.slice(0, 1)), linesOf(RESULTS.slice(1, 2))];
  for (const hole of ["\0\0\0", `\0\0${second}`, `${second.slice(0, 9)}\0${second.slice(5)}`]) {
    await Deno.writeTextFile(path, first + hole);
    const { done, bytes, cut } = await readResults(path, { resume: true });
    assertEquals([done.length, bytes, cut], [1, first.length + 1, new TextEncoder().encode(hole).length]);
  }
  const others = [
    "no result",
    "\0\0\0\x18ftypmp42",
    `${first}\x01\x02`,
    "{\x07",
    `\x08\0\0\0\0\0\0\0{"x":1}`,
  ];
  for (const other of others) {
    await Deno.writeTextFile(path, other);
    await assertRejects(() => readResults(path, { resume: true }), Error, "is no result");
    assertEquals(await Deno.readTextFile(path), other);
  }
});

function reportOf(step: number): StepReport {
  const losses = { ce: 1 / step, auxiliary: null, balancing: null, z: null, total: 1 / step };
  return {
    kind: "step",
    step,
    tokens: 64 * step,
    losses,
    learningRate: 0.1,
    gradNorm: 1,
    health: null,
    evaluation: null,
  };
}

diskTest("a log has the lines of the steps that were saved, wherever power is cut", async (disk, other) => {
  using recorder = new DiskRecorder(disk);
  for (const resumedStep of [0, 4]) {
    using log = await MetricsLog.open(disk, { resumedStep });
    for (let step = resumedStep + 1; step <= resumedStep + 5; step++) {
      log.write(reportOf(step), { tokensPerSecond: 100 });
      if (step % 2 > 0) continue;
      await log.sync();
      recorder.mark(step);
    }
  }
  const seed = newSeed();
  await checkPowerCuts(recorder.operations, {
    states: STATES,
    seed,
    folder: other,
    check: async ({ marked }) => {
      using log = await MetricsLog.open(other, { resumedStep: marked ?? 0 });
      log.write(reportOf((marked ?? 0) + 1), { tokensPerSecond: 100 });
      const lines = (await Deno.readTextFile(join(other, "metrics.jsonl"))).trimEnd().split("\n");
      assertEquals(
        lines.map((line) => JSON.parse(line).step),
        Array.from({ length: (marked ?? 0) + 1 }, (_, i) => i + 1),
      );
    },
  });
});
