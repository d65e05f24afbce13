/** Checkpoints on a disk whose power is cut at any moment, and on one that fails. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import type { GpuDevice } from "../../../gpu/device.ts";
import { saveTraining } from "../../../model/files/checkpoint.ts";
import { gpuTest } from "../../support/device.ts";
import { type DiskOperation, DiskRecorder } from "../../support/power_cut.ts";
import { checkPowerCuts, type DiskState } from "../../support/power_cut_disk.ts";
import { SavedSteps } from "../../support/saved_steps.ts";

const STATES = 1500;
const STEPS = [1, 2, 3, 4];

/** Where the run is on the disk: neither its folder nor that one's parent is there at the start. */
const RUN = join("runs", "mine");

function diskTest(
  name: string,
  body: (device: GpuDevice, disk: string, other: string) => Promise<void>,
): void {
  gpuTest(name, async (device) => {
    const [disk, other] = [await Deno.makeTempDir(), await Deno.makeTempDir()];
    try {
      await body(device, disk, other);
    } finally {
      for (const folder of [disk, other]) await Deno.remove(folder, { recursive: true });
    }
  });
}

/** The operations of a run that saves some steps, marked where each save has returned. */
async function recordRun(
  steps: SavedSteps,
  { disk, saver = saveTraining }: { disk: string; saver?: typeof saveTraining },
): Promise<readonly DiskOperation[]> {
  using recorder = new DiskRecorder(disk);
  await steps.create(join(disk, RUN));
  for (const step of STEPS) {
    await steps.save(join(disk, RUN), step, saver);
    recorder.mark(step);
  }
  return recorder.operations;
}

/** Throws unless the last step that a save has returned for is there, or the one that was being saved. */
async function checkRun(steps: SavedSteps, { marked, next }: DiskState, folder: string): Promise<void> {
  const loaded = await steps.load(join(folder, RUN));
  if (loaded === marked || loaded !== null && loaded === next) return;
  throw new Error(`step ${loaded} is there, step ${marked} had been saved`);
}

async function checkSaver(
  device: GpuDevice,
  { disk, other, saver, states = STATES }: {
    disk: string;
    other: string;
    saver?: typeof saveTraining;
    states?: number;
  },
): Promise<void> {
  const steps = new SavedSteps(device);
  const operations = await recordRun(steps, { disk, ...(saver && { saver }) });
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  await checkPowerCuts(operations, {
    states,
    seed,
    folder: other,
    check: (state) => checkRun(steps, state, other),
  });
}

diskTest(
  "the checkpoint whose save has returned survives a power cut at any moment",
  async (device, disk, other) => {
    await checkSaver(device, { disk, other });
  },
);

/** Takes calls away from a saver. */
function without(
  method: "sync",
  { of }: { of: (file: Deno.FsFile) => Promise<boolean> },
): typeof saveTraining {
  return async (device, options) => {
    const original = Deno.FsFile.prototype[method];
    Deno.FsFile.prototype[method] = async function (): Promise<void> {
      if (!await of(this)) await original.call(this);
    };
    try {
      await saveTraining(device, options);
    } finally {
      Deno.FsFile.prototype[method] = original;
    }
  };
}

diskTest("the model finds a saver that does not sync files", async (device, disk, other) => {
  const saver = without("sync", { of: async (file) => (await file.stat()).isFile });
  await assertRejects(() => checkSaver(device, { disk, other, saver }), Error, "of seed");
});

diskTest("the model finds a saver that does not sync folders", async (device, disk, other) => {
  const saver = without("sync", { of: async (file) => (await file.stat()).isDirectory });
  await assertRejects(() => checkSaver(device, { disk, other, saver }), Error, "of seed");
});

diskTest(
  "the model finds a saver that removes old states before new weights are safe",
  async (device, disk, other) => {
    const saver: typeof saveTraining = async (device, options) => {
      const folder = join(options.folder, "training");
      const { rename } = Deno;
      Deno.rename = async (from, to): Promise<void> => {
        if (String(to).endsWith("model.safetensors")) {
          for await (const { name } of Deno.readDir(folder)) {
            if (!name.includes(`-${options.state.step}.`)) await Deno.remove(join(folder, name));
          }
        }
        await rename(from, to);
      };
      try {
        await saveTraining(device, options);
      } finally {
        Deno.rename = rename;
      }
    };
    await assertRejects(() => checkSaver(device, { disk, other, saver }), Error, "of seed");
  },
);

const ERRORS: readonly (() => Error)[] = [
  () => Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" }),
  () => Object.assign(new Error("Input/output error (os error 5)"), { code: "EIO" }),
  () => new Deno.errors.PermissionDenied("Permission denied (os error 13)"),
];

async function unfinishedFiles(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) found.push(...await unfinishedFiles(join(folder, name)));
    else if (name.endsWith(".unfinished")) found.push(name);
  }
  return found;
}

for (const lasts of [false, true]) {
  diskTest(
    `a save that fails at any operation${lasts ? " and all after it" : ""} leaves the checkpoint before`,
    async (device, disk) => {
      const steps = new SavedSteps(device);
      const folder = join(disk, RUN);
      let left = Infinity;
      let failed: { name: string; error: Error } | null = null;
      const hook = (_: number, name: string): void => {
        if (left-- > 0 || failed && !lasts) return;
        failed ??= { name, error: error() };
        throw failed.error;
      };
      let error = ERRORS[0]!;
      using _recorder = new DiskRecorder(disk, { hook });
      await steps.create(folder);
      await steps.save(folder, 1);
      let saved = 1;
      for (let at = 0;; at++) {
        error = ERRORS[at % ERRORS.length]!;
        [left, failed] = [at, null];
        const outcome = await steps.save(folder, saved + 1).catch((error) => error);
        const met = failed as { name: string; error: Error } | null;
        left = Infinity;
        const where = `operation ${at}, ${met?.name}`;
        if (met === null) {
          break;
        }
        assertEquals(outcome, met.error, where);
        const loaded = await steps.load(folder);
        assert(
          loaded === saved || loaded === saved + 1,
          `${where}: step ${loaded}, ${saved} had been saved`,
        );
        if (!lasts) assertEquals(await unfinishedFiles(folder), [], where);
        await steps.save(folder, ++saved);
        assertEquals(await steps.load(folder), saved, where);
        assertEquals(await unfinishedFiles(folder), [], where);
      }
      assert(saved > 50, `only ${saved} saves`);
    },
  );
}

diskTest("a run whose start fails at any operation can be started again", async (device, disk) => {
  const steps = new SavedSteps(device);
  for (let at = 0, isOver = false; !isOver; at++) {
    const folder = join(disk, String(at), RUN);
    await Deno.mkdir(join(disk, String(at)));
    let [left, hasFailed] = [at, false];
    const hook = (): void => {
      if (hasFailed || left-- > 0) return;
      hasFailed = true;
      throw ERRORS[at % ERRORS.length]!();
    };
    using _recorder = new DiskRecorder(join(disk, String(at)), { hook });
    const start = async (): Promise<void> => {
      await steps.create(folder);
      await steps.save(folder, 1);
    };
    if (await start().then(() => true, () => false)) {
      isOver = true;
      assert(!hasFailed);
      continue;
    }
    const loaded = await steps.load(folder);
    assert(loaded === null || loaded === 1, `operation ${at}: step ${loaded}`);
    await start();
    assertEquals(await steps.load(folder), 1);
    assertEquals(await unfinishedFiles(folder), []);
  }
});
