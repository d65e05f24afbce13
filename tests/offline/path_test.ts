import { assertEquals, assertThrows } from "@std/assert";
import {
  basename,
  dirname,
  extname,
  fromFileUrl,
  isAbsolute,
  join,
  relative,
  resolve,
  toFileUrl,
} from "@std/path";

Deno.test("path functions take paths apart and put them together", () => {
  const path = join("runs", "first", "..", "second", "model.safetensors");
  assertEquals(path.replaceAll("\\", "/"), "runs/second/model.safetensors");
  assertEquals(basename(path), "model.safetensors");
  assertEquals(basename(path, ".safetensors"), "model");
  assertEquals(extname(path), ".safetensors");
  assertEquals(dirname(path).replaceAll("\\", "/"), "runs/second");
  assertEquals(relative(resolve("runs"), resolve(path)).replaceAll("\\", "/"), "second/model.safetensors");
  assertEquals(isAbsolute(path), false);
  assertEquals(isAbsolute(resolve(path)), true);
});

Deno.test("file URLs go both ways, and only absolute paths have one", () => {
  const path = resolve("a b.txt");
  assertEquals(fromFileUrl(toFileUrl(path)), path);
  assertThrows(() => toFileUrl("a.txt"), TypeError);
});
