/** The pages of the documentation: their fenced blocks and their links. */
import { fromFileUrl, join, relative } from "@std/path";

/** The checkout. */
export const ROOT = fromFileUrl(new URL("../..", import.meta.url));

/** What set-up and packaging write, and what is no page of ours. */
const SKIPPED = [".git", ".mor", "dist", "node_modules", "shared"];

/** A fenced block of a page. */
export interface Block {
  /** What stands behind the fence: `sh`, `ts`, ... */
  readonly language: string;
  readonly text: string;
  /** Of its first line of text, from 1. */
  readonly line: number;
}

/** Paths of all Markdown files of the checkout, from its root on, sorted. */
export function findPages(folder: string = ROOT): string[] {
  return Array.from(Deno.readDirSync(folder)).flatMap(({ name, isDirectory, isFile }) => {
    const path = join(folder, name);
    if (isDirectory && !SKIPPED.includes(name)) return findPages(path);
    return isFile && name.endsWith(".md") ? [relative(ROOT, path).replaceAll("\\", "/")] : [];
  }).sort();
}

/** @throws SyntaxError for a fence that nothing closes. */
export function readBlocks(page: string): Block[] {
  const lines = page.split("\n");
  const blocks: Block[] = [];
  for (let at = 0; at < lines.length; at++) {
    const [, indent, fence, language = ""] = /^( *)(`{3,})(.*)$/.exec(lines[at]!) ?? [];
    if (fence === undefined) continue;
    const end = lines.indexOf(indent + fence, at + 1);
    if (end < 0) throw new SyntaxError(`the block of line ${at + 1} has no end`);
    blocks.push({
      language: language.trim(),
      text: lines.slice(at + 1, end).join("\n") + "\n",
      line: at + 2,
    });
    at = end;
  }
  return blocks;
}

/** Targets of the links outside of blocks. */
export function readLinks(page: string): string[] {
  const prose = page.replaceAll(/^( *)(`{3,})[^\n]*\n[^]*?^\1\2$/gm, "").replaceAll(/`[^`\n]*`/g, "");
  return Array.from(prose.matchAll(/\]\(([^)\s]+)\)/g), ([, target]) => target!);
}

/** Names that links to headings of a page use, as code hosts make them. */
export function readAnchors(page: string): string[] {
  return Array.from(
    page.matchAll(/^#+ (.*)$/gm),
    ([, heading]) => heading!.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-"),
  );
}
