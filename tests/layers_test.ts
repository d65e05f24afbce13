/** Imports go one way, main -> cli -> model -> gpu, and each package stays where it belongs. */
import { dirname, fromFileUrl, join, relative } from "@std/path";
import { assertEquals } from "@std/assert";

const root = fromFileUrl(new URL("..", import.meta.url));

/** From the top down: a file may import from its own layer and those after it. */
const layers = ["main", "cli", "model", "gpu"];

/** Packages that product code may use, by layer; `node:` is part of the platform. */
const packages: Record<string, readonly string[]> = {
  main: ["@cliffy/command", "@std/path"],
  cli: ["@cliffy/command", "@observablehq/plot", "@std/cli", "@std/path", "asciichart", "linkedom", "zod"],
  model: [
    "@huggingface/gguf",
    "@huggingface/hub",
    "@huggingface/jinja",
    "@huggingface/tokenizers",
    "@std/path",
    "zod",
  ],
  gpu: [],
};

interface Source {
  /** From the project's folder on, with slashes. */
  readonly path: string;
  readonly text: string;
}

interface Import {
  readonly specifier: string;
  readonly isTypeOnly: boolean;
}

/** Static imports, re-exports and dynamic imports of a file. */
function importsOf(text: string): Import[] {
  const code = text.replaceAll(/\/\*[^]*?\*\//g, "").replaceAll(/^\s*\/\/.*$/gm, "");
  const statements = code.matchAll(/^(?:import|export)\s+(type\s)?([^;"'()]*?\sfrom\s+)?["']([^"']+)["']/gm);
  const dynamic = code.matchAll(/\bimport\(\s*["']([^"']+)["']/g);
  return [
    ...Array.from(statements, ([, type, names = "", specifier]) => {
      const inner = /\{([^]*)\}/.exec(names)?.[1]?.split(",").map((name) => name.trim()).filter(Boolean) ??
        [];
      const namesOnlyTypes = inner.length > 0 && inner.every((name) => name.startsWith("type "));
      return { specifier: specifier!, isTypeOnly: type !== undefined || namesOnlyTypes };
    }),
    ...Array.from(dynamic, ([, specifier]) => ({ specifier: specifier!, isTypeOnly: false })),
  ];
}

function layerOf(path: string): string {
  return path === "main.ts" ? "main" : path.split("/")[0]!;
}

/** Where a relative specifier leads, from the project's folder on; null for packages. */
function targetOf({ path }: Source, specifier: string): string | null {
  return specifier.startsWith(".") ? join(dirname(path), specifier).replaceAll("\\", "/") : null;
}

function packageOf(specifier: string): string {
  return specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

/** Imports of product files that go up, out of the layers, or to a package of another layer. */
function wrongProductImports(sources: readonly Source[]): string[] {
  return sources.flatMap((source) => {
    const layer = layerOf(source.path);
    const wrong = importsOf(source.text).filter(({ specifier }) => {
      const target = targetOf(source, specifier);
      // The version on display is that of the package.
      if (target === "deno.json") return layer !== "cli";
      if (target !== null) return !layers.slice(layers.indexOf(layer)).includes(layerOf(target));
      return !specifier.startsWith("node:") && !packages[layer]!.includes(packageOf(specifier));
    });
    return wrong.map(({ specifier }) => `${source.path} imports ${specifier}`);
  });
}

/** Imports of the reference that take more than types from the product. */
function wrongReferenceImports(sources: readonly Source[]): string[] {
  return sources.flatMap((source) => {
    const wrong = importsOf(source.text).filter(({ specifier, isTypeOnly }) => {
      const target = targetOf(source, specifier);
      return target !== null && layers.includes(layerOf(target)) && !isTypeOnly;
    });
    return wrong.map(({ specifier }) => `${source.path} imports ${specifier}`);
  });
}

function* filesIn(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = join(folder, name);
    if (isDirectory) yield* filesIn(path);
    else if (name.endsWith(".ts")) yield path;
  }
}

function sourcesIn(folder: string): Source[] {
  return Array.from(filesIn(join(root, folder)), (path) => ({
    path: relative(root, path).replaceAll("\\", "/"),
    text: Deno.readTextFileSync(path),
  }));
}

Deno.test("product code imports downwards only, and only its layer's packages", () => {
  const main = { path: "main.ts", text: Deno.readTextFileSync(join(root, "main.ts")) };
  const sources = [main, ...sourcesIn("cli"), ...sourcesIn("model"), ...sourcesIn("gpu")];
  assertEquals(sources.length > 60, true, `only ${sources.length} files found`);
  assertEquals(sources.flatMap(({ text }) => importsOf(text)).length > 200, true);
  assertEquals(wrongProductImports(sources), []);
});

Deno.test("the reference takes nothing but types from the product", () => {
  const sources = sourcesIn("tests/reference");
  assertEquals(sources.length > 20, true, `only ${sources.length} files found`);
  assertEquals(wrongReferenceImports(sources), []);
});

Deno.test("wrong imports of every form are found", () => {
  const gpu = `/** import { a } from "../model/a.ts"; */
// import { a } from "../model/b.ts";
import { a } from "../model/config.ts";
import {
  type B,
  c,
} from "../cli/c.ts";
import type { D } from "../model/d.ts";
export * from "../main.ts";
import "@std/assert";
const e = await import("../model/e.ts");
import code from "./kernels/sum.wgsl" with { type: "text" };
import { f } from "./f.ts";
import { setImmediate } from "node:timers";`;
  assertEquals(wrongProductImports([{ path: "gpu/wrong.ts", text: gpu }]), [
    "gpu/wrong.ts imports ../model/config.ts",
    "gpu/wrong.ts imports ../cli/c.ts",
    "gpu/wrong.ts imports ../model/d.ts",
    "gpu/wrong.ts imports ../main.ts",
    "gpu/wrong.ts imports @std/assert",
    "gpu/wrong.ts imports ../model/e.ts",
  ]);
  const reference = `import type { A } from "../../model/a.ts";
import { type B, type C } from "../../gpu/b.ts";
import { type D, e } from "../../model/d.ts";
import { f } from "../support/f.ts";
import { g } from "./g.ts";
import * as h from "../../gpu/kernels/h.ts";`;
  assertEquals(wrongReferenceImports([{ path: "tests/reference/wrong.ts", text: reference }]), [
    "tests/reference/wrong.ts imports ../../model/d.ts",
    "tests/reference/wrong.ts imports ../../gpu/kernels/h.ts",
  ]);
  const cli = `import { A } from "../tests/support/a.ts";\nimport { B } from "../gpu/device.ts";`;
  assertEquals(wrongProductImports([{ path: "cli/wrong.ts", text: cli }]), [
    "cli/wrong.ts imports ../tests/support/a.ts",
  ]);
});
