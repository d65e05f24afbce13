/** Stand-in for `@std/path`: the functions this project uses, on `node:path`. */
import {
  basename as nodeBasename,
  dirname as nodeDirname,
  extname as nodeExtname,
  isAbsolute as nodeIsAbsolute,
  join as nodeJoin,
  normalize as nodeNormalize,
  relative as nodeRelative,
  resolve as nodeResolve,
} from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

function toPath(path: string | URL): string {
  return path instanceof URL ? fileURLToPath(path) : path;
}

/** Last part of a path, without `suffix` if it ends so. */
export function basename(path: string | URL, suffix = ""): string {
  return nodeBasename(toPath(path), suffix);
}

/** Path of the folder that holds `path`. */
export function dirname(path: string | URL): string {
  return nodeDirname(toPath(path));
}

/** Extension with its leading dot, or the empty string. */
export function extname(path: string | URL): string {
  return nodeExtname(toPath(path));
}

/** Whether a path starts at the root. */
export function isAbsolute(path: string): boolean {
  return nodeIsAbsolute(path);
}

/** Joins paths and normalizes the result. */
export function join(path: string | URL, ...paths: string[]): string {
  return nodeJoin(toPath(path), ...paths);
}

/** Resolves `.` and `..` and repeated separators. */
export function normalize(path: string | URL): string {
  return nodeNormalize(toPath(path));
}

/** Path of `to` as seen from the folder `from`. */
export function relative(from: string, to: string): string {
  return nodeRelative(from, to);
}

/** Absolute path; relative ones start at the working directory. */
export function resolve(...paths: string[]): string {
  return nodeResolve(...paths);
}

/** Path of a `file:` URL. @throws {TypeError} on another protocol. */
export function fromFileUrl(url: string | URL): string {
  return fileURLToPath(url);
}

/** `file:` URL of an absolute path. @throws {TypeError} if the path is relative. */
export function toFileUrl(path: string): URL {
  if (!nodeIsAbsolute(path)) throw new TypeError(`Path must be absolute: received "${path}"`);
  return pathToFileURL(path);
}
