/**
 * Writes a GGUF file in another format by llama.cpp's own library, in a process of its own, as that logs every tensor:
 * `deno run ... llama_cpp_convert.ts FOLDER MODEL FILE FORMAT`.
 */

/** Formats of matrices, with llama.cpp's numbers for a file of them (`llama_ftype`). */
const FILE_TYPES = { f32: 0, f16: 1, q4_0: 2, q8_0: 7 } as const;

export type GgufFormat = keyof typeof FILE_TYPES;

/** More than `llama_model_quantize_params` takes, so that later fields find room too. */
const SETTINGS = { struct: new Array<"u64">(32).fill("u64") };

/** Where the settings that are changed stand in `llama.h` of release 0.5.0, the first an i32 and the others bool. */
const OFFSETS = { fileType: 4, mayRequantize: 16, quantizesHead: 17, isPure: 19 } as const;

/** The processor's build among node-llama-cpp's binaries. */
async function findLibrary(folder: string): Promise<string> {
  const os = { darwin: "mac", windows: "win" }[Deno.build.os as string] ?? Deno.build.os;
  const platform = `${os}-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}`;
  const packages = `${folder}/node_modules/@node-llama-cpp`;
  const names = (await Array.fromAsync(Deno.readDir(packages))).map(({ name }) => name);
  for (const name of names.filter((name) => name.startsWith(platform)).sort()) {
    const binaries = `${packages}/${name}/bins/${name}`;
    for await (const { name: file } of Deno.readDir(binaries)) {
      if (/^(lib)?llama\.(.+\.)?(so|dylib|dll)$/.test(file)) return `${binaries}/${file}`;
    }
  }
  throw new Error(`${packages} has no llama library for ${platform}`);
}

/** Every matrix gets the format; norms stay f32. */
function convert(
  library: string,
  { from, to, format }: { from: string; to: string; format: GgufFormat },
): void {
  const { symbols } = Deno.dlopen(library, {
    llama_model_quantize_default_params: { parameters: [], result: SETTINGS },
    llama_model_quantize: { parameters: ["buffer", "buffer", "buffer"], result: "u32" },
  });
  const settings = symbols.llama_model_quantize_default_params();
  const { fileType, mayRequantize, quantizesHead, isPure } = OFFSETS;
  if (settings[mayRequantize] !== 0 || settings[quantizesHead] !== 1 || settings[isPure] !== 0) {
    throw new Error("this llama.cpp has other settings than release 0.5.0; use node-llama-cpp 3.22.1");
  }
  settings[mayRequantize] = settings[isPure] = 1;
  new DataView(settings.buffer, settings.byteOffset).setInt32(fileType, FILE_TYPES[format], true);
  const code = symbols.llama_model_quantize(text(from), text(to), settings);
  if (code !== 0) throw new Error(`llama_model_quantize returned ${code}`);
}

function text(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${value}\0`);
}

if (import.meta.main) {
  const [folder, from, to, format] = Deno.args as [string, string, string, GgufFormat];
  try {
    convert(await findLibrary(folder), { from, to, format });
  } catch (error) {
    // The last line is what the user sees.
    Deno.stderr.writeSync(new TextEncoder().encode(`${(error as Error).message}\n`));
    Deno.exit(1);
  }
}
