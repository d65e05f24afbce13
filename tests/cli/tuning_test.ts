/** Measured kernels from run to run: the file, who measures when, and `mor doctor`. */
import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { dirname, join } from "@std/path";
import { type CacheEnvironment, cacheFolder } from "../../cli/cache_folder.ts";
import { retuneDevice, tuneDevice, useKeptTuning } from "../../cli/tuning.ts";
import { keepTuning, readTuning, TuningFileError, withTuningLock } from "../../cli/tuning_file.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { GpuError } from "../../gpu/errors.ts";
import { tuningKey } from "../../gpu/tuning/key.ts";
import type { TuningReport } from "../../gpu/tuning/measure.ts";
import { defaultTuning, type Tuning } from "../../gpu/tuning/tuning.ts";
import { gpuTest } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { choices, kept } from "../support/kept_tuning.ts";
import { assertFails, folderTest, morDone, run } from "../support/program.ts";

// Whoever runs the tests may have switched off what they are about.
Deno.env.delete("MOR_TUNING");

const report: TuningReport = {
  tuning: choices,
  cases: [{
    choice: "matmul",
    work: "4 x 4 by 4 x 4",
    flops: 128,
    trials: [
      { candidate: "tile_64x64", milliseconds: 2, note: null },
      {
        candidate: "tile_32x32",
        milliseconds: null,
        note: "wrong: its result is off by 3 of its usual size",
      },
      { candidate: "tile_128x128", milliseconds: 1, note: null },
    ],
    chosen: "tile_128x128",
  }],
  milliseconds: 1234,
};

Deno.test("cacheFolder is where each system keeps what can be made again", () => {
  const folder = (os: CacheEnvironment["os"], variables: Readonly<Record<string, string>>): string | null =>
    cacheFolder({ os, get: (name) => variables[name] });
  assertEquals(folder("linux", { HOME: "/home/me" }), join("/home/me", ".cache", "mor"));
  assertEquals(folder("darwin", { HOME: "/Users/me" }), join("/Users/me", "Library", "Caches", "mor"));
  assertEquals(folder("windows", { LOCALAPPDATA: "/local", HOME: "/me" }), join("/local", "mor"));
  for (const os of ["linux", "darwin", "windows"] as const) {
    const variables = { XDG_CACHE_HOME: "/cache", LOCALAPPDATA: "/local", HOME: "/me" };
    assertEquals(folder(os, variables), join("/cache", "mor"));
    assertEquals(folder(os, { XDG_CACHE_HOME: "", HOME: "", LOCALAPPDATA: "" }), null);
  }
});

folderTest("choices are read as they were kept, by their key", async (folder) => {
  const path = join(folder, "tuning.json");
  assertEquals(await readTuning(path, "a"), null);
  await keepTuning(path, { key: "a", tuning: kept });
  assertEquals(await readTuning(path, "a"), kept);
  assertEquals(await readTuning(path, "b"), null);
  const other = { ...kept, adapter: "another", choices: { ...choices, vectorRows: 4 as const } };
  await keepTuning(path, { key: "b", tuning: other });
  assertEquals([await readTuning(path, "a"), await readTuning(path, "b")], [kept, other]);
  await keepTuning(path, { key: "a", tuning: other });
  assertEquals(await readTuning(path, "a"), other);
  // Sixteen entries, the oldest goes.
  for (let i = 0; i < 15; i++) await keepTuning(path, { key: `version ${i}`, tuning: kept });
  assertEquals(await readTuning(path, "b"), null);
  assertEquals(await readTuning(path, "a"), other);
});

folderTest("a damaged file is said to be one, and is written anew", async (folder) => {
  const path = join(folder, "tuning.json");
  const entry = (change: object): string => JSON.stringify({ tunings: { a: { ...kept, ...change } } });
  const texts = [
    "",
    "{",
    "[]",
    '{"tunings": 3}',
    entry({ measured: "yesterday" }),
    entry({ choices: { ...choices, matmul: "tile_3x3" } }),
    entry({ choices: { ...choices, vectorRows: 5 } }),
    entry({ choices: {} }),
  ];
  for (const text of texts) {
    await Deno.writeTextFile(path, text);
    await assertRejects(() => readTuning(path, "a"), TuningFileError, `${path} is damaged`);
    await keepTuning(path, { key: "a", tuning: kept });
    assertEquals(await readTuning(path, "a"), kept);
  }
  // An entry of another version may have other fields.
  await Deno.writeTextFile(path, JSON.stringify({ tunings: { old: { kernel: 1 }, a: kept } }));
  assertEquals(await readTuning(path, "a"), kept);
});

