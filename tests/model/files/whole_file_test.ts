import { join } from "@std/path";
import { assertEquals, assertRejects } from "@std/assert";
import { readFull, replaceFile, writeAll } from "../../../model/files/whole_file.ts";

function folderTest(name: string, body: (folder: string) => Promise<void>): void {
  Deno.test(name, async () => {
    const folder = await Deno.makeTempDir();
    try {
      await body(folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

const encoder = new TextEncoder();

function writeText(text: string): (file: Deno.FsFile) => Promise<void> {
  return (file) => writeAll(file, encoder.encode(text));
}

folderTest("replaceFile makes and replaces a file, and leaves nothing else", async (folder) => {
  const path = join(folder, "config.json");
  await replaceFile(path, { write: writeText("first, which is longer") });
  await replaceFile(path, { write: writeText("second") });
  assertEquals(await Deno.readTextFile(path), "second");
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["config.json"]);
});

folderTest(
  "replaceFile lets verify read the whole new file while the old one is in place",
  async (folder) => {
    const path = join(folder, "config.json");
    await replaceFile(path, { write: writeText("old") });
    const seen: string[] = [];
    await replaceFile(path, {
      write: writeText("new"),
      verify: async (unfinished) => {
        seen.push(await Deno.readTextFile(unfinished), await Deno.readTextFile(path));
      },
    });
    assertEquals(seen, ["new", "old"]);
  },
);

for (const failing of ["write", "verify"] as const) {
  folderTest(`replaceFile keeps the old file and leaves no other when ${failing} throws`, async (folder) => {
    const path = join(folder, "config.json");
    await replaceFile(path, { write: writeText("old") });
    function fail(): Promise<void> {
      return Promise.reject(new RangeError("disk full"));
    }
    await assertRejects(
      () =>
        replaceFile(path, {
          write: async (file) => {
            await writeText("half of the new")(file);
            if (failing === "write") await fail();
          },
          verify: failing === "verify" ? fail : () => Promise.resolve(),
        }),
      RangeError,
      "disk full",
    );
    assertEquals(await Deno.readTextFile(path), "old");
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["config.json"]);
  });
}

folderTest("replaceFile starts anew over what a killed run left", async (folder) => {
  const path = join(folder, "model.safetensors");
  await Deno.writeTextFile(join(folder, ".model.safetensors.unfinished"), "a longer rest of a killed run");
  await replaceFile(path, { write: writeText("whole") });
  assertEquals(await Deno.readTextFile(path), "whole");
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["model.safetensors"]);
});

folderTest("writeAll and readFull move more bytes than one call of the system does", async (folder) => {
  const path = join(folder, "large");
  const bytes = Uint8Array.from({ length: 5_000_001 }, (_, i) => i % 251);
  await replaceFile(path, { write: (file) => writeAll(file, bytes) });
  using file = await Deno.open(path);
  const read = new Uint8Array(bytes.length);
  assertEquals(await readFull(file, read), true);
  assertEquals(read.every((value, i) => value === bytes[i]), true);
  assertEquals(await readFull(file, new Uint8Array(1)), false);
});
