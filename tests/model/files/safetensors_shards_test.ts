import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { openShards } from "../../../model/files/safetensors_shards.ts";
import { writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { folderTest } from "../../support/program.ts";

const INDEX = "model.safetensors.index.json";
const PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;

/** Registers a test with a folder of two shards, each of one tensor, and the index that it asks for. */
function shardTest(name: string, index: unknown, body: (folder: string) => Promise<void>): void {
  folderTest(name, async (folder) => {
    for (const [i, part] of PARTS.entries()) {
      const tensors = [{ name: `t${i}`, shape: [2], data: () => Float32Array.of(i, i + 10) }];
      await writeSafetensors(join(folder, part), { tensors, metadata: { format: "pt" } });
    }
    const text = typeof index === "string" ? index : JSON.stringify(index);
    await Deno.writeTextFile(join(folder, INDEX), text);
    await body(folder);
  });
}

const right = { metadata: { total_size: 16 }, weight_map: { t0: PARTS[0], t1: PARTS[1] } };

shardTest("openShards reads tensors from wherever the index says", right, async (folder) => {
  using file = await openShards(folder);
  assertEquals([...file.entries.keys()], ["t0", "t1"]);
  assertEquals(await readWeight(file, { name: "t1", shape: [2] }), Float32Array.of(1, 11));
  assertEquals(await readWeight(file, { name: "t0", shape: [2] }), Float32Array.of(0, 10));
  await assertRejects(() => file.readRows("t2", { start: 0, count: 1 }), CheckpointError, '"t2" is missing');
});

shardTest("openShards prefers the one file that has everything", "not even JSON", async (folder) => {
  const tensors = [{ name: "whole", shape: [1], data: () => Float32Array.of(7) }];
  await writeSafetensors(join(folder, "model.safetensors"), { tensors, metadata: {} });
  using file = await openShards(folder);
  assertEquals([...file.entries.keys()], ["whole"]);
});

const wrong: Readonly<Record<string, readonly [index: unknown, message: string]>> = {
  "an index that is not JSON": ['{"weight_map"', `${INDEX}: it is not JSON`],
  "an index without a map": [{ metadata: {} }, `${INDEX}: field "weight_map"`],
  "a shard outside the folder": [
    { weight_map: { t0: "../secret.safetensors" } },
    `${INDEX}: field "weight_map.t0"`,
  ],
  "a shard that is not there": [
    { weight_map: { t0: "other.safetensors" } },
    "other.safetensors: no such file",
  ],
  "a tensor that its shard lacks": [{ weight_map: { t1: PARTS[0] } }, `tensor "t1" is not in ${PARTS[0]}`],
};

for (const [name, [index, message]] of Object.entries(wrong)) {
  shardTest(`openShards refuses ${name}`, index, async (folder) => {
    await assertRejects(() => openShards(folder), CheckpointError, message);
  });
}