folderTest("withTuningLock does one thing at a time, and says where it cannot write", async (folder) => {
  const path = join(folder, "new", "tuning.json");
  const order: string[] = [];
  const work = (name: string) => async (): Promise<void> => {
    order.push(`${name} begins`);
    await new Promise((resolve) => setTimeout(resolve, 20));
    order.push(`${name} ends`);
  };
  await Promise.all([withTuningLock(path, work("a")), withTuningLock(path, work("b"))]);
  const [first, second] = order[0]!.startsWith("a") ? ["a", "b"] : ["b", "a"];
  assertEquals(order, [`${first} begins`, `${first} ends`, `${second} begins`, `${second} ends`]);
  await Deno.writeTextFile(join(folder, "file"), "");
  const impossible = join(folder, "file", "tuning.json");
  await assertRejects(
    () => withTuningLock(impossible, () => Promise.reject(new Error("it was done"))),
    TuningFileError,
    "cannot write",
  );
});

/** An adapter that is not known: as the tests' own, but hardware. */
interface Unknown {
  readonly device: GpuDevice;
  readonly notes: string[];
  readonly options: {
    terminal: { note: (text: string) => void };
    path: string;
    measure: () => Promise<TuningReport>;
  };
  readonly measured: () => number;
}

function unknownAdapter(device: GpuDevice, path: string): Unknown {
  const notes: string[] = [];
  let count = 0;
  const measure = (): Promise<TuningReport> => {
    count++;
    return Promise.resolve(report);
  };
  const terminal = { note: (text: string) => void notes.push(text) };
  return { device: asHardware(device), notes, options: { terminal, path, measure }, measured: () => count };
}

