/** Models whose files are links, pipes or devices. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { openCheckpoint } from "../../../model/files/checkpoint_source.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { damageModels } from "../../support/damage_models.ts";
import { loadModel, writeFiles } from "../../support/damage_trial.ts";
import { folderTest, run } from "../../support/program.ts";

/** Windows has links for administrators, and neither pipes nor devices in folders. */
const ignore = Deno.build.os === "windows";

async function quantized(): Promise<Readonly<Record<string, Uint8Array<ArrayBuffer>>>> {
  return (await damageModels()).find(({ name }) => name === "quantized")!.files;
}

if (!ignore) {
  folderTest(
    "a folder of links to files elsewhere is the model that they make, as in Hugging Face's cache",
    async (folder) => {
      const files = await quantized();
      const [blobs, snapshot] = [join(folder, "blobs"), join(folder, "snapshots", "0")];
      await Deno.mkdir(blobs);
      await Deno.mkdir(snapshot, { recursive: true });
      await writeFiles(blobs, files);
      for (const name of Object.keys(files)) {
        await Deno.symlink(join("../../blobs", name), join(snapshot, name));
      }
      assertEquals(await loadModel(snapshot), await loadModel(blobs));
    },
  );

  folderTest(
    "a pipe, a device or a missing file behind a link is refused in one line, and never waited for",
    async (folder) => {
      const files = await quantized();
      const pipe = join(folder, "pipe");
      assertEquals((await run(["sh", "-c", 'mkfifo "$0"', pipe])).code, 0);
      for (const name of ["config.json", "model.safetensors", "tokenizer.json"]) {
        for (const target of [pipe, "/dev/zero", join(folder, "nothing")]) {
          const model = await Deno.makeTempDir({ dir: folder });
          await writeFiles(model, files);
          await Deno.remove(join(model, name));
          await Deno.symlink(target, join(model, name));
          const { message } = await assertRejects(() => loadModel(model), Error);
          assertMatch(message, /^Cannot \P{Cc}+$/u);
          assertEquals(message.includes(model), true, message);
        }
      }
    },
  );

  folderTest("a link as a GGUF model is opened by its own name", async (folder) => {
    const fixture = new URL("../../../fixtures/gguf/tiny.gguf", import.meta.url);
    await Deno.copyFile(fixture, join(folder, "blob"));
    await Deno.symlink("blob", join(folder, "tiny.gguf"));
    assertEquals((await openCheckpoint(folder)).path, join(folder, "tiny.gguf"));
    await assertRejects(
      () => openCheckpoint(join(folder, "blob")),
      CheckpointError,
      "nor a .gguf file",
    );
  });
}
