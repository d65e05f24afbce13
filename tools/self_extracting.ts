/** The shell script in front of the archive in dist/mor. */
import { NETWORK_COMMAND, NETWORK_PERMISSIONS, PROGRAM_PERMISSIONS } from "./permissions.ts";

/**
 * A POSIX shell script that unpacks what follows it, once per user and version, and becomes the program (`exec`, so
 * that signals and the exit code are the program's own). Two first starts at once both unpack, each into a folder of
 * its own, and the first to rename it wins.
 */
export function selfExtractingHeader(hash: string): string {
  const lines = [
    "#!/bin/sh",
    "set -eu",
    'cache="${XDG_CACHE_HOME:-${HOME:-${TMPDIR:-/tmp}}/.cache}/mor"',
    `folder="$cache/${hash}"`,
    'if [ ! -x "$folder/deno" ]; then',
    '  mkdir -p "$cache"',
    '  fresh=$(mktemp -d "$cache/unpack.XXXXXX")',
    "  trap 'rm -rf \"$fresh\"' EXIT",
    "  trap 'exit 130' INT TERM HUP",
    '  tail -n +LINES "$0" | tar -xzf - -C "$fresh"',
    '  mv "$fresh" "$folder" 2>/dev/null || true',
    "  # Where the folder was there already, mv has put the fresh one inside it.",
    '  rm -rf "$fresh" "$folder/${fresh##*/}"',
    "  trap - EXIT INT TERM HUP",
    "fi",
    "network=",
    "# The command is the first argument that is no flag.",
    'for argument in "$@"; do',
    '  case "$argument" in',
    "    -*) ;;",
    `    ${NETWORK_COMMAND}) network="${NETWORK_PERMISSIONS.join(" ")}"; break ;;`,
    "    *) break ;;",
    "  esac",
    "done",
    "export DENO_NO_UPDATE_CHECK=1",
    `exec "$folder/deno" run -q --no-config --no-lock --no-remote --no-npm ${
      PROGRAM_PERMISSIONS.join(" ")
    } $network "$folder/mor.js" "$@"`,
    "",
  ];
  return lines.join("\n").replace("LINES", String(lines.length));
}
