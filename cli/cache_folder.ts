/** Where what can be made, or fetched, again is kept for the user. Imports nothing: see written_paths.ts. */

/** The variables that decide, and the system. */
export interface CacheEnvironment {
  readonly os: typeof Deno.build.os;
  readonly get: (name: "XDG_CACHE_HOME" | "LOCALAPPDATA" | "HOME") => string | undefined;
}

/**
 * The program's folder in the user's cache: in XDG_CACHE_HOME where it is set, else where the system has its caches.
 * It need not exist. Null where no variable names a place.
 */
export function cacheFolder(
  { os, get }: CacheEnvironment = { os: Deno.build.os, get: (name) => Deno.env.get(name) },
): string | null {
  const home = get("HOME");
  const usual = os === "windows"
    ? get("LOCALAPPDATA")
    : home && (os === "darwin" ? `${home}/Library/Caches` : `${home}/.cache`);
  const cache = get("XDG_CACHE_HOME") || usual;
  return cache ? `${cache.replace(/\/$/, "")}/mor` : null;
}