/** Registers a test that gets the device and a folder of its own. */
function tuningTest(name: string, body: (device: GpuDevice, folder: string) => Promise<void>): void {
  gpuTest(name, async (device) => {
    const folder = await Deno.makeTempDir();
    try {
      await body(device, folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

tuningTest("tuneDevice measures an unknown adapter once, and says so", async (device, folder) => {
  const path = join(folder, "tuning.json");
  const first = unknownAdapter(device, path);
  await tuneDevice(first.device, first.options);
  assertEquals([first.measured(), first.device.tuning], [1, choices]);
  assertEquals(first.notes, [
    "tuning: matmul tile_32x32 is left out: wrong: its result is off by 3 of its usual size",
    `tuning: measured 3 kernels in 1.2 s; kept in ${path}`,
  ]);
  const second = unknownAdapter(device, path);
  await tuneDevice(second.device, second.options);
  assertEquals([second.measured(), second.device.tuning, second.notes], [0, choices, []]);
});

tuningTest("tuneDevice of many processes at once measures once", async (device, folder) => {
  const path = join(folder, "tuning.json");
  const processes = Array.from({ length: 5 }, () => unknownAdapter(device, path));
  await Promise.all(processes.map(({ device, options }) => tuneDevice(device, options)));
  assertEquals(processes.reduce((sum, { measured }) => sum + measured(), 0), 1);
  for (const { device } of processes) assertEquals(device.tuning, choices);
});

tuningTest(
  "tuneDevice leaves a known adapter at its defaults until it has been measured",
  async (device, folder) => {
    if (!device.info.isSoftware || device.info.subgroupSize !== 8) return;
    const { options, notes, measured } = unknownAdapter(device, join(folder, "tuning.json"));
    await tuneDevice(device, options);
    assertEquals([measured(), notes, device.tuning], [0, [], defaultTuning(device)]);
    await keepTuning(options.path, { key: await tuningKey(device), tuning: kept });
    try {
      await tuneDevice(device, options);
      assertEquals([measured(), device.tuning], [0, choices]);
    } finally {
      device.tuning = defaultTuning(device);
    }
  },
);

tuningTest("a damaged file is named and measured anew", async (device, folder) => {
  const path = join(folder, "tuning.json");
  await Deno.writeTextFile(path, "{");
  const { device: unknown, options, notes } = unknownAdapter(device, path);
  assertEquals(await useKeptTuning(unknown, options), null);
  assertEquals(notes.splice(0), [`tuning: ${path} is damaged; \`mor doctor --tune\` writes it anew`]);
  await tuneDevice(unknown, options);
  assertEquals(notes.length, 3);
  assertNotEquals(await useKeptTuning(unknown, options), null);
  assertEquals(unknown.tuning, choices);
});

tuningTest("what cannot be kept or measured leaves the defaults, with one note", async (device, folder) => {
  await Deno.writeTextFile(join(folder, "file"), "");
  const unwritable = unknownAdapter(device, join(folder, "file", "tuning.json"));
  await tuneDevice(unwritable.device, unwritable.options);
  // Nothing is measured in vain.
  assertEquals([unwritable.measured(), unwritable.notes.length], [0, 1]);
  assert(
    /^tuning: cannot (read|write) .*; the defaults are used$/.test(unwritable.notes[0]!),
    unwritable.notes[0]!,
  );

  const nowhere = unknownAdapter(device, "");
  await tuneDevice(nowhere.device, { ...nowhere.options, path: null });
  assertEquals(nowhere.measured(), 0);
  assertStringIncludes(nowhere.notes.join(), "tuning: the defaults are used");

  const lost = unknownAdapter(device, join(folder, "tuning.json"));
  const measure = (): Promise<never> => Promise.reject(new GpuError("lost", "The GPU device was lost"));
  await tuneDevice(lost.device, { ...lost.options, measure });
  assertEquals(lost.notes, ["tuning: The GPU device was lost; the defaults are used"]);
  for (const { device } of [unwritable, nowhere, lost]) assertEquals(device.tuning, defaultTuning(device));

  // Asked for it, it measures and shows what it cannot keep.
  const shown = await retuneDevice(unwritable.device, unwritable.options);
  assertEquals([shown.report, shown.path, unwritable.device.tuning], [report, null, choices]);
});

/** What `mor doctor --json` tells of kernels. */
interface Doctor {
  readonly tuning: { readonly measured: string | null; readonly choices: Tuning };
  readonly measurements?: readonly {
    readonly choice: keyof Tuning;
    readonly candidate: string | number;
    readonly milliseconds: number | null;
    readonly chosen: boolean;
  }[];
}

folderTest(
  "doctor --tune measures, shows all candidates and keeps the choice for later commands",
  async (cache) => {
    const info = await run([Deno.execPath(), "info", "--json"]);
    const { denoDir }: { denoDir: string } = JSON.parse(info.stdout);
    // Packages, and kernels that the driver has compiled, stay where they are.
    const elsewhere = { DENO_DIR: denoDir, MESA_SHADER_CACHE_DIR: dirname(denoDir) };
    const env = { ...elsewhere, XDG_CACHE_HOME: cache, MOR_TUNING: "" };
    const path = join(cache, "mor", "tuning", "adapters.json");
    const doctor = async (...flags: string[]): Promise<Doctor> =>
      JSON.parse((await morDone(["doctor", "--json", ...flags], { env })).stdout);

    const before = await doctor();
    assertEquals([before.tuning.measured, before.measurements], [null, undefined]);
    const { stdout, stderr } = await morDone(["doctor", "--json", "--tune"], { env });
    const { tuning, measurements = [] }: Doctor = JSON.parse(stdout);
    assert(/^tuning: measured \d+ kernels in [\d.]+ s; kept in .*adapters\.json$/m.test(stderr), stderr);
    assertStringIncludes(stderr, path);
    for (const choice of Object.keys(choices) as (keyof Tuning)[]) {
      if (choice === "vectorRows") continue;
      const chosen = measurements.filter((trial) => trial.choice === choice && trial.chosen);
      assertEquals(chosen.map(({ candidate }) => candidate), [tuning.choices[choice]], choice);
    }
    assert(measurements.every(({ milliseconds }) => milliseconds !== null), "a candidate fails or is wrong");
    assertEquals((await doctor()).tuning, tuning);
    const text = (await morDone(["doctor"], { env })).stdout;
    assertStringIncludes(text, `measured on ${tuning.measured}`);

    // Other commands use what is kept.
    const profile = ["profile", "demo", "-p", "300", "-n", "1", "--repeats", "1", "--json"];
    const file = JSON.parse(await Deno.readTextFile(path));
    const [entry] = Object.values(file.tunings) as [{ choices: Tuning }];
    entry.choices = { ...entry.choices, matmul: "tile_32x32" };
    await Deno.writeTextFile(path, JSON.stringify(file));
    assertStringIncludes((await morDone(profile, { env })).stdout, "matmul_tiled matmul");
    assertEquals((await doctor()).tuning.choices.matmul, "tile_32x32");

    // Unless told not to.
    const off = { env: { ...env, MOR_TUNING: "off" } };
    assertEquals(JSON.parse((await morDone(["doctor", "--json"], off)).stdout).tuning, before.tuning);
    await assertFails(["doctor"], {
      env: { ...env, MOR_TUNING: "of" },
      code: 2,
      parts: ['MOR_TUNING is "of"', "wanted off"],
    });
  },
);
