/** The shell script in front of the archive in dist/mor. */
import { CACHE_PARTS, DEMO_FOLDER, NETWORK_COMMAND, OUTPUT_FLAGS } from "../cli/written_paths.ts";
import { NETWORK_PERMISSIONS, PROGRAM_PERMISSIONS } from "./permissions.ts";
import script from "./self_extracting.sh" with { type: "text" };

/**
 * The script, filled in: `tools/self_extracting.sh`.
 *
 * @param hash Names what follows the script: another content unpacks into another folder.
 */
export function selfExtractingHeader({ hash, os }: { hash: string; os: typeof Deno.build.os }): string {
  const words: Readonly<Record<string, string>> = {
    HASH: hash,
    LINES: String(script.split("\n").length),
    CACHE: os === "darwin" ? "Library/Caches" : ".cache",
    OUTPUT_FLAGS: OUTPUT_FLAGS.join(" | "),
    OUTPUT_FLAGS_JOINED: OUTPUT_FLAGS.map((flag) => `${flag}=*`).join(" | "),
    DEMO_FOLDER,
    MODELS: CACHE_PARTS.models,
    TUNING: CACHE_PARTS.tuning,
    NETWORK_COMMAND,
    NETWORK: NETWORK_PERMISSIONS.join(" "),
    PERMISSIONS: PROGRAM_PERMISSIONS.join(" "),
  };
  return script.replaceAll(/@([A-Z_]+)@/g, (_, name: string) => words[name]!);
}
